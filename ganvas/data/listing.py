"""Lists of a million pictures that stay small.

A ``Path`` takes some 300 bytes and a ``str`` 70, and a loading process that only looks at such objects copies the
memory they lie in, since each of them counts its users. Names in one buffer take their own length, and processes go on
sharing them; a ``Path`` is made when a picture is asked for.
"""

import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from ganvas.data.images import IMAGE_SUFFIXES
from ganvas.errors import UserError


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
        self._ends, self._buffer = np.array(ends), bytes(buffer)

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
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder = folder
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


def picture_names(folder: Path) -> list[str]:
    """List the names of the pictures in a folder, sorted; hidden and other files are passed over."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_picture(entry.name) and not entry.is_dir())


def is_picture(name: str) -> bool:
    """Tell whether a file's name has a picture's suffix, and is not hidden."""
    before, _, suffix = name.rpartition(".")
    return before != "" and f".{suffix.lower()}" in IMAGE_SUFFIXES and not name.startswith(".")


def stem(name: str) -> str:
    """Give a picture's name without its suffix, which is what partners share and results are called by."""
    return name.rpartition(".")[0]


def namesakes(folder: Path, wanted: str) -> list[str]:
    """List the pictures of a folder that have a stem; the folder is listed once, and anew when its content changes.

    Args:
        folder: Where to look; if it is not there, it holds none.
        wanted: The stem.
    """
    if not folder.is_dir():
        return []
    names = _names_by_stem(folder, folder.stat().st_mtime_ns)
    first, end = bisect_left(names, wanted, key=stem), bisect_right(names, wanted, key=stem)
    return [names[index] for index in range(first, end)]


@lru_cache(maxsize=16)  # folders: our choice
def _names_by_stem(folder: Path, changed: int) -> Names:
    """Give the names of pictures, sorted by stem; ``changed`` tells one state of the folder from another."""
    return Names(sorted(picture_names(folder), key=stem))


def require_own_stems(where: Path, names: Iterable[str]) -> None:
    """Refuse x.jpg beside x.png, which would be two pairs of one name.

    Args:
        where: The folder, for the message.
        names: Names of pictures, sorted by `stem`.

    Raises:
        UserError: With two such names.
    """
    for one, other in pairwise(names):
        if stem(one) == stem(other):
            raise UserError(f"{where}: {one} and {other} differ only in the suffix. Rename or remove one.")
