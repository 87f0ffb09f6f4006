"""Parts of model cards that all modules share."""

import json
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from ganvas.models.folder import SAMPLE
from ganvas.nn.layers import Statistics
from ganvas.options import to_json


def sample_line(what: str) -> str:
    """Return Markdown that shows the model folder's sample, with ``what`` as its alternative text."""
    return f"![{what}]({SAMPLE})"


def norm_line(norm: str, statistics: Statistics) -> str:
    """Return a list item of Markdown, with its line break, on what batch norm normalizes by; "" for other norms."""
    how = "running" if statistics == "running" else "each image's own"
    return f"- Batch norm at inference: {how} statistics\n" if norm == "batch" else ""


def settings(options: object) -> str:
    """Return Markdown that lists all options of a training; folders only by name, since cards are shared."""
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
