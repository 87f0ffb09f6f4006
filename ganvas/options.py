"""Options as frozen dataclasses: validated by pydantic, and stored as JSON.

Does not import torch, and pydantic only where values are checked, so that --help is fast. Limits are therefore declared
with annotated_types, which pydantic understands.
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
from ganvas.messages import join_first, quote, shorten

if TYPE_CHECKING:
    from pydantic import ConfigDict, GetCoreSchemaHandler, ValidationError
    from pydantic_core import CoreSchema

FORMAT_VERSION = 1
VERSION = "format_version"
COMMAND = "command"  # key in a run's config.json: the command that trained it
# For every nested class: unknown keys are errors, and JSON has no infinite numbers.
STRICT: ConfigDict = {"extra": "forbid", "allow_inf_nan": False}
MAX_NAME = 200  # characters
MAX_PROBLEMS = 5  # in a message

Options = TypeVar("Options")


@dataclass(frozen=True)
class Converted:
    """Annotation of a value that a function converts after validation.

    Equal to pydantic's AfterValidator, whose import is slow.
    """

    convert: Callable[[Any], object]

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema for pydantic."""
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
    if len(text) > MAX_NAME or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text):
        raise ValueError(f"expected a name of at most {MAX_NAME} characters, in one line")
    return text


# Types of fields that are also read from untrusted files.
Channels = Annotated[int, Interval(ge=1, le=MAX_CHANNELS)]
Side = Annotated[int, Interval(ge=1, le=MAX_SIDE)]
Range = Annotated[tuple[float, float], Converted(_value_range)]
FolderName = Annotated[str, Converted(_folder_name)]
Name = Annotated[str, Converted(_name)]


def optional(metavar: str) -> object:
    """Annotate an option whose default, None, is explained by its help; --help then does not show None."""
    import tyro

    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def to_json(options: object) -> dict[str, Any]:
    """Return a dataclass as JSON values, with the format version."""
    from pydantic import TypeAdapter

    values = TypeAdapter(type(options)).dump_python(options, mode="json")
    return {VERSION: FORMAT_VERSION, **values}


def from_json(cls: type[Options], values: dict[str, Any], where: str) -> Options:
    """Build a dataclass from the result of `to_json`.

    Args:
        cls: The dataclass.
        values: JSON values.
        where: Their file, for messages.

    Raises:
        UserError: An unknown key, a wrong type, a value out of range, or a newer format.
    """
    from pydantic import TypeAdapter, ValidationError

    check_version(values, where)
    try:
        return TypeAdapter(cls).validate_python({k: v for k, v in values.items() if k not in (VERSION, COMMAND)})
    except ValidationError as error:
        raise UserError(f"{where}: {_describe(error)}") from None


def check_version(values: dict[str, Any], where: str) -> None:
    """Check that a file was not written by a newer version of ganvas.

    Raises:
        UserError: The version is newer than `FORMAT_VERSION`, or not a number.
    """
    version = values.get(VERSION, FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(
            f"{where}: has format version {quote(version)}, and this ganvas reads up to {FORMAT_VERSION}. "
            "Install the newer ganvas that wrote it."
        )


def validate(options: Options) -> Options:
    """Check the limits of all values, which tyro ignores.

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
    """Describe each problem by the name of the option, its value and the allowed values."""
    problems: list[str] = []
    unknown: list[str] = []
    for item in error.errors():
        name = next((str(part) for part in reversed(item["loc"]) if str(part).isidentifier()), "options")
        name = "--" + name.replace("_", "-") if on_command_line else shorten(name)
        if item["type"] == "unexpected_keyword_argument":
            unknown.append(name)
        else:
            problems.append(f"{name} is {quote(item['input'])}: {item['msg']}")
    if unknown:
        problem = "there is no such option" if len(unknown) == 1 else "there are no such options"
        problems.append(f"{join_first(unknown)}: {problem}")
    more = f" and {len(problems) - MAX_PROBLEMS} more problems" if len(problems) > MAX_PROBLEMS else ""
    return "; ".join(problems[-MAX_PROBLEMS:]) + more + "."
