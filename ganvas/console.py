"""What the command lines share: how a command is found, one message and exit code 2 for an expected failure.

Free of heavy imports: every command begins here, and ``--help`` must answer at once.
"""

import contextlib
import difflib
import errno
import inspect
import io
import os
import select
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from ganvas.errors import UserError
from ganvas.log import shown_log

USER_ERROR = 2
CLOSED_PIPE = 141  # 128 + SIGPIPE: what a shell reports of a tool whose reader has ended

# pytorch-CycleGAN-and-pix2pix's words for directions, which many fingers know.
DIRECTIONS = {"AtoB": "a2b", "BtoA": "b2a"}
HELP = ("-h", "--help")
WIDTH = 100  # columns of a list of commands


def run_command(program: str, command: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run a command line and give the process's exit code.

    Where nobody reads the output any more, as after ``| head``, the command ends quietly with the exit code that a
    shell reports of usual tools.

    Args:
        program: Its name, for messages.
        command: Takes the arguments, gives the exit code.
        argv: The arguments; the process's own by default. ``--debug`` among them asks for tracebacks.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if isinstance(sys.stdout, io.TextIOWrapper):  # as standard error does: file names need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = _own_words([argument for argument in arguments if argument != "--debug"])
    try:
        try:
            code = _run(program, command, arguments, debug=debug)
        except SystemExit as end:  # the parser's, after --help
            if not isinstance(end.__context__, BrokenPipeError):  # rich makes such an end of a closed pipe
                if _write_out(program, 0) == USER_ERROR:
                    return USER_ERROR
                raise
        else:
            return _write_out(program, code)
    except BrokenPipeError:
        if not (_is_unread(sys.stdout) or _is_unread(sys.stderr)):  # it was another pipe
            raise
    _discard(sys.stdout)
    _discard(sys.stderr)
    return CLOSED_PIPE


def _run(program: str, command: Callable[[list[str]], int], arguments: list[str], *, debug: bool) -> int:
    """Run a command; turn an expected failure into its message and exit code."""
    try:
        with shown_log():
            return command(arguments)
    except UserError as error:
        if debug:
            raise
        message = str(error)
    except OSError as error:
        # Anywhere, a disk can be full or a place read-only; other system errors are ours to explain.
        if debug or error.errno not in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT):
            raise
        message = _no_room(error)
    except KeyboardInterrupt:
        return 130
    print(f"{program}: error: {message}", file=sys.stderr)
    return USER_ERROR


def _no_room(error: OSError) -> str:
    return f"{error.filename or 'the output'}: {error.strerror}. Make room or choose another place."


def _write_out(program: str, code: int) -> int:
    """Flush the output while a failure can still be reported, if none was; return the exit code.

    Raises:
        BrokenPipeError: Nobody reads it.
    """
    try:
        if sys.stdout is not None:  # as it is where the process was given none
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        if code != USER_ERROR:
            print(f"{program}: error: {_no_room(error)}", file=sys.stderr)
        _discard(sys.stdout)
        return USER_ERROR
    return code


def _is_unread(stream: TextIO | None) -> bool:
    """Return whether a stream is a pipe whose reader has ended."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file descriptor is not a pipe
        if stream is not None and hasattr(select, "poll"):
            poll = select.poll()
            poll.register(stream.fileno(), 0)
            return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    return False


def _discard(stream: TextIO | None) -> None:
    """Send what is left in a stream nowhere, so that the interpreter does not complain of it at its end."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file descriptor has none to replace
        if stream is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def parse_options(
    program: str, options: Any, arguments: Sequence[str], *, default: Any = None, flat: bool = False
) -> Any:
    """Read options; the parser ends the process after ``--help`` and where options are wrong.

    Args:
        program: Name for the help.
        options: A dataclass.
        arguments: The arguments.
        default: Instance with the defaults; by default the dataclass's own.
        flat: Whether options of nested dataclasses have no prefix.
    """
    import tyro

    flags = [tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone]  # neither --no-json nor "None" among choices
    flags += [tyro.conf.OmitArgPrefixes] if flat else []
    return tyro.cli(options, prog=program, args=list(arguments), default=default, config=tuple(flags))


def find_command(program: str, about: str, commands: Mapping[str, str], arguments: Sequence[str]) -> str:
    """Return the name of the command that the arguments begin with; print the list of all where help is asked for.

    Raises:
        UserError: There is no such command.
        SystemExit: Help was asked for, or no command was given.
    """
    name = arguments[0] if arguments else ""
    if name in commands:
        return name
    if name in HELP or not name:
        print(_listing(program, about, commands), file=sys.stdout if name else sys.stderr)
        raise SystemExit(0 if name else USER_ERROR)
    near = difflib.get_close_matches(name, commands, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise UserError(f"there is no command {name!r}. {hint}There are: {', '.join(commands)}.")


def first_paragraph(described: type) -> str:
    """Return the first paragraph of a class's docstring, as one line."""
    return " ".join(inspect.cleandoc(described.__doc__ or "").partition("\n\n")[0].split())


def _listing(program: str, about: str, commands: Mapping[str, str]) -> str:
    column = max(map(len, commands)) + 4
    wrap = textwrap.TextWrapper(WIDTH, subsequent_indent=" " * column, break_on_hyphens=False)
    lines = [wrap.fill(f"  {name}".ljust(column) + what) for name, what in commands.items()]
    head = [f"usage: {program} COMMAND [options]", "", about, ""]
    return "\n".join([*head, *lines, "", f"{program} COMMAND --help lists the options of a command."])


def _own_words(arguments: Sequence[str]) -> list[str]:
    """Put our words for directions in the place of another tool's."""
    words = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=")
        if before == "--direction":
            argument = DIRECTIONS.get(argument, argument)
        elif option == "--direction":
            argument = option + equals + DIRECTIONS.get(value, value)
        words.append(argument)
    return words
