"""Archives from elsewhere, unpacked without trusting them.

Nothing is written outside the folder, nothing but regular files, no file twice, and no more than an archive of images
can hold. One name or one kind of member that is out of order condemns the whole archive.
"""

import gzip
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from ganvas.data.tar import members, open_tar
from ganvas.errors import UserError
from ganvas.files import open_regular

CHUNK = 1 << 20  # bytes
SMALL = 64 << 20  # bytes that any archive may unpack to
GROWTH = 10  # images hardly shrink: a larger archive that grows so many times holds something else
MAXIMUM_FILES = 500_000  # three times what the largest published set holds

DRIVE = re.compile(r"[A-Za-z]:")
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # Windows has no files of such names
NO_LETTERS = ("Cc", "Cs")  # Unicode's control characters and halves of characters
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
    """The archive is damaged, dangerous, or no archive."""


@dataclass
class Budget:
    """What may still be taken out of an archive."""

    size: int
    """Bytes."""
    files: int
    """Files and folders."""

    def spend(self, *, size: int = 0, files: int = 0) -> None:
        """Take something out.

        Raises:
            BadArchive: There is more in it than was agreed.
        """
        self.size -= size
        self.files -= files
        if self.size < 0 or self.files < 0:
            raise BadArchive("unpacks to far more than an archive of images does")


def budget_of(archive: Path) -> Budget:
    """Tell how much an archive of images of this size can hold."""
    return Budget(max(SMALL, GROWTH * archive.stat().st_size), MAXIMUM_FILES)


class Metered:
    """A stream that stops when the budget is spent: how much there is shows only in the reading.

    Args:
        stream: What is read.
        budget: What may be read.
    """

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, budget: Budget) -> None:
        self._stream, self._budget = stream, budget

    def read(self, size: int = CHUNK, /) -> bytes:
        """Give at most so many bytes; none at the end.

        Raises:
            BadArchive: The budget is spent.
        """
        piece = self._stream.read(size)
        self._budget.spend(size=len(piece))
        return piece


Content = IO[bytes] | Metered


def unpack(
    archive: Path,
    folder: Path,
    place: Callable[[PurePosixPath], PurePosixPath | None],
    *,
    budget: Budget | None = None,
    came_to: Callable[[int], None] = lambda place: None,
) -> dict[str, int]:
    """Unpack a tar.gz or zip archive into a folder.

    Characters that Windows does not allow in names become "_", on every system alike. A zip archive's list of contents
    has no checksum: count the files where it matters that none is missing.

    Args:
        archive: The file; its kind is seen from its content.
        folder: An empty folder.
        place: Tells where in the folder a member goes, by its path in the archive; None leaves it out.
        budget: How much may come out of it; by default what `budget_of` says.
        came_to: Told of progress: how many bytes of the archive are behind.

    Returns:
        How many files came into each folder, by the folder's path from ``folder``.

    Raises:
        BadArchive: It is damaged or no archive, or holds a path that leads out, a link, a device, two files of one
            name (to a disk that knows no capitals, too), or more than the budget.
    """
    counts: Counter[str] = Counter()
    taken: set[str] = set()
    try:
        with _opened(archive) as packed:
            for name, content in _members(packed, budget or budget_of(archive)):
                target = place(_checked(name))
                if target is None:
                    continue
                if not target.name:
                    raise BadArchive("holds a file without a name")
                target = target.with_name(target.name.translate(NOT_ON_WINDOWS))
                key = unicodedata.normalize("NFC", str(target)).casefold()
                if key in taken:
                    raise BadArchive(f"holds two files that would both be {target}")
                taken.add(key)
                (folder / target.parent).mkdir(parents=True, exist_ok=True)
                with (folder / target).open("xb") as file:
                    for chunk in _chunks(content):
                        file.write(chunk)
                        came_to(packed.tell())
                counts[str(target.parent)] += 1
    except BadArchive as bad:
        raise BadArchive(f"{archive}: {bad}.") from None
    return dict(counts)


def _checked(name: str) -> PurePosixPath:
    """Refuse names that lead out of the folder, or mean something else on another system."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or DRIVE.match(name):
        raise BadArchive(f"holds a path that leads out of its folder, {name!r}")
    if DEVICE.match(path.name) or any(unicodedata.category(character) in NO_LETTERS for character in name):
        raise BadArchive(f"holds a name that not every system allows, {name!r}")
    return path


@contextmanager
def _opened(archive: Path) -> Iterator[BinaryIO]:
    with _damage_told():
        file = open_regular(archive)
    with file:
        yield file


def _members(packed: BinaryIO, budget: Budget) -> Iterator[tuple[str, Content]]:
    """Go through the regular files; the content of each is good until the next."""
    with _damage_told():
        magic = packed.read(4)
        packed.seek(0)
        if magic.startswith(b"\x1f\x8b"):
            yield from _tar_members(packed, budget)
        elif magic in (b"PK\x03\x04", b"PK\x05\x06"):
            yield from _zip_members(packed, budget)
        else:
            raise BadArchive(f"is neither a tar.gz nor a zip archive; it begins with {magic!r}")


def _tar_members(packed: BinaryIO, budget: Budget) -> Iterator[tuple[str, Content]]:
    with gzip.open(packed) as stream:
        metered = Metered(stream, budget)
        stand_in = cast(IO[bytes], metered)  # of a stream, tarfile asks no more than to be read
        with open_tar(stand_in) as tar:
            for member in members(tar):
                budget.spend(files=1)
                content = tar.extractfile(member) if member.isreg() else None
                if content is not None:
                    yield member.name, content
                elif member.isdir():
                    _checked(member.name)
                else:
                    raise BadArchive(f"holds a link or a device, {member.name!r}")
        while metered.read():  # the checksum lies at the end of the stream
            pass


def _zip_members(packed: BinaryIO, budget: Budget) -> Iterator[tuple[str, Content]]:
    with zipfile.ZipFile(packed) as file:
        for member in file.infolist():
            budget.spend(files=1)
            name = member.orig_filename  # as it is written: zipfile cuts it at a zero byte
            if name.endswith("/") and not member.file_size:
                _checked(name)
                continue
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                raise BadArchive(f"holds a link or a device, {name!r}")
            encrypted = member.flag_bits & 1
            if encrypted or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadArchive(f"is encrypted or packed in an uncommon way at {name!r}")
            with file.open(member) as content:
                yield name, Metered(content, budget)


def _chunks(content: Content) -> Iterator[bytes]:
    with _damage_told():
        while chunk := content.read(CHUNK):
            yield chunk


@contextmanager
def _damage_told() -> Iterator[None]:
    """Make one kind of error of all that reading a damaged archive can raise."""
    try:
        yield
    except DAMAGE as error:
        raise BadArchive(f"is damaged or cut short ({error or type(error).__name__})") from None
