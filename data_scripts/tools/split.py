"""``python -m data_scripts split DIR --out OUT``: A|B images become two folders, A and B.

Depth, channels, alpha and the mark of pixels without data stay; a geo-reference does not, since it is of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from data_scripts.tools.folder_ops import (
    Format,
    Output,
    by_name,
    find_pictures,
    read_description,
    require_room,
    suffix_for,
    write_folder,
)
from ganvas.errors import UserError

if TYPE_CHECKING:
    from ganvas.data.raster import Raster


@dataclass(frozen=True)
class SplitOptions:
    """Cut images down the middle: the left halves become A, the right ones B."""

    folder: tyro.conf.Positional[Path]
    """A dataset with train, val and test, or a folder of images with subfolders if any."""
    out: Path
    """Folder to write: trainA, trainB and so on of a dataset, else A and B."""
    format: Format = "png"
    """Of the images; what it does not hold in full becomes .tif. jpg and webp lose a little."""
    overwrite: bool = False
    """Replace all images in the folder."""


@dataclass(frozen=True)
class Both:
    """An A|B image, and the two places that its halves go to: "trainA/x", "trainB/x"."""

    path: Path
    places: tuple[str, str]


def main(argv: Sequence[str]) -> int:
    """Split a folder, or a dataset; give the exit code.

    Raises:
        UserError: No folder, no images in it, an output that is in the way or cannot be written; or, when all others
            are written, images that could not be split.
    """
    options = tyro.cli(
        SplitOptions, prog="python -m data_scripts split", args=list(argv), config=(tyro.conf.FlagCreatePairsOff,)
    )
    out = require_room(options.out, [options.folder], overwrite=options.overwrite)
    pictures = find_both(options.folder)

    def make(both: Both) -> Iterable[Output]:
        for place, half in zip(both.places, read_halves(both.path), strict=True):
            yield f"{place}{suffix_for(half, f'.{options.format}')}", half

    write_folder(out, pictures, make, doing="splitting", description=read_description(options.folder))
    folders = sorted({place.split("/")[0] for both in pictures for place in both.places})
    print(f"{out}: {len(pictures)} pairs in {', '.join(folders)}")
    return 0


def find_both(root: Path) -> list[Both]:
    """List the A|B images of a dataset or folder, and of the folders in it.

    Raises:
        UserError: There is no such folder, no image in it, two images have one name, or pairs are split already.
    """
    from ganvas.data.layout import SPLITS, layouts_of
    from ganvas.data.listing import list_images

    for layout in (layout for split in SPLITS for layout in layouts_of(root, split)):
        if layout.kind == "two folders" and all(folder.is_dir() for folder in layout.paths):
            raise UserError(f"{root}: has {layout.describe(root)}: it is split already. Give a folder of A|B images.")
    splits = [root / split for split in SPLITS if (root / split).is_dir()]
    if not splits:
        return _found(root, find_pictures(root), ("A/", "B/"))
    pictures = [
        both
        for folder in splits
        for both in _found(folder, list_images(folder, recursive=True), (f"{folder.name}A/", f"{folder.name}B/"))
    ]
    if not pictures:
        raise UserError(f"{root}: {', '.join(folder.name for folder in splits)} hold no A|B images.")
    return pictures


def _found(folder: Path, files: Sequence[Path], sides: tuple[str, str]) -> list[Both]:
    names = by_name(folder, files)
    return [Both(path, (f"{sides[0]}{name}", f"{sides[1]}{name}")) for name, path in names.items()]


def read_halves(path: Path) -> tuple[Raster, Raster]:
    """Read an A|B image and cut it down the middle.

    Raises:
        UserError: It cannot be read, or its width is odd.
    """
    from ganvas.data.decode import read_raster
    from ganvas.data.paired import split_halves
    from ganvas.data.raster import Raster

    both = read_raster(path, keep_alpha=True)
    tags, middle = both.tags.nodata_only(), both.array.shape[1] // 2
    left, right = split_halves(both.array, path)
    return (
        Raster(left, tags, both.nodata_mask[:, :middle], both.alpha),
        Raster(right, tags, both.nodata_mask[:, middle:], both.alpha),
    )
