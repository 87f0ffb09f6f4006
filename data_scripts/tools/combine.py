"""``python -m data_scripts combine A B --out DIR``: two folders of images become A|B images, side by side.

Training needs no such step, since it takes both folders as they are; other tools do. ``split`` is the way back. Depth,
channels, alpha and the mark of pixels without data stay; a geo-reference does not, since the images lie elsewhere.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
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
    name_in,
    read_description,
    require_room,
    suffix_for,
    write_folder,
)
from ganvas.errors import UserError
from ganvas.messages import describe_missing, join_first

if TYPE_CHECKING:
    import numpy as np

    from ganvas.data.raster import Raster


@dataclass(frozen=True)
class CombineOptions:
    """Put images of equal names side by side, A left and B right."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Two folders, A and B, with the same subfolders if any; or one dataset with trainA and trainB, train/a and
    train/b, or A/train and B/train, and so on."""
    out: Path
    """Folder to write: the images, or train, val and test with them."""
    format: Format = "png"
    """Of the images; what it does not hold in full becomes .tif. jpg and webp lose a little."""
    overwrite: bool = False
    """Replace all images in the folder."""


@dataclass(frozen=True)
class Pair:
    """Two images that belong together, and where they go: "train/x"."""

    name: str
    a: Path
    b: Path


def main(argv: Sequence[str]) -> int:
    """Combine two folders, or a dataset; give the exit code.

    Raises:
        UserError: Folders that are missing, empty or not alike; an output that is in the way or cannot be written; or,
            when all others are written, images that could not be combined.
    """
    options = tyro.cli(
        CombineOptions, prog="python -m data_scripts combine", args=list(argv), config=(tyro.conf.FlagCreatePairsOff,)
    )
    out = require_room(options.out, options.folders, overwrite=options.overwrite)
    pairs = find_pairs(options.folders)
    description = read_description(options.folders[0]) if len(options.folders) == 1 else None

    def make(pair: Pair) -> Iterable[Output]:
        both = side_by_side(pair.a, pair.b)
        yield f"{pair.name}{suffix_for(both, f'.{options.format}')}", both

    write_folder(out, pairs, make, doing="combining", description=description)
    print(f"{out}: {len(pairs)} pairs, A left and B right")
    return 0


def find_pairs(folders: Sequence[Path]) -> list[Pair]:
    """List the pairs of two folders, or of one dataset.

    Raises:
        UserError: A folder is missing or empty, is no dataset in two folders, or a image has no partner.
    """
    if len(folders) == 2:
        return match(folders[0], folders[1], "")
    if len(folders) != 1:
        raise UserError(f"combine was given {len(folders)} folders; expected two, A and B, or one dataset.")
    from ganvas.data.layout import SPLITS, TWO_FOLDERS, layouts_of, require_both

    root = folders[0]
    if not root.is_dir():
        raise UserError(f"{root}: {describe_missing(root, 'folder')}.")
    halves = [(split, layout) for split in SPLITS for layout in layouts_of(root, split) if layout.kind == "two folders"]
    if not halves:
        raise UserError(f"{root}: is no dataset of two folders. Give two folders, or a dataset with {TWO_FOLDERS}.")
    counts = Counter(split for split, _ in halves)
    if len(counts) < len(halves):
        ways = "; ".join(layout.describe(root) for split, layout in halves if counts[split] > 1)
        raise UserError(f"{root}: has a split in two layouts ({ways}). Remove one of them.")
    found = []
    for split, layout in halves:
        a, b = layout.paths
        require_both(a, b)
        found += match(a, b, f"{split}/")
    return found


def match(a: Path, b: Path, prefix: str) -> list[Pair]:
    """Pair the images of two folders that lie in the same place under the same name, whatever the suffix.

    Args:
        a: Folder of the left images.
        b: Folder of the right ones.
        prefix: Comes before their names.

    Raises:
        UserError: A folder is missing or empty, a image has no partner, or two of one folder have one name.
    """
    first, second = (by_name(folder, find_pictures(folder), matched_name) for folder in (a, b))
    alone = [(a, sorted(first.keys() - second.keys())), (b, sorted(second.keys() - first.keys()))]
    found = "; ".join(f"only in {folder}: {join_first(names)}" for folder, names in alone if names)
    if found:
        raise UserError(f"Images without a partner of the same name ({found}). Add, rename or remove them.")
    return [Pair(f"{prefix}{name}", first[name], second[name]) for name in sorted(first)]


def matched_name(folder: Path, path: Path) -> str:
    """Return an image's place in a folder without its suffix; accents are one character, however they are stored."""
    return unicodedata.normalize("NFC", name_in(folder, path))


def side_by_side(a: Path, b: Path) -> Raster:
    """Read two images and give [H, 2W, C].

    Where one is in color, a gray partner gets its channels, too; where one has alpha, an opaque partner gets one.

    Raises:
        UserError: One cannot be read, or they differ in size, depth, channels, or the value of pixels without data.
    """
    import numpy as np

    from ganvas.data.decode import read_raster
    from ganvas.data.raster import Raster

    pictures = [read_raster(path, keep_alpha=True) for path in (a, b)]
    alphas = {picture.alpha for picture in pictures} - {"none"}
    nodata = [picture.tags.nodata_only() for picture in pictures if picture.tags.nodata is not None]
    alpha = alphas.pop() if alphas else "none"
    arrays = _alike([picture.array for picture in pictures], [picture.alpha != "none" for picture in pictures])
    if alphas or len({tags.nodata for tags in nodata}) > 1 or len({(x.shape, x.dtype.name) for x in arrays}) > 1:
        kinds = " and ".join(map(_kind, pictures))
        raise UserError(f"{a} and {b}: differ ({kinds}); side by side, they have to be alike.")
    tags = nodata[0] if nodata else pictures[0].tags.nodata_only()
    return Raster(np.hstack(arrays), tags, np.hstack([picture.nodata_mask for picture in pictures]), alpha)


def _alike(arrays: Sequence[np.ndarray], has_alpha: Sequence[bool]) -> list[np.ndarray]:
    """Give two images [H, W, C] the channels that either has: three for gray, an opaque alpha."""
    import numpy as np

    from ganvas.data.arrays import FULL_RANGE

    colours = [x[:, :, :-1] if alpha else x for x, alpha in zip(arrays, has_alpha, strict=True)]
    alphas = [
        x[:, :, -1:] if alpha else np.full((*x.shape[:2], 1), FULL_RANGE[x.dtype], x.dtype)
        for x, alpha in zip(arrays, has_alpha, strict=True)
    ]
    if {x.shape[2] for x in colours} == {1, 3}:
        colours = [np.broadcast_to(x, (*x.shape[:2], 3)) for x in colours]
    if not any(has_alpha):
        return colours
    return [np.concatenate(both, axis=2) for both in zip(colours, alphas, strict=True)]


def _kind(picture: Raster) -> str:
    H, W, C = picture.array.shape
    beside = [f", {picture.alpha} alpha" if picture.alpha != "none" else ""]
    beside += [f", no data where {picture.tags.nodata:g}" if picture.tags.nodata is not None else ""]
    return f"{W}x{H}, {C} channels of {picture.array.dtype}{''.join(beside)}"
