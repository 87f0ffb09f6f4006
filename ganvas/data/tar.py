"""Tar archives from anywhere, gone through without trusting their headers."""

import contextlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ganvas.files import open_regular

CHUNK = 1 << 20  # bytes of a stream that are read at a time
LARGEST_EXTENSION = 1 << 20  # bytes of a header that only extends the next one: a long name, a table of pax
EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class CheckedTarInfo(tarfile.TarInfo):
    """A header whose size is checked before anything is read by it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "CheckedTarInfo":
        """Parse a header block.

        Raises:
            tarfile.ReadError: Its size is negative, or it is an extension of more than `LARGEST_EXTENSION`.
        """
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in EXTENSIONS and info.size > LARGEST_EXTENSION):
            raise tarfile.ReadError(f"a header has the size {info.size}")
        return info


@contextmanager
def open_tar(source: Path | IO[bytes]) -> Iterator[tarfile.TarFile]:
    """Open an uncompressed archive whose headers are checked.

    Args:
        source: A file; or a stream, which is only read, from its first byte to its last.

    Raises:
        tarfile.TarError: It is damaged.
        OSError: The file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        with _damage_named():  # the first header is read here
            if isinstance(source, Path):
                file = stack.enter_context(open_regular(source))
                tar = tarfile.open(fileobj=file, mode="r:", tarinfo=CheckedTarInfo)  # noqa: SIM115
            else:
                tar = tarfile.open(fileobj=source, mode="r|", bufsize=CHUNK, tarinfo=CheckedTarInfo)  # noqa: SIM115
        yield stack.enter_context(tar)


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Go through the members of an archive that `open_tar` opened.

    Raises:
        tarfile.TarError: A header is damaged, or does not lie behind the one before.
        OSError: The file cannot be read.
    """
    place = 0
    with _damage_named():
        for member in tar:
            # What pax says of a size is applied after the header was checked.
            if member.size < 0 or tar.offset <= place:
                raise tarfile.ReadError(f"the header of {member.name!r} has the size {member.size}")
            place = tar.offset
            yield member


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except RecursionError:
        raise tarfile.ReadError("headers extend one another without end") from None
    except (ValueError, OverflowError, IndexError) as error:
        raise tarfile.ReadError(f"a header is damaged ({error})") from None
