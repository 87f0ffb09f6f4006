"""What the chores share: where they may write, how they work through many images, and how they name what failed.

A chore's folder is filled aside and put in place at the end, so it is whole or not there. A image that cannot be used
stops none of the others: the folder is made without it, and the command ends with a list of all such images and exit
code 2.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from ganvas.errors import UserError
from ganvas.files import new_folder, read_regular, recover_folder, write_error, write_json

if TYPE_CHECKING:
    from ganvas.data.raster import Raster

Format = Literal["png", "tif", "jpg", "webp"]
DESCRIPTION = "dataset.json"
AT_ONCE = 1000  # images that are handed to the threads in one go: of a million, no queue is built
SYSTEM_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})

Item = TypeVar("Item")
Result = TypeVar("Result")
Output = tuple[str, "Raster | bytes"]  # a file's place in the folder, and the image or the bytes it is to hold


@dataclass(frozen=True)
class Outcome:
    """What became of one item: whether it gave files; if it could not, why."""

    made: bool = False
    error: str = ""


def require_room(out: Path, inputs: Iterable[Path], *, overwrite: bool) -> Path:
    """Make sure that writing a folder harms nothing; give its full path.

    Args:
        out: The folder to write.
        inputs: Folders that are read.
        overwrite: Whether images that are there may go.

    Raises:
        UserError: It is a file, not empty, in an input or around one, or holds other files than images.
    """
    out = out.resolve()
    for folder in inputs:
        if _is_inside(out, folder) or _is_inside(folder.resolve(), out):
            raise UserError(f"--out {out} and the input {folder} are not apart. Give a folder outside the input.")
    recover_folder(out)
    if out.is_file():
        raise UserError(f"--out {out} is a file. Name a folder that is new or empty.")
    if not out.exists() or not any(out.iterdir()):
        return out
    if not overwrite:
        raise UserError(f"--out {out} is not empty. Name another folder, or replace all that is in it: --overwrite.")
    strange = next((path for path in out.rglob("*") if not _may_go(path)), None)
    if strange is not None:
        raise UserError(f"--out {out} holds {strange.relative_to(out)}, too: --overwrite replaces nothing but images.")
    return out


def _is_inside(path: Path, folder: Path) -> bool:
    """Ask the system, since many take "Data" and "data" for one folder."""
    return folder.exists() and any(each.exists() and each.samefile(folder) for each in (path, *path.parents))


def _may_go(path: Path) -> bool:
    from ganvas.data.listing import is_image_name

    if path.is_dir() and not path.is_symlink():
        return True
    return is_image_name(path.name) or path.name == DESCRIPTION or path.name in SYSTEM_FILES


def find_pictures(folder: Path) -> list[Path]:
    """List the images of a folder and its subfolders, sorted; files in other formats are named on standard error.

    Raises:
        UserError: There is no such folder, or no image in it.
    """
    from ganvas.data.listing import describe_empty, describe_unread, list_folder

    found = list_folder(folder, recursive=True)
    if not found.images:
        raise UserError(f"{folder}: {describe_empty(found.unread)}")
    if found.unread.total():
        print(f"{folder}: {describe_unread(found.unread)}", file=sys.stderr)
    return found.images


def name_in(folder: Path, path: Path) -> str:
    """Give a image's place in a folder without its suffix: "sub/x"."""
    return path.relative_to(folder).with_suffix("").as_posix()


def by_name(folder: Path, files: Sequence[Path], name: Callable[[Path, Path], str] = name_in) -> dict[str, Path]:
    """Call each file by a name of its own.

    Args:
        folder: Where the files lie.
        files: The files.
        name: Gives the name of a file in a folder.

    Raises:
        UserError: Two have one name, or names that some systems take for one.
    """
    named: dict[str, Path] = {}
    taken: dict[str, Path] = {}
    for path in files:
        own = name(folder, path)
        other = taken.setdefault(_as_any_system(own), path)
        if other is not path:
            one, two = (each.relative_to(folder).as_posix() for each in (other, path))
            raise UserError(f"{folder}: {one} and {two} would get one name, {own}. Rename or remove one.")
        named[own] = path
    return named


def _as_any_system(name: str) -> str:
    """Give what systems compare that take "X" for "x", and letters in two parts for those in one."""
    return unicodedata.normalize("NFC", name).casefold()


def suffix_for(picture: Raster, suffix: str) -> str:
    """Give the suffix if its format holds all of a image, else ".tif", which does."""
    from ganvas.data.encode import format_preserves

    return suffix if format_preserves(suffix, picture) else ".tif"


def read_description(root: Path) -> bytes | None:
    """Read a dataset's description, to be kept as it is; None where there is none."""
    path = root / DESCRIPTION
    try:
        return read_regular(path) if path.exists() else None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Put it right, or remove it.") from None


def in_parallel(work: Callable[[Item], Result], items: Sequence[Item], doing: str) -> Iterator[Result]:
    """Do the work for each item, on all cores, and give the results in order; progress goes to standard error."""
    from rich.console import Console
    from rich.progress import track

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders, encoders and OpenCV run outside the interpreter's lock
        results = (
            result
            for start in range(0, len(items), AT_ONCE)
            for result in pool.map(work, items[start : start + AT_ONCE])
        )
        yield from track(results, doing, total=len(items), console=Console(stderr=True), transient=True)


def write_folder(
    out: Path,
    items: Sequence[Item],
    make: Callable[[Item], Iterable[Output]],
    *,
    doing: str,
    left_out: str = "",
    description: bytes | Mapping[str, object] | None = None,
) -> list[Item]:
    """Fill a folder with what is made of each item; give the items that gave nothing.

    Args:
        out: The folder, from `require_room`.
        items: What there is to do.
        make: Gives the files of an item; none leaves it out.
        doing: What the progress bar says.
        left_out: Why an item gives nothing.
        description: What dataset.json is to hold.

    Raises:
        UserError: The folder cannot be written; or, when the others are written, with the name of each item that
            could not be made. When none could be, there is no folder.
    """
    with new_folder(out) as folder:
        writer = _Writer(folder)
        outcomes = list(in_parallel(lambda item: writer.write(make, item), items, doing))
        errors = [outcome.error for outcome in outcomes if outcome.error]
        if not any(outcome.made for outcome in outcomes):
            why = f" of {len(items) - len(errors)} images: {left_out}" if len(errors) < len(items) else ""
            raise UserError("\n  ".join([f"{out}: not written, since nothing could be made{why}.", *errors]))
        if isinstance(description, bytes):
            (folder / DESCRIPTION).write_bytes(description)
        elif description is not None:
            write_json(folder / DESCRIPTION, description)
    if errors:
        raise UserError("\n  ".join([f"{out}: written, but {len(errors)} of {len(items)} could not be made:", *errors]))
    return [item for item, outcome in zip(items, outcomes, strict=True) if not outcome.made]


class _Writer:
    """Writes what is made of items into a folder, from many threads.

    Args:
        folder: It exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: dict[str, object] = {}

    def write(self, make: Callable[[Item], Iterable[Output]], item: Item) -> Outcome:
        """Make and write one item's files. What hinders the making concerns this item; what hinders the writing, all.

        Raises:
            UserError: The folder cannot be written.
        """
        try:
            outputs = list(make(item))
        except UserError as error:
            return Outcome(error=str(error))
        except OSError as error:
            return Outcome(error=f"{error.filename}: cannot be read ({error.strerror}).")
        mine = object()
        for place, _ in outputs:
            # Of one thread only, even when two are here at once: setdefault is one step.
            if self._taken.setdefault(_as_any_system(place), mine) is not mine:
                return Outcome(error=f"{place}: is made of two images; the other one was kept. Rename one of them.")
        for place, content in outputs:
            self._put(self._folder / place, content)
        return Outcome(made=bool(outputs))

    def _put(self, path: Path, content: Raster | bytes) -> None:
        from ganvas.data.encode import write_raster

        if not isinstance(content, bytes):
            write_raster(path, content)
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise write_error(path, error) from None
