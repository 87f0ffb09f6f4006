"""A command line of several commands."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ganvas.console import find_command, first_paragraph, parse_options, run_command


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        options: Dataclass of its options; the first paragraph of its docstring is the command's help.
        run: Runs it, given its options; returns the exit code.
        parse: Reads its options from the arguments, if `tyro` alone does not suffice.
    """

    options: type[Any]
    run: Callable[[Any], int]
    parse: Callable[[list[str]], Any] | None = None


def run_program(program: str, about: str, commands: Mapping[str, Command], argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments begin with; return the exit code.

    Args:
        program: Its name.
        about: What it is for, in a sentence.
        commands: Commands by name, in the order of the help.
        argv: The arguments; by default the process's.
    """

    def run(arguments: list[str]) -> int:
        listing = {name: first_paragraph(command.options) for name, command in commands.items()}
        name, rest = find_command(program, about, listing, arguments), arguments[1:]
        command = commands[name]
        parse = command.parse or partial(parse_options, f"{program} {name}", command.options)
        return command.run(parse(rest))

    return run_command(program, run, argv)
