"""Parsing of a command's options."""

from collections.abc import Sequence
from typing import TypeVar

from ganvas.console import parse_options
from ganvas.options import validate

Options = TypeVar("Options")


def parse_arguments(command: str, options: type[Options], argv: Sequence[str]) -> Options:
    """Parse and validate the options of ``python -m data_scripts COMMAND``.

    Raises:
        UserError: A value is out of range.
        SystemExit: Help was requested, or the arguments do not parse.
    """
    return validate(parse_options(f"python -m data_scripts {command}", options, argv))
