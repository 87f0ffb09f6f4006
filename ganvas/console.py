"""What the command lines share: one message and exit code 2 for an expected failure, no traceback unless asked for."""

import errno
import io
import sys
from collections.abc import Callable, Sequence

from ganvas.errors import UserError

USER_ERROR = 2


# pytorch-CycleGAN-and-pix2pix's words for directions, which many fingers know.
DIRECTIONS = {"AtoB": "a2b", "BtoA": "b2a"}


def run_command(program: str, command: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run a command line and give the process's exit code.

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
        return command(arguments)
    except UserError as error:
        if debug:
            raise
        message = str(error)
    except OSError as error:
        # Anywhere, a disk can be full or a place read-only; other system errors are ours to explain.
        if debug or error.errno not in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT):
            raise
        message = f"{error.filename or 'a file'}: {error.strerror}. Make room or choose another place."
    except KeyboardInterrupt:
        return 130
    print(f"{program}: error: {message}", file=sys.stderr)
    return USER_ERROR


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
