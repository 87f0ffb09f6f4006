"""``python -m data_scripts resize DIR --out OUT --size 256``: resize the images of a folder and its subfolders.

A side that shrinks is averaged by area, so that nothing aliases; one that grows is interpolated bicubically and clipped
to the image's own range. Depth, channels and alpha are kept; colors are weighted by their alpha, so that invisible ones
do not bleed. A TIFF's tags are kept: geo-reference and resolution are adapted, and a pixel computed from one without
data has none.

If dataset.json has a legend, images in its flat colors are sampled by nearest neighbors; A|B images half by half.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
from ganvas.files import read_regular

if TYPE_CHECKING:
    import numpy as np

    from ganvas.data.palette import Color
    from ganvas.data.raster import Raster

MAX_SIDE = 32768  # pixels
MAX_CHANNELS = 4  # that OpenCV averages by area
MIN_WEIGHT = 1e-6  # of an old pixel in a new one, beyond rounding errors


@dataclass(frozen=True)
class ResizeOptions:
    """Resize all images of a folder, by one of --size, --shorter and --longer."""

    folder: tyro.conf.Positional[Path]
    """Folder of images and subfolders."""
    out: Path
    """Folder to write."""
    size: str | None = None
    """Pixels, such as 256 (for 256x256) or 512x256 (width x height, as for A|B images)."""
    shorter: int | None = None
    """Pixels of the shorter side, keeping the aspect ratio."""
    longer: int | None = None
    """Pixels of the longer side, keeping the aspect ratio."""
    nearest: bool = False
    """Sample nearest neighbors in all images, for labels whose colors must not mix and are not in a legend."""
    format: Format | Literal["same"] = "same"
    """Image format; .tif is used where it would lose data."""
    huge: bool = False
    """Also read images of more than 89 million pixels; as many as there are CPU cores are in memory at once."""
    overwrite: bool = False
    """Replace all images in the output folder."""


def main(argv: Sequence[str]) -> int:
    """Run ``python -m data_scripts resize`` and return the exit code.

    Raises:
        UserError: There is no folder or no image in it, a size is out of range, or the output exists or cannot be
            written; or, after the others are written, images could not be resized.
    """
    options = parse_arguments("resize", ResizeOptions, argv)
    new_size = parse_size(options.size, options.shorter, options.longer)
    out = prepare_output(options.out, [options.folder], overwrite=options.overwrite)
    images = find_images(options.folder)
    from ganvas.data.dataset_info import dataset_info
    from ganvas.data.decode import allow_huge_images, read_raster
    from ganvas.data.palette import parse_palette

    palette = list(parse_palette(dataset_info(options.folder)).values())

    def make(path: Path) -> Iterable[Output]:
        raster = read_raster(path, keep_alpha=True)
        H, W, _ = raster.array.shape
        width, height = new_size(W, H)
        suffix = suffix_for(raster, path.suffix if options.format == "same" else f".{options.format}")
        name = f"{name_in(options.folder, path)}{suffix}"
        if (width, height) == (W, H) and suffix == path.suffix:
            yield name, read_regular(path)
        elif max(width, height) > MAX_SIDE:
            raise UserError(f"{path}: would become {width}x{height} pixels; at most {MAX_SIDE} a side are allowed.")
        else:
            yield name, resize_raster(raster, width, height, nearest=options.nearest, palette=palette, path=path)

    def name_with_suffix(folder: Path, path: Path) -> str:
        return path.relative_to(folder).as_posix()

    by_name(options.folder, images, name_with_suffix if options.format == "same" else name_in)
    with allow_huge_images() if options.huge else nullcontext():
        write_folder(out, images, make, title="resizing", description=read_description(options.folder))
    print(f"{out}: {len(images)} images")
    return 0


def parse_size(size: str | None, shorter: int | None, longer: int | None) -> Callable[[int, int], tuple[int, int]]:
    """Return a function that maps an image's width and height to the requested ones.

    Raises:
        UserError: None or several sizes are given, or one is invalid.
    """
    given = [value for value in (size, shorter, longer) if value is not None]
    if len(given) != 1:
        raise UserError(f"resize was passed {len(given)} sizes; expected one of --size, --shorter and --longer.")
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(given[0]))
    sides = [int(side) for side in match.groups() if side is not None] if match else []
    if not sides or not all(1 <= side <= MAX_SIDE for side in sides):
        raise UserError(f"The size is {given[0]}; expected pixels from 1 to {MAX_SIDE}, such as 256 or --size 512x256.")

    def scale(width: int, height: int) -> tuple[int, int]:
        factor = sides[0] / (min(width, height) if shorter else max(width, height))
        return max(1, round(width * factor)), max(1, round(height * factor))

    return scale if size is None else lambda width, height: (sides[0], sides[-1])


def resize_raster(
    raster: Raster, width: int, height: int, *, nearest: bool, palette: Sequence[Color], path: Path
) -> Raster:
    """Resize an image with its mask and tags.

    Args:
        raster: Read with its alpha.
        width: New width in pixels.
        height: New height in pixels.
        nearest: Sample nearest neighbors in any image.
        palette: Flat colors; images and halves of images in these are sampled by nearest neighbors.
        path: Path of the image, for messages.

    Raises:
        UserError: Only one half is in flat colors, and the new width is odd.
    """
    import numpy as np

    from ganvas.data.raster import Raster

    H, W, _ = raster.array.shape
    parts = _parts(raster.array, nearest=nearest, palette=palette)
    if width % len(parts):
        raise UserError(f"{path}: one half is in the legend's colors, and {width} pixels cannot be halved.")
    resize_part = _resize_over_alpha if raster.alpha == "straight" else resize
    halves = [resize_part(part, width // len(parts), height, nearest=is_flat) for part, is_flat in parts]
    mask = np.abs(_resample(raster.nodata_mask[:, :, None].astype(np.float32), width, height, nearest=nearest))
    tags = raster.tags.scaled(width / W, height / H)
    return Raster(np.concatenate(halves, axis=1), tags, mask[:, :, 0] > MIN_WEIGHT, raster.alpha)


def _parts(array: np.ndarray, *, nearest: bool, palette: Sequence[Color]) -> list[tuple[np.ndarray, bool]]:
    """Return the parts to resize separately, and whether by nearest neighbors: the image, or its halves."""
    from ganvas.data.palette import is_flat

    middle = array.shape[1] // 2
    if not nearest and not array.shape[1] % 2:
        halves = [(half, is_flat(half, palette)) for half in (array[:, :middle], array[:, middle:])]
        if halves[0][1] != halves[1][1]:
            return halves
    return [(array, nearest or is_flat(array, palette))]


def resize(image: np.ndarray, width: int, height: int, *, nearest: bool = False) -> np.ndarray:
    """Resize [H, W, C] of uint8, uint16 or float32 to [height, width, C] of the same dtype, within its range.

    Values that are not finite spread to all pixels that they are averaged into.
    """
    return _clip(_resample(image, width, height, nearest=nearest), image)


def _clip(result: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Clip the overshoot of bicubic interpolation to the finite range of the original."""
    import numpy as np

    finite = image[np.isfinite(image)]
    return np.where(np.isfinite(result), result.clip(finite.min(), finite.max()), result) if finite.size else result


def _resize_over_alpha(image: np.ndarray, width: int, height: int, *, nearest: bool) -> np.ndarray:
    """Resize [H, W, C] with straight alpha last, colors weighted by it except where all are transparent."""
    import numpy as np

    plain = resize(image, width, height, nearest=nearest)
    alpha = image[:, :, -1:].astype(np.float32)
    if nearest or alpha.min() == alpha.max():
        return plain
    colors = _resample(image[:, :, :-1] * alpha, width, height, nearest=False)
    weight = _resample(alpha, width, height, nearest=False)
    is_visible = weight > MIN_WEIGHT * alpha.max()
    mixed = np.where(is_visible, colors / np.where(is_visible, weight, 1), plain[:, :, :-1])
    mixed = _clip(mixed, image[:, :, :-1])
    rounded = np.rint(mixed) if image.dtype != np.float32 else mixed
    return np.concatenate([rounded.astype(image.dtype), plain[:, :, -1:]], axis=2)


def _resample(image: np.ndarray, width: int, height: int, *, nearest: bool) -> np.ndarray:
    import cv2
    import numpy as np

    H, W, C = image.shape
    steps = [((width, height), cv2.INTER_NEAREST_EXACT)]
    if not nearest:
        steps = [((min(width, W), min(height, H)), cv2.INTER_AREA), ((width, height), cv2.INTER_CUBIC)]
    parts = []
    for first in range(0, C, MAX_CHANNELS):
        part = np.ascontiguousarray(image[:, :, first : first + MAX_CHANNELS])
        for size, method in steps:
            if size != (part.shape[1], part.shape[0]):
                part = cv2.resize(part, size, interpolation=method).reshape(size[1], size[0], -1)
        parts.append(part)
    return np.concatenate(parts, axis=2)
