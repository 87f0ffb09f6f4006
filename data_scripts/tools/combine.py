"""``python -m data_scripts combine A B --out DIR``: join the images of two folders side by side, A left and B right.

Training does not need this, since it reads two folders as they are; other tools do. ``split`` is the inverse. Depth,
channels, alpha and the nodata value are kept; a geo-reference is dropped, since the images lie elsewhere.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
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
    name_in,
    prepare_output,
    read_description,
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
    """Join images of equal names side by side, A left and B right."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Two folders, A and B, with equal subfolders if any; or one dataset in two folders, such as trainA and trainB."""
    out: Path
    """Folder to write: the images, or train, val and test with them."""
    format: Format = "png"
    """Image format; .tif is used where it would lose data. jpg and webp are lossy."""
    overwrite: bool = False
    """Replace all images in the output folder."""


@dataclass(frozen=True)
class Pair:
    """Two images that belong together, and the path of the result without suffix, such as "train/x"."""

    name: str
    a: Path
    b: Path


def main(argv: Sequence[str]) -> int:
    """Run ``python -m data_scripts combine`` and return the exit code.

    Raises:
        UserError: Folders are missing or empty, images lack a partner, or the output exists or cannot be written; or,
            after the others are written, images could not be combined.
    """
    options = parse_arguments("combine", CombineOptions, argv)
    out = prepare_output(options.out, options.folders, overwrite=options.overwrite)
    pairs = find_pairs(options.folders)
    description = read_description(options.folders[0]) if len(options.folders) == 1 else None

    def make(pair: Pair) -> Iterable[Output]:
        both = side_by_side(pair.a, pair.b)
        yield f"{pair.name}{suffix_for(both, f'.{options.format}')}", both

    write_folder(out, pairs, make, title="combining", description=description)
    print(f"{out}: {len(pairs)} pairs, A left and B right")
    return 0


def find_pairs(folders: Sequence[Path]) -> list[Pair]:
    """List the pairs of two folders, or of one dataset.

    Raises:
        UserError: A folder is missing or empty, is not a dataset in two folders, or an image lacks a partner.
    """
    if len(folders) == 2:
        return match(folders[0], folders[1], "")
    if len(folders) != 1:
        raise UserError(f"combine was passed {len(folders)} folders; expected two, A and B, or one dataset.")
    from ganvas.data.layout import SPLITS, TWO_FOLDERS, layouts_of, require_both

    root = folders[0]
    if not root.is_dir():
        raise UserError(f"{root}: {describe_missing(root, 'folder')}.")
    found = [(split, layout) for split in SPLITS for layout in layouts_of(root, split) if layout.kind == "two folders"]
    if not found:
        raise UserError(f"{root}: not a dataset in two folders. Pass two folders, or a dataset with {TWO_FOLDERS}.")
    counts = Counter(split for split, _ in found)
    if len(counts) < len(found):
        layouts = "; ".join(layout.describe(root) for split, layout in found if counts[split] > 1)
        raise UserError(f"{root}: has a split in two layouts ({layouts}). Remove one of them.")
    pairs = []
    for split, layout in found:
        a, b = layout.paths
        require_both(a, b)
        pairs += match(a, b, f"{split}/")
    return pairs


def match(a: Path, b: Path, prefix: str) -> list[Pair]:
    """Pair the images of two folders that have the same path without suffix.

    Raises:
        UserError: A folder is missing or empty, an image lacks a partner, or two of one folder have the same name.
    """

    def name(folder: Path, path: Path) -> str:
        return unicodedata.normalize("NFC", name_in(folder, path))  # whatever the encoding of accents

    first, second = (by_name(folder, find_images(folder), name) for folder in (a, b))
    alone = [(a, sorted(first.keys() - second.keys())), (b, sorted(second.keys() - first.keys()))]
    found = "; ".join(f"only in {folder}: {join_first(names)}" for folder, names in alone if names)
    if found:
        raise UserError(f"Images without a partner of the same name ({found}). Add, rename or remove them.")
    return [Pair(f"{prefix}{name}", first[name], second[name]) for name in sorted(first)]


def side_by_side(a: Path, b: Path) -> Raster:
    """Read two images and join them to [H, 2W, C].

    A grayscale image next to a color one gets its channels; an opaque one next to one with alpha gets alpha.

    Raises:
        UserError: One cannot be read, or they differ in size, depth, channels, or nodata value.
    """
    import numpy as np

    from ganvas.data.decode import read_raster
    from ganvas.data.raster import Raster

    rasters = [read_raster(path, keep_alpha=True) for path in (a, b)]
    alphas = {raster.alpha for raster in rasters} - {"none"}
    nodata = [raster.tags.nodata_only() for raster in rasters if raster.tags.nodata is not None]
    alpha = alphas.pop() if alphas else "none"
    arrays = _common_channels([raster.array for raster in rasters], [raster.alpha != "none" for raster in rasters])
    if alphas or len({tags.nodata for tags in nodata}) > 1 or len({(x.shape, x.dtype.name) for x in arrays}) > 1:
        raise UserError(f"{a} and {b}: differ ({' and '.join(map(_describe, rasters))}) and cannot be combined.")
    tags = nodata[0] if nodata else rasters[0].tags.nodata_only()
    return Raster(np.hstack(arrays), tags, np.hstack([raster.nodata_mask for raster in rasters]), alpha)


def _common_channels(arrays: Sequence[np.ndarray], has_alpha: Sequence[bool]) -> list[np.ndarray]:
    """Add the channels that the other image [H, W, C] has: three for gray, an opaque alpha."""
    import numpy as np

    from ganvas.data.arrays import FULL_RANGE

    colors = [x[:, :, :-1] if alpha else x for x, alpha in zip(arrays, has_alpha, strict=True)]
    alphas = [
        x[:, :, -1:] if alpha else np.full((*x.shape[:2], 1), FULL_RANGE[x.dtype], x.dtype)
        for x, alpha in zip(arrays, has_alpha, strict=True)
    ]
    if {x.shape[2] for x in colors} == {1, 3}:
        colors = [np.broadcast_to(x, (*x.shape[:2], 3)) for x in colors]
    if not any(has_alpha):
        return colors
    return [np.concatenate(both, axis=2) for both in zip(colors, alphas, strict=True)]


def _describe(raster: Raster) -> str:
    H, W, C = raster.array.shape
    alpha = f", {raster.alpha} alpha" if raster.alpha != "none" else ""
    nodata = f", nodata {raster.tags.nodata:g}" if raster.tags.nodata is not None else ""
    return f"{W}x{H}, {C} channels of {raster.array.dtype}{alpha}{nodata}"
