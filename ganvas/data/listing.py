"""Lists of images in folders, small in memory even for a million files.

A ``Path`` takes some 300 bytes and a ``str`` 70, and a data loading worker that only looks at such objects copies their
memory, since it changes their reference counts. Names in one buffer take their own length and stay shared; a ``Path``
is made when an image is asked for.
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

# Files that belong next to images: descriptions, tables, geo-references, overviews, databases of thumbnails.
SIDE_SUFFIXES = frozenset(
    {".json", ".jsonl", ".txt", ".xml", ".csv", ".tsv", ".md", ".html", ".yaml", ".yml", ".log", ".db", ".ini"}
    | {".cls", ".prj", ".tfw", ".tifw", ".jgw", ".pgw", ".wld", ".ovr"}
)
SIDE_NAMES = frozenset({"readme", "license", "licence", "makefile"})


class Names:
    """Strings in one buffer, by number."""

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
        folder: The folder.
        names: Their names.
        unread: Other files of the folder, counted as in `Listing`.
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
        """Yield name and size in bytes of each file; the size of a missing one is -1."""
        for name in self._names:
            try:
                yield name, (self.folder / name).stat().st_size
            except OSError:
                yield name, -1


@dataclass(frozen=True)
class Listing:
    """The content of a folder.

    Attributes:
        images: The images, sorted by path.
        unread: Files in unsupported formats, counted by suffix, without hidden files and those that belong next to
            images (`SIDE_SUFFIXES`).
    """

    images: list[Path]
    unread: Counter[str]


def list_folder(folder: Path, *, recursive: bool = False) -> Listing:
    """List the images of a folder, and count the files that are not read.

    Args:
        folder: The folder.
        recursive: Include subfolders. Symbolic links are followed; a folder that several paths lead to is listed once,
            by its own path if that is inside.

    Raises:
        UserError: The folder is missing, or is a file.
    """
    if not folder.exists():
        raise UserError(f"{folder}: {describe_missing(folder, 'folder')}.")
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; expected a folder of images.")
    unread: Counter[str] = Counter()
    return Listing(sorted(folder / name for name in _image_paths(folder, recursive, unread)), unread)


def list_images(folder: Path, *, recursive: bool = False) -> list[Path]:
    """List the images of a folder, sorted by path, as `list_folder` does."""
    return list_folder(folder, recursive=recursive).images


def image_names(folder: Path, unread: Counter[str] | None = None) -> list[str]:
    """List the names of the images in a folder, sorted.

    Args:
        folder: The folder.
        unread: Counter to which the files are added that are not read, as in `Listing`.
    """
    return sorted(_image_paths(folder, False, unread), key=lambda name: (_normalized(name), name))


def holds_images(folder: Path) -> bool:
    """Return whether a folder has an image, not counting subfolders."""
    return next(_image_paths(folder, False, None), None) is not None


def _image_paths(folder: Path, recursive: bool, unread: Counter[str] | None) -> Iterator[str]:
    """Yield the images' paths below a folder, and count other files; each folder is visited once."""
    waiting, links, visited = [""], deque[str](), set[tuple[int, int]]()
    while waiting or links:  # links last, so that a folder keeps its own path
        within = waiting.pop() if waiting else links.popleft()
        if recursive:
            status = (folder / within).stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
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
    """Describe a folder without images, and the unsupported files that it has instead."""
    return " ".join(filter(None, ["holds no images.", describe_unread(unread)]))


def describe_unread(unread: Mapping[str, int]) -> str:
    """Describe files in unsupported formats in a sentence; empty if there are none."""
    counts = [f"{count} {suffix or 'without suffix'}" for suffix, count in Counter(unread).most_common() if count]
    return f"Files in other formats are not read: {join_first(counts)}." if counts else ""


def is_image_name(name: str) -> bool:
    """Return whether a file's name has the suffix of a supported format, and is not hidden."""
    before, _, suffix = name.rpartition(".")
    return before != "" and f".{suffix.lower()}" in IMAGE_SUFFIXES and not name.startswith(".")


def stem(name: str) -> str:
    """Return the name that partners share: without suffix, and with accents in one encoding.

    Systems and archives store "é" as one character (NFC) or as two (NFD); both are one name here.
    """
    return _normalized(name.rpartition(".")[0])


def _normalized(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def images_with_stem(folder: Path, wanted: str) -> list[str]:
    """List the images of a folder that have a stem; the listing is cached until the folder changes."""
    if not folder.is_dir():
        return []
    names, wanted = _names_by_stem(folder, folder.stat().st_mtime_ns), _normalized(wanted)
    first, end = bisect_left(names, wanted, key=stem), bisect_right(names, wanted, key=stem)
    return [names[index] for index in range(first, end)]


@lru_cache(maxsize=16)  # folders: our choice
def _names_by_stem(folder: Path, mtime_ns: int) -> Names:
    """Return the names of images, sorted by stem; ``mtime_ns`` is part of the cache's key."""
    return Names(sorted(image_names(folder), key=stem))


def require_unique_stems(where: Path, names: Iterable[str]) -> None:
    """Refuse x.jpg next to x.png, which would be two pairs of one name.

    Args:
        where: The folder, for the message.
        names: Names of images, sorted by `stem`.

    Raises:
        UserError: Two names have one stem.
    """
    for one, other in pairwise(names):
        if stem(one) == stem(other):
            same = one.rpartition(".")[0] == other.rpartition(".")[0]
            difference = "the suffix" if same else "how their accents are encoded"  # which look alike on a screen
            raise UserError(f"{where}: {one} and {other} differ only in {difference}. Rename or remove one.")
