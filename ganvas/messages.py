"""Phrases that several messages use."""

from collections.abc import Sequence
from pathlib import Path

MAX_EXAMPLES = 3
MAX_QUOTE = 80  # characters of an invalid value or an unknown name


def join_first(names: Sequence[str], separator: str = ", ") -> str:
    """Join the first few names: "a, b, c and 4 more"."""
    return separator.join(names[:MAX_EXAMPLES]) + (
        f" and {len(names) - MAX_EXAMPLES} more" if len(names) > MAX_EXAMPLES else ""
    )


def shorten(text: str) -> str:
    """Cut a long text, which may be from a file, for a message."""
    return text if len(text) <= MAX_QUOTE else f"{text[:MAX_QUOTE]}…"


def describe_missing(path: Path, what: str) -> str:
    """Describe a missing file or folder, or the broken symbolic link in its path.

    Args:
        path: The missing path.
        what: Expected there: "image", "folder".
    """
    broken = next((each for each in (path, *path.parents) if each.is_symlink() and not each.exists()), None)
    if broken is None:
        return f"there is no such {what}"
    which = "is" if broken == path else f"lies behind {broken},"
    return f"{which} a broken symbolic link to {broken.readlink()}"
