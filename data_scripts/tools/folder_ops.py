"""Shared by the dataset tools: safe output folders, parallel work on many images, and error reports.

An output folder is written aside and put in place at the end, so it appears complete or not at all. An image that fails
does not stop the others: the folder is written without it, and the command ends with a list of all failures and exit
code 2.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from ganvas.errors import UserError
from ganvas.files import new_folder, read_regular, recover_folder, write_error
from ganvas.json_files import write_json
from ganvas.log import logger, track

if TYPE_CHECKING:
    from ganvas.data.raster import Raster

Format = Literal["png", "tif", "jpg", "webp"]
DESCRIPTION = "dataset.json"
BATCH = 1000  # items that are queued for the threads at a time
SYSTEM_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})

Item = TypeVar("Item")
Result = TypeVar("Result")
Output = tuple[str, "Raster | bytes"]  # a file's path in the folder, and its content


def prepare_output(out: Path, inputs: Iterable[Path], *, overwrite: bool) -> Path:
    """Check that writing a folder destroys nothing, and return its absolute path.

    Raises:
        UserError: It is a file, is not empty, overlaps with an input, or contains other files than images.
    """
    out = out.resolve()
    for folder in inputs:
        if _is_inside(out, folder) or _is_inside(folder.resolve(), out):
            raise UserError(f"--out {out} and the input {folder} overlap. Choose a folder outside the input.")
    recover_folder(out)
    if out.is_file():
        raise UserError(f"--out {out} is a file. Choose a new or empty folder.")
    if not out.exists() or not any(out.iterdir()):
        return out
    if not overwrite:
        raise UserError(f"--out {out} is not empty. Choose another folder, or replace its images with --overwrite.")
    foreign = next((path for path in out.rglob("*") if not _is_replaceable(path)), None)
    if foreign is not None:
        raise UserError(f"--out {out} also contains {foreign.relative_to(out)}: --overwrite replaces images only.")
    return out


def _is_inside(path: Path, folder: Path) -> bool:
    # The file system decides, since on many "Data" and "data" are the same folder.
    return folder.exists() and any(each.exists() and each.samefile(folder) for each in (path, *path.parents))


def _is_replaceable(path: Path) -> bool:
    from ganvas.data.listing import is_image_name

    is_folder = path.is_dir() and not path.is_symlink()
    return is_folder or is_image_name(path.name) or path.name == DESCRIPTION or path.name in SYSTEM_FILES


def find_images(folder: Path) -> list[Path]:
    """List the images of a folder and its subfolders, sorted; files in other formats are logged.

    Raises:
        UserError: There is no such folder, or no image in it.
    """
    from ganvas.data.listing import describe_empty, describe_unread, list_folder

    found = list_folder(folder, recursive=True)
    if not found.images:
        raise UserError(f"{folder}: {describe_empty(found.unread)}")
    if found.unread.total():
        logger.warning("%s: %s", folder, describe_unread(found.unread))
    return found.images


def name_in(folder: Path, path: Path) -> str:
    """Return a file's path in a folder without its suffix: "sub/x"."""
    return path.relative_to(folder).with_suffix("").as_posix()


def by_name(folder: Path, files: Sequence[Path], name: Callable[[Path, Path], str] = name_in) -> dict[str, Path]:
    """Return files by unique names.

    Raises:
        UserError: Two have the same name, or names that some file systems do not distinguish.
    """
    named: dict[str, Path] = {}
    taken: dict[str, Path] = {}
    for path in files:
        own = name(folder, path)
        other = taken.setdefault(_fold(own), path)
        if other is not path:
            one, two = (each.relative_to(folder).as_posix() for each in (other, path))
            raise UserError(f"{folder}: {one} and {two} would both be named {own}. Rename or remove one.")
        named[own] = path
    return named


def _fold(name: str) -> str:
    """Return what file systems compare that ignore case and the encoding of accents."""
    return unicodedata.normalize("NFC", name).casefold()


def suffix_for(raster: Raster, suffix: str) -> str:
    """Return the suffix if its format preserves all of a raster, else ".tif"."""
    from ganvas.data.encode import format_preserves

    return suffix if format_preserves(suffix, raster) else ".tif"


def read_description(root: Path) -> bytes | None:
    """Read a dataset's description, to be copied unchanged; None if there is none."""
    path = root / DESCRIPTION
    try:
        return read_regular(path) if path.exists() else None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Fix or remove it.") from None


def in_parallel(work: Callable[[Item], Result], items: Sequence[Item], title: str) -> Iterator[Result]:
    """Yield the result for each item, in order, from threads on all cores; show a progress bar."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders, encoders and OpenCV release the GIL
        results = (
            result for start in range(0, len(items), BATCH) for result in pool.map(work, items[start : start + BATCH])
        )
        yield from track(results, title, len(items))


def write_folder(
    out: Path,
    items: Sequence[Item],
    make: Callable[[Item], Iterable[Output]],
    *,
    title: str,
    skip_reason: str = "",
    description: bytes | Mapping[str, object] | None = None,
) -> list[Item]:
    """Fill a folder with the outputs of each item.

    Args:
        out: The folder, from `prepare_output`.
        items: The items.
        make: Returns an item's files; none skips it.
        title: Title of the progress bar.
        skip_reason: Why items are skipped.
        description: The content of dataset.json.

    Returns:
        The skipped items.

    Raises:
        UserError: The folder cannot be written; or, after the others are written, items failed. If all did, there is
            no folder.
    """
    taken: dict[str, object] = {}
    with new_folder(out) as folder:
        outcomes = list(in_parallel(lambda item: _write_item(folder, make, item, taken), items, title))
        errors = [error for _, error in outcomes if error]
        if not any(made for made, _ in outcomes):
            why = f" of {len(items) - len(errors)} images: {skip_reason}" if len(errors) < len(items) else ""
            raise UserError("\n  ".join([f"{out}: not written, because nothing could be made{why}.", *errors]))
        if isinstance(description, bytes):
            (folder / DESCRIPTION).write_bytes(description)
        elif description is not None:
            write_json(folder / DESCRIPTION, description)
    if errors:
        raise UserError("\n  ".join([f"{out}: written, but {len(errors)} of {len(items)} failed:", *errors]))
    return [item for item, (made, _) in zip(items, outcomes, strict=True) if not made]


def _write_item(
    folder: Path, make: Callable[[Item], Iterable[Output]], item: Item, taken: dict[str, object]
) -> tuple[bool, str]:
    """Write an item's files; return whether there were any, and the error if they could not be made.

    An error in writing them is raised, since it concerns all items.
    """
    try:
        outputs = list(make(item))
    except UserError as error:
        return False, str(error)
    except OSError as error:
        return False, f"{error.filename}: cannot be read ({error.strerror})."
    owner = object()
    for place, _ in outputs:
        if taken.setdefault(_fold(place), owner) is not owner:  # setdefault is atomic
            return False, f"{place}: is the output of two images; the other one was kept. Rename one of them."
    for place, content in outputs:
        _write_output(folder / place, content)
    return bool(outputs), ""


def _write_output(path: Path, content: Raster | bytes) -> None:
    from ganvas.data.encode import write_raster

    if not isinstance(content, bytes):
        write_raster(path, content)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise write_error(path, error) from None
