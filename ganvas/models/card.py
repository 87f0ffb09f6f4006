"""What the model cards of all modules share."""

import json
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from ganvas.models.folder import SAMPLE
from ganvas.options import to_json


def sample_line(what: str) -> str:
    """Show the model folder's sample, Markdown.

    Args:
        what: What it shows, for those who cannot see it.
    """
    return f"![{what}]({SAMPLE})"


def settings(options: object) -> str:
    """List all options of a training, Markdown; of a folder only the name, since cards are shared."""
    values = json.dumps(_without_folders(to_json(options)), indent=2, ensure_ascii=False)
    return f"## All options of the training\n\n```json\n{values}\n```"


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    for kind in (PurePosixPath, PureWindowsPath):
        if isinstance(value, str) and kind(value).is_absolute():
            return kind(value).name
    return value
