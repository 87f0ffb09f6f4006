"""Options as frozen dataclasses: checked by pydantic, written to and read from JSON, with plain errors.

No torch in here: the command line must answer --help at once.
"""

import re
import unicodedata
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from ganvas.errors import UserError
from ganvas.limits import MAX_CHANNELS, MAX_SIDE, is_value_range

FORMAT_VERSION = 1
STRICT = ConfigDict(extra="forbid")  # an unknown key is a mistake, in every nested class
LONGEST_NAME = 200  # characters
MOST_PROBLEMS = 5  # in a message
LONGEST_INPUT = 80  # characters of a wrong value in a message


def _value_range(values: tuple[float, float]) -> tuple[float, float]:
    if not is_value_range(values):
        raise ValueError("a range is two finite numbers, the first below the second")
    return values


def _folder_name(name: str) -> str:
    parts = re.split(r"[/\\]", name)
    if ".." in parts or "" in parts or ":" in name or "\0" in name:
        raise ValueError("expected the name of a folder within the split, such as optical")
    return name


def _name(text: str) -> str:
    if len(text) > LONGEST_NAME or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text):
        raise ValueError(f"expected a name of at most {LONGEST_NAME} characters, in one line")
    return text


# Types of fields that come from other people's files, too.
Channels = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Range = Annotated[tuple[float, float], AfterValidator(_value_range)]
FolderName = Annotated[str, AfterValidator(_folder_name)]
Name = Annotated[str, AfterValidator(_name)]

Options = TypeVar("Options")


def to_json(options: object) -> dict[str, Any]:
    """Give a dataclass as JSON values, with the format's version."""
    values = TypeAdapter(type(options)).dump_python(options, mode="json")
    return {"format_version": FORMAT_VERSION, **values}


def from_json(kind: type[Options], values: dict[str, Any], where: str) -> Options:
    """Build a dataclass from what `to_json` gave.

    Args:
        kind: The dataclass.
        values: JSON values.
        where: The file they come from, for messages.

    Raises:
        UserError: An unknown key, a wrong type, a value out of range, or a newer format.
    """
    check_version(values, where)
    try:
        return TypeAdapter(kind).validate_python({k: v for k, v in values.items() if k != "format_version"})
    except ValidationError as error:
        raise UserError(f"{where}: {_describe(error)}") from None


def check_version(values: dict[str, Any], where: str) -> None:
    """Refuse a file that a newer ganvas wrote.

    Raises:
        UserError: The version is newer than `FORMAT_VERSION`, or no number.
    """
    version = values.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(
            f"{where}: has format version {version!r}, and this ganvas reads up to {FORMAT_VERSION}. "
            "Install the newer ganvas that wrote it."
        )


def validate(options: Options) -> Options:
    """Check the limits of all values: tyro builds options, but only pydantic knows the limits.

    Raises:
        UserError: A value is out of range.
    """
    adapter = TypeAdapter(type(options))
    try:
        return adapter.validate_python(adapter.dump_python(options))
    except ValidationError as error:
        raise UserError(_describe(error, on_command_line=True)) from None


def _describe(error: ValidationError, *, on_command_line: bool = False) -> str:
    """Say each problem with the option's name, as the command line or a file has it, the value and what is allowed."""
    problems = []
    for item in error.errors()[:MOST_PROBLEMS]:
        name = next((str(part) for part in reversed(item["loc"]) if str(part).isidentifier()), "options")
        if on_command_line:
            name = "--" + name.replace("_", "-")
        if item["type"] == "unexpected_keyword_argument":
            problems.append(f"{name}: there is no such option")
        else:
            value = repr(item["input"])
            value = value if len(value) <= LONGEST_INPUT else f"{value[:LONGEST_INPUT]}…"
            problems.append(f"{name} is {value}: {item['msg']}")
    return "; ".join(problems) + "."
