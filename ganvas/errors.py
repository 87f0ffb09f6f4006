"""The exceptions that the command line shows to its user without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """An expected failure: bad input, a missing file, a full disk.

    The message names what is wrong, where (path or option, and the value found there) and what to do about it. The
    command line prints it and ends with exit code 2. A mistake in the use of the Python API is a ``ValueError`` or a
    ``TypeError`` instead.

    Example:
        >>> import ganvas
        >>> try:
        ...     ganvas.load("runs/mars")
        ... except ganvas.UserError as error:
        ...     print(error)
        runs/mars: ...
    """


class WriteError(UserError):
    """A place that cannot be written, whatever was to be written there: full, locked, gone."""


@contextmanager
def add_place_to_errors(place: object) -> Iterator[None]:
    """Begin the message of a `UserError` that the block raises with a place, such as the path of a file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
