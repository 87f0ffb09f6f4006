"""Phrases that several messages use."""

from collections.abc import Sequence
from pathlib import Path

MAX_EXAMPLES = 3
MAX_QUOTE = 80  # characters of an invalid value or an unknown name
MAX_REASON = 200  # characters of a library's error message


def join_first(names: Sequence[str], separator: str = ", ") -> str:
    """Join the first few names: "a, b, c and 4 more"."""
    return separator.join(names[:MAX_EXAMPLES]) + (
        f" and {len(names) - MAX_EXAMPLES} more" if len(names) > MAX_EXAMPLES else ""
    )


def shorten(text: str, length: int = MAX_QUOTE) -> str:
    """Cut a text that may be from a file to a length that suits a message."""
    return text if len(text) <= length else f"{text[:length]}…"


def quote(value: object) -> str:
    """Return the ``repr`` of a value from a file, shortened."""
    return shorten(repr(value))


def describe_error(error: Exception) -> str:
    """Return the message of a library's error in one line, shortened; the error's type where it has none."""
    return shorten(" ".join(str(error).split()), MAX_REASON) or type(error).__name__


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
