"""Reading of tar archives whose headers are not trusted."""

import contextlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ganvas.files import open_regular
from ganvas.messages import describe_error, quote

CHUNK = 1 << 20  # bytes of a stream that are read at a time
MAX_EXTENSION = 1 << 20  # bytes of a header that extends the next one: a long name, a pax table
EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class CheckedTarInfo(tarfile.TarInfo):
    """A header whose size is checked before it is used."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "CheckedTarInfo":
        """Parse a header block.

        Raises:
            tarfile.ReadError: The size is negative, or that of an extension exceeds `MAX_EXTENSION`.
        """
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in EXTENSIONS and info.size > MAX_EXTENSION):
            raise tarfile.ReadError(f"a header has the size {info.size}")
        return info


@contextmanager
def open_tar(source: Path | IO[bytes]) -> Iterator[tarfile.TarFile]:
    """Open an uncompressed archive with checked headers.

    Args:
        source: A file, or a stream that is read once from start to end.

    Raises:
        tarfile.TarError: It is damaged.
        OSError: The file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        with _as_read_errors():  # the first header is read here
            if isinstance(source, Path):
                file = stack.enter_context(open_regular(source))
                tar = tarfile.open(fileobj=file, mode="r:", tarinfo=CheckedTarInfo)  # noqa: SIM115
            else:
                tar = tarfile.open(fileobj=source, mode="r|", bufsize=CHUNK, tarinfo=CheckedTarInfo)  # noqa: SIM115
        yield stack.enter_context(tar)


def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an archive that `open_tar` opened.

    Raises:
        tarfile.TarError: A header is damaged, or is not behind the one before.
        OSError: The file cannot be read.
    """
    offset = 0
    with _as_read_errors():
        for member in tar:
            # A pax header changes the size after the header was checked.
            if member.size < 0 or tar.offset <= offset:
                raise tarfile.ReadError(f"the header of {quote(member.name)} has the size {member.size}")
            offset = tar.offset
            yield member


@contextmanager
def _as_read_errors() -> Iterator[None]:
    try:
        yield
    except RecursionError:
        raise tarfile.ReadError("headers extend one another without end") from None
    except (ValueError, OverflowError, IndexError) as error:
        raise tarfile.ReadError(f"a header is damaged ({describe_error(error)})") from None
