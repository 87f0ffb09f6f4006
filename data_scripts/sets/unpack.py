"""Unpack untrusted tar.gz and zip archives of images.

Only regular files are written, only inside the folder, none twice, and no more than an archive of images can hold. One
bad member condemns the archive. (`tarfile.data_filter` covers neither zip archives nor sizes nor colliding names, and
allows links.)
"""

import errno
import gzip
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from ganvas.data.tar import members, open_tar
from ganvas.errors import UserError
from ganvas.files import open_regular, write_error
from ganvas.log import progress_bar
from ganvas.messages import describe_error, quote, shorten

CHUNK = 1 << 20  # bytes
SMALL = 64 << 20  # bytes that any archive may unpack to
MAX_GROWTH = 10  # images hardly compress: a larger archive that grows by more holds something else
MAX_NAME_BYTES = 255  # of one part of a path; no common file system allows more
MAX_FILES = 500_000  # three times the number in the largest published dataset

DRIVE = re.compile(r"[A-Za-z]:")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # file names that Windows reserves
CONTROL_CATEGORIES = ("Cc", "Cs")  # Unicode's control characters and surrogates
NOT_ON_WINDOWS = str.maketrans(dict.fromkeys('<>:"|?*', "_"))

DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    struct.error,
    zlib.error,
    tarfile.TarError,
    zipfile.BadZipFile,
)


class BadArchive(UserError):
    """The file is damaged, dangerous, or not an archive."""


class _Budget:
    """The bytes and files that an archive may still unpack to."""

    def __init__(self, size: int, files: int) -> None:
        self.size, self.files = size, files

    def spend(self, *, size: int = 0, files: int = 0) -> None:
        self.size -= size
        self.files -= files
        if self.size < 0 or self.files < 0:
            raise BadArchive("unpacks to far more than an archive of images does")


class _MeteredReader:
    """A stream whose bytes count against a budget as they are read, whatever a header claims."""

    def __init__(self, stream: IO[bytes], budget: _Budget) -> None:
        self._stream, self._budget = stream, budget

    def read(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        self._budget.spend(size=len(chunk))
        return chunk


def unpack(
    archive: Path,
    folder: Path,
    place: Callable[[PurePosixPath], PurePosixPath | None],
    *,
    max_size: int | None = None,
    max_files: int = MAX_FILES,
) -> dict[str, int]:
    """Unpack a tar.gz or zip archive into a folder.

    Characters that Windows does not allow in names become "_" on every system. A zip archive's directory has no
    checksum: count the files where completeness matters.

    Args:
        archive: The file; its format is detected from its content.
        folder: An empty folder.
        place: Maps a member's path to its place in the folder, or to None to skip it.
        max_size: Bytes that it may unpack to; by default 64 MiB, or ten times the archive's size if that is more.
        max_files: Members that it may have.

    Returns:
        The number of files by folder, relative to ``folder``.

    Raises:
        BadArchive: It is damaged or not an archive; contains a path outside the folder, a link, a device, or two files
            of one name (ignoring case); or exceeds a limit.
    """
    size = archive.stat().st_size
    budget = _Budget(max_size or max(SMALL, MAX_GROWTH * size), max_files)
    counts: Counter[str] = Counter()
    taken: set[str] = set()
    try:
        with closing(_files(archive, budget)) as files:
            for name, chunks in files:
                target = place(PurePosixPath(name))
                if target is None:
                    continue
                target = _free_target(target, taken)
                _write(folder / target, chunks)
                counts[str(target.parent)] += 1
    except BadArchive as error:
        raise BadArchive(f"{archive}: {error}.") from None
    return dict(counts)


def _write(path: Path, chunks: Iterator[bytes]) -> None:
    """Write a file and the folders around it.

    Raises:
        BadArchive: The path is too long, or its folder is a file of the archive, or the other way around.
        UserError: The disk is full, or the folder is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as output:
            output.writelines(chunks)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise BadArchive(f"holds a path that is too long, {quote(path.name)}") from None
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise BadArchive(f"holds one path as a file and as a folder, found at {quote(path.name)}") from None
        raise write_error(path, error) from None


def _free_target(target: PurePosixPath, taken: set[str]) -> PurePosixPath:
    """Return a target with a name that every system allows; refuse one that another file has."""
    if not target.name:
        raise BadArchive("holds a file without a name")
    target = target.with_name(target.name.translate(NOT_ON_WINDOWS))
    key = unicodedata.normalize("NFC", str(target)).casefold()
    if key in taken:
        raise BadArchive(f"holds two files that would both be {shorten(str(target))}")
    taken.add(key)
    return target


def _check_name(name: str) -> None:
    """Refuse paths that lead out of the folder, or mean something else on another system."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or DRIVE.match(name):
        raise BadArchive(f"holds a path that leads out of its folder, {quote(name)}")
    if any(len(part.encode(errors="replace")) > MAX_NAME_BYTES for part in path.parts):
        raise BadArchive(f"holds a name of more than {MAX_NAME_BYTES} bytes, {quote(name)}")
    if RESERVED.match(path.name) or any(unicodedata.category(character) in CONTROL_CATEGORIES for character in name):
        raise BadArchive(f"holds a name that not every system allows, {quote(name)}")


def _files(archive: Path, budget: _Budget) -> Generator[tuple[str, Iterator[bytes]]]:
    """Yield each regular file's name and content, which has to be read before the next file."""
    with _damage_as_bad_archive(), open_regular(archive) as file, progress_bar() as bar:
        packed = cast(IO[bytes], bar.wrap_file(file, archive.stat().st_size, description="unpacking"))
        magic = packed.read(4)
        packed.seek(0)
        if magic.startswith(b"\x1f\x8b"):
            found = _tar_files(packed, budget)
        elif magic in (b"PK\x03\x04", b"PK\x05\x06"):
            found = _zip_files(packed, budget)
        else:
            raise BadArchive(f"is neither a tar.gz nor a zip archive; it begins with {magic!r}")
        for name, content in found:
            _check_name(name)
            yield name, _chunks(content)


def _tar_files(packed: IO[bytes], budget: _Budget) -> Iterator[tuple[str, IO[bytes]]]:
    with gzip.open(packed) as stream:
        metered = _metered(cast(IO[bytes], stream), budget)
        with open_tar(metered) as tar:
            for member in members(tar):
                budget.spend(files=1)
                content = tar.extractfile(member) if member.isreg() else None
                if content is not None:
                    yield member.name, content
                elif member.isdir():
                    _check_name(member.name)
                else:
                    raise BadArchive(f"holds a link or a device, {quote(member.name)}")
        while metered.read(CHUNK):  # gzip's checksum stands at the end of the stream
            pass


def _zip_files(packed: IO[bytes], budget: _Budget) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(packed) as file:
        for member in file.infolist():
            budget.spend(files=1)
            name = member.orig_filename  # zipfile cuts `filename` at a zero byte
            if name.endswith("/") and not member.file_size:
                _check_name(name)
                continue
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                raise BadArchive(f"holds a link or a device, {quote(name)}")
            is_encrypted = member.flag_bits & 1
            if is_encrypted or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadArchive(f"is encrypted or uses an uncommon compression at {quote(name)}")
            with file.open(member) as content:
                yield name, _metered(content, budget)


def _metered(stream: IO[bytes], budget: _Budget) -> IO[bytes]:
    return cast(IO[bytes], _MeteredReader(stream, budget))  # nothing but `read` is used


def _chunks(content: IO[bytes]) -> Iterator[bytes]:
    with _damage_as_bad_archive():
        while chunk := content.read(CHUNK):
            yield chunk


@contextmanager
def _damage_as_bad_archive() -> Iterator[None]:
    """Turn whatever reading a damaged archive raises into `BadArchive`."""
    try:
        yield
    except DAMAGE as error:
        raise BadArchive(f"is damaged or cut short ({describe_error(error)})") from None
