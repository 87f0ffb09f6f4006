"""Lists of a million images that stay small, and what else lies in their folders.

A ``Path`` takes some 300 bytes and a ``str`` 70, and a loading process that only looks at such objects copies the
memory they lie in, since each of them counts its users. Names in one buffer take their own length, and processes go on
sharing them; a ``Path`` is made when a image is asked for.
"""

import os
import unicodedata
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from ganvas.data.formats import IMAGE_SUFFIXES
from ganvas.errors import UserError
from ganvas.messages import describe_missing, join_first

# Files that belong beside images: descriptions, tables, geo-references, overviews, databases of thumbnails.
SIDE_SUFFIXES = frozenset(
    {".json", ".jsonl", ".txt", ".xml", ".csv", ".tsv", ".md", ".html", ".yaml", ".yml", ".log", ".db", ".ini"}
    | {".cls", ".prj", ".tfw", ".tifw", ".jgw", ".pgw", ".wld", ".ovr"}
)
SIDE_NAMES = frozenset({"readme", "license", "licence", "makefile"})


class Names:
    """Strings in one buffer, by number.

    Args:
        names: File names, or parts of them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        ends, buffer = array("q", [0]), bytearray()
        for name in names:
            buffer += os.fsencode(name)
            ends.append(len(buffer))
        self._ends, self._buffer = array("q", ends), bytes(buffer)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is none of {len(self)} names")
        return os.fsdecode(self._buffer[self._ends[index] : self._ends[index + 1]])

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


class Files:
    """Files of one folder, by number.

    Args:
        folder: Where they lie.
        names: Their names.
        unread: Other files beside them, counted as in `Listing`.
    """

    def __init__(self, folder: Path, names: Iterable[str], unread: Mapping[str, int] | None = None) -> None:
        self.folder = folder
        self.unread = Counter(unread or {})
        self._names = Names(names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Path:
        return self.folder / self._names[index]

    def __iter__(self) -> Iterator[Path]:
        return (self.folder / name for name in self._names)

    def listing(self) -> Iterator[tuple[str, int]]:
        """Return name and size in bytes of each; the size of one that is gone is -1."""
        for name in self._names:
            try:
                yield name, (self.folder / name).stat().st_size
            except OSError:
                yield name, -1


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        images: The images, sorted by path.
        unread: Files in formats that are not read, counted by suffix. Hidden files are not counted, nor are those that
            belong beside images (`SIDE_SUFFIXES`).
    """

    images: list[Path]
    unread: Counter[str]


def list_folder(folder: Path, *, recursive: bool = False) -> Listing:
    """List the images of a folder, and count the files that are not read.

    Args:
        folder: The folder.
        recursive: Whether to look into its subfolders, too. Links to folders are followed; a folder that several lead
            to is listed once, by its own path where that lies within.

    Raises:
        UserError: The folder is missing, or is a file.
    """
    if not folder.exists():
        raise UserError(f"{folder}: {describe_missing(folder, 'folder')}.")
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; expected a folder of images.")
    unread: Counter[str] = Counter()
    return Listing(sorted(folder / name for name in _names_in(folder, recursive, unread)), unread)


def list_images(folder: Path, *, recursive: bool = False) -> list[Path]:
    """List the images of a folder, sorted by path, as `list_folder` does."""
    return list_folder(folder, recursive=recursive).images


def image_names(folder: Path, unread: Counter[str] | None = None) -> list[str]:
    """List the names of the images in a folder, sorted.

    Args:
        folder: The folder.
        unread: Gets the files that are not read added, as in `Listing`.
    """
    return sorted(_names_in(folder, False, unread), key=lambda name: (_composed(name), name))


def holds_images(folder: Path) -> bool:
    """Check whether there is an image in a folder itself."""
    return next(_names_in(folder, False, None), None) is not None


def _names_in(folder: Path, recursive: bool, unread: Counter[str] | None) -> Iterator[str]:
    """Find images, and count what is not read; a folder that links lead to again is visited once."""
    waiting, links, visited = [""], deque[str](), set[tuple[int, int]]()
    while waiting or links:  # links last: a folder keeps its own path where it has one
        within = waiting.pop() if waiting else links.popleft()
        if recursive:
            state = (folder / within).stat()
            if (state.st_dev, state.st_ino) in visited:
                continue
            visited.add((state.st_dev, state.st_ino))
        with os.scandir(folder / within) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name) if recursive else entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if entry.is_dir():
                    if recursive:
                        (links if entry.is_symlink() else waiting).append(f"{within}{name}/")
                elif is_image_name(name):
                    yield f"{within}{name}"
                elif unread is not None and (suffix := Path(name).suffix.lower()) not in SIDE_SUFFIXES:
                    unread[suffix] += name.casefold() not in SIDE_NAMES


def describe_empty(unread: Mapping[str, int]) -> str:
    """Describe a folder without images in a sentence or two: what it holds instead may be images of other formats."""
    return " ".join(filter(None, ["holds no images.", describe_unread(unread)]))


def describe_unread(unread: Mapping[str, int]) -> str:
    """Describe the files that are not read in a sentence; empty where there are none."""
    counts = [f"{count} {suffix or 'without suffix'}" for suffix, count in Counter(unread).most_common() if count]
    return f"Files in other formats are not read: {join_first(counts)}." if counts else ""


def is_image_name(name: str) -> bool:
    """Check whether a file's name has an image's suffix, and is not hidden."""
    before, _, suffix = name.rpartition(".")
    return before != "" and f".{suffix.lower()}" in IMAGE_SUFFIXES and not name.startswith(".")


def stem(name: str) -> str:
    """Return what partners share: an image's name without its suffix, whichever way its accents are encoded.

    Systems and archives store "é" as one character (NFC) or as two (NFD); both are one name here.
    """
    return _composed(name.rpartition(".")[0])


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def images_with_stem(folder: Path, wanted: str) -> list[str]:
    """List the images of a folder that have a stem; the folder is listed once, and again when its content changes.

    Args:
        folder: Where to look; if it is not there, it holds none.
        wanted: The stem.
    """
    if not folder.is_dir():
        return []
    names, wanted = _names_by_stem(folder, folder.stat().st_mtime_ns), _composed(wanted)
    first, end = bisect_left(names, wanted, key=stem), bisect_right(names, wanted, key=stem)
    return [names[index] for index in range(first, end)]


@lru_cache(maxsize=16)  # folders: our choice
def _names_by_stem(folder: Path, changed: int) -> Names:
    """Give the names of images, sorted by stem; ``changed`` tells one state of the folder from another."""
    return Names(sorted(image_names(folder), key=stem))


def require_unique_stems(where: Path, names: Iterable[str]) -> None:
    """Refuse x.jpg beside x.png, which would be two pairs of one name.

    Args:
        where: The folder, for the message.
        names: Names of images, sorted by `stem`.

    Raises:
        UserError: With two such names.
    """
    for one, other in pairwise(names):
        if stem(one) == stem(other):
            raise UserError(
                f"{where}: {one} and {other} differ only in {_difference(one, other)}. Rename or remove one."
            )


def _difference(one: str, other: str) -> str:
    """Return what differs between two names of one stem; such accents look alike on a screen."""
    return "the suffix" if one.rpartition(".")[0] == other.rpartition(".")[0] else "how their accents are encoded"
