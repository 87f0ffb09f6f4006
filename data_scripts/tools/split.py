"""``python -m data_scripts split DIR --out OUT``: split side-by-side images into two folders, A and B.

Depth, channels, alpha and the nodata value are kept; a geo-reference is dropped, since it applies to both halves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from data_scripts.arguments import parse_arguments
from data_scripts.tools.folder_ops import (
    Format,
    Output,
    by_name,
    find_images,
    prepare_output,
    read_description,
    suffix_for,
    write_folder,
)
from ganvas.errors import UserError

if TYPE_CHECKING:
    from ganvas.data.raster import Raster


@dataclass(frozen=True)
class SplitOptions:
    """Split images down the middle: the left halves become A, the right halves B."""

    folder: tyro.conf.Positional[Path]
    """A dataset with train, val and test, or a folder of images and subfolders."""
    out: Path
    """Folder to write: trainA, trainB and so on for a dataset, else A and B."""
    format: Format = "png"
    """Image format; .tif is used where it would lose data. jpg and webp are lossy."""
    overwrite: bool = False
    """Replace all images in the output folder."""


@dataclass(frozen=True)
class PairImage:
    """An A|B image, and the paths of its halves without suffix: "trainA/x", "trainB/x"."""

    path: Path
    places: tuple[str, str]


def main(argv: Sequence[str]) -> int:
    """Run ``python -m data_scripts split`` and return the exit code.

    Raises:
        UserError: There is no folder or no image in it, or the output exists or cannot be written; or, after the others
            are written, images could not be split.
    """
    options = parse_arguments("split", SplitOptions, argv)
    out = prepare_output(options.out, [options.folder], overwrite=options.overwrite)
    images = find_pair_images(options.folder)

    def make(image: PairImage) -> Iterable[Output]:
        for place, half in zip(image.places, read_halves(image.path), strict=True):
            yield f"{place}{suffix_for(half, f'.{options.format}')}", half

    write_folder(out, images, make, title="splitting", description=read_description(options.folder))
    folders = sorted({place.split("/")[0] for image in images for place in image.places})
    print(f"{out}: {len(images)} pairs in {', '.join(folders)}")
    return 0


def find_pair_images(root: Path) -> list[PairImage]:
    """List the A|B images of a dataset, or of a folder and its subfolders.

    Raises:
        UserError: There is no such folder or no image in it, two images have the same name, or the dataset is split
            already.
    """
    from ganvas.data.layout import SPLITS, layouts_of
    from ganvas.data.listing import list_images

    for layout in (layout for split in SPLITS for layout in layouts_of(root, split)):
        if layout.kind == "two folders" and all(folder.is_dir() for folder in layout.paths):
            raise UserError(f"{root}: is already split into {layout.describe(root)}. Pass a folder of A|B images.")
    splits = [root / split for split in SPLITS if (root / split).is_dir()]
    found = {"": (root, find_images(root))} if not splits else {}
    found |= {folder.name: (folder, list_images(folder, recursive=True)) for folder in splits}
    images = [
        PairImage(path, (f"{split}A/{name}", f"{split}B/{name}"))
        for split, (folder, files) in found.items()
        for name, path in by_name(folder, files).items()
    ]
    if not images:
        raise UserError(f"{root}: {', '.join(folder.name for folder in splits)} hold no A|B images.")
    return images


def read_halves(path: Path) -> tuple[Raster, Raster]:
    """Read an A|B image and split it down the middle.

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
