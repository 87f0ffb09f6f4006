"""JSON files, and JSON from untrusted sources."""

import json
import math
from pathlib import Path
from typing import Any

from ganvas.errors import UserError
from ganvas.files import open_regular, write_file

MAX_BYTES = 1 << 28
MAX_DIGITS = 100  # of an integer; the state of a random generator has 39


def write_json(path: Path, values: object) -> None:
    """Write indented JSON; the file appears complete or not at all.

    Raises:
        UserError: The disk is full, or the folder is not writable.
    """
    write_file(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        what: What the file is, for messages: "a run's config".

    Raises:
        UserError: It is missing, unreadable, too large, or not a JSON object.
    """
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES >> 20} MiB")
        values = parse_json(content)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: there is no such file; expected {what}.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {what}.") from None
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error}); expected {what}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: is not a JSON object but {type(values).__name__}; expected {what}.")
    return values


def parse_json(text: str | bytes) -> Any:
    """Parse untrusted JSON.

    Lone surrogates are allowed only as bytes of a file name that is not UTF-8 (`os.fsdecode`).

    Raises:
        ValueError: It is not JSON (NaN and infinities are not, either), is nested too deeply, or has a number or a
            string that cannot be used.
    """
    if isinstance(text, bytes):
        text = text.decode()
    try:
        values = json.loads(text, parse_int=_parse_int, parse_float=_parse_float, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if "\\ud" in text.lower():
        _require_encodable(values)
    return values


def _parse_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits; at most {MAX_DIGITS} are allowed")
    return int(digits)


def _parse_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:20]} is too large")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


def _require_encodable(values: object) -> None:
    """Check that all strings are text or file names."""
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            try:
                value.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                raise ValueError(f"the text {value[:20]!a} holds half a character (a lone surrogate)") from None
