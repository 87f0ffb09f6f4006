"""Parsing of a command's options."""

from collections.abc import Sequence
from typing import TypeVar

from ganvas.options import validate

Options = TypeVar("Options")


def parse_arguments(command: str, options: type[Options], argv: Sequence[str]) -> Options:
    """Parse and validate the options of ``python -m data_scripts COMMAND``.

    Args:
        command: The command's name.
        options: A dataclass.
        argv: The arguments after the command.

    Raises:
        UserError: A value is out of range.
        SystemExit: Help was requested, or the arguments do not parse.
    """
    import tyro

    flags = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)  # neither --no-json nor "None" among choices
    return validate(tyro.cli(options, prog=f"python -m data_scripts {command}", args=list(argv), config=flags))
