"""Options as frozen dataclasses: checked by pydantic, written to and read from JSON, with plain errors.

No torch in here, and pydantic only where values are checked: the command line must answer --help at once. Limits of
values are therefore written in annotated_types' words, which pydantic understands.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from annotated_types import Interval

from ganvas.errors import UserError
from ganvas.limits import MAX_CHANNELS, MAX_SIDE, is_value_range

if TYPE_CHECKING:
    from pydantic import ConfigDict, GetCoreSchemaHandler, ValidationError
    from pydantic_core import CoreSchema

FORMAT_VERSION = 1
VERSION = "format_version"
COMMAND = "command"  # beside the options in a run's config.json: the command that trained it
MOST_NAMED = 3  # unknown options that a message names
# Of every nested class: an unknown key is a mistake, and JSON has no infinite numbers.
STRICT: ConfigDict = {"extra": "forbid", "allow_inf_nan": False}
LONGEST_NAME = 200  # characters
MOST_PROBLEMS = 5  # in a message
LONGEST_INPUT = 80  # characters of a wrong value in a message

Options = TypeVar("Options")


@dataclass(frozen=True)
class Converted:
    """Annotation of a value that is replaced, once it is checked, by what a function makes of it.

    Attributes:
        convert: The function.
    """

    convert: Callable[[Any], object]

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tell pydantic what to do, as its own AfterValidator would, which takes long to import."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.convert, handler(source))


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
Channels = Annotated[int, Interval(ge=1, le=MAX_CHANNELS)]
Side = Annotated[int, Interval(ge=1, le=MAX_SIDE)]
Range = Annotated[tuple[float, float], Converted(_value_range)]
FolderName = Annotated[str, Converted(_folder_name)]
Name = Annotated[str, Converted(_name)]


def to_json(options: object) -> dict[str, Any]:
    """Give a dataclass as JSON values, with the format's version."""
    from pydantic import TypeAdapter

    values = TypeAdapter(type(options)).dump_python(options, mode="json")
    return {VERSION: FORMAT_VERSION, **values}


def from_json(kind: type[Options], values: dict[str, Any], where: str) -> Options:
    """Build a dataclass from what `to_json` gave.

    Args:
        kind: The dataclass.
        values: JSON values.
        where: The file they come from, for messages.

    Raises:
        UserError: An unknown key, a wrong type, a value out of range, or a newer format.
    """
    from pydantic import TypeAdapter, ValidationError

    check_version(values, where)
    try:
        return TypeAdapter(kind).validate_python({k: v for k, v in values.items() if k not in (VERSION, COMMAND)})
    except ValidationError as error:
        raise UserError(f"{where}: {_describe(error)}") from None


def check_version(values: dict[str, Any], where: str) -> None:
    """Refuse a file that a newer ganvas wrote.

    Raises:
        UserError: The version is newer than `FORMAT_VERSION`, or no number.
    """
    version = values.get(VERSION, FORMAT_VERSION)
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
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(type(options))
    try:
        return adapter.validate_python(adapter.dump_python(options))
    except ValidationError as error:
        raise UserError(_describe(error, on_command_line=True)) from None


def _describe(error: ValidationError, *, on_command_line: bool = False) -> str:
    """Say each problem with the option's name, as the command line or a file has it, the value and what is allowed."""
    problems: list[str] = []
    unknown: list[str] = []
    for item in error.errors():
        name = next((str(part) for part in reversed(item["loc"]) if str(part).isidentifier()), "options")
        if on_command_line:
            name = "--" + name.replace("_", "-")
        if item["type"] == "unexpected_keyword_argument":
            unknown.append(name)
        else:
            value = repr(item["input"])
            value = value if len(value) <= LONGEST_INPUT else f"{value[:LONGEST_INPUT]}…"
            problems.append(f"{name} is {value}: {item['msg']}")
    if unknown:
        more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        said = "there is no such option" if len(unknown) == 1 else "there are no such options"
        problems.append(f"{', '.join(unknown[:MOST_NAMED])}{more}: {said}")
    more = f" and {len(problems) - MOST_PROBLEMS} more problems" if len(problems) > MOST_PROBLEMS else ""
    return "; ".join(problems[-MOST_PROBLEMS:]) + more + "."
