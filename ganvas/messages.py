"""Phrases that messages share."""

from collections.abc import Sequence
from pathlib import Path

NAMED = 3  # examples that a message names


def join_first(names: Sequence[str], separator: str = ", ") -> str:
    """Join the first few names: "a, b, c and 4 more"."""
    return separator.join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def describe_missing(path: Path, what: str) -> str:
    """Describe why a path leads nowhere, for messages.

    Args:
        path: It does not exist.
        what: What it should be: "image", "folder".
    """
    broken = next((each for each in (path, *path.parents) if each.is_symlink() and not each.exists()), None)
    if broken is None:
        return f"there is no such {what}"
    which = "is" if broken == path else f"lies behind {broken},"
    return f"{which} a broken symbolic link to {broken.readlink()}"
