"""``python -m data_scripts resize DIR --out OUT --size 256``: scale all images of a folder, subfolders kept.

A side that shrinks is averaged by area, so that nothing flickers; one that grows is interpolated by cubics and kept
within the image's own values. Depth, channels and alpha stay; colors count by their alpha, so that what is invisible
does not show. A TIFF's tags stay, too: its geo-reference and resolution follow, and a pixel that is made of one without
data has none.

If dataset.json has a legend, images in its flat colors are not averaged but sampled; of A|B images, each half by
itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
from ganvas.files import read_regular

if TYPE_CHECKING:
    import numpy as np

    from ganvas.data.palette import Color
    from ganvas.data.raster import Raster

MOST = 32768  # pixels a side
CHANNELS_AT_ONCE = 4  # that OpenCV averages by area
TOUCHED = 1e-6  # share of a new pixel from which on it counts that an old one is in it: beyond rounding


@dataclass(frozen=True)
class ResizeOptions:
    """Scale all images of a folder; give one of --size, --shorter and --longer."""

    folder: tyro.conf.Positional[Path]
    """Folder of images, with subfolders if any."""
    out: Path
    """Folder to write."""
    size: str | None = None
    """Pixels, such as 256 (for 256x256) or 512x256 (width x height, as for A|B images)."""
    shorter: int | None = None
    """Pixels of the shorter side; the other follows."""
    longer: int | None = None
    """Pixels of the longer side; the other follows."""
    nearest: bool = False
    """Take nearest neighbors in all images: for labels whose colors must not mix and are in no legend."""
    format: Format | Literal["same"] = "same"
    """Of the images; what it does not hold in full becomes .tif."""
    huge: bool = False
    """Read images of more than 89 million pixels, too; as many as there are cores are in memory at once."""
    overwrite: bool = False
    """Replace all images in the folder."""


@dataclass(frozen=True)
class Size:
    """Pixels that images are scaled to: both sides, or one, by which the other follows."""

    width: int | None = None
    height: int | None = None
    shorter: int | None = None
    longer: int | None = None

    def of(self, width: int, height: int) -> tuple[int, int]:
        """Give the new width and height of a image."""
        if self.width and self.height:
            return self.width, self.height
        scale = self.shorter / min(width, height) if self.shorter else (self.longer or 0) / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))


def main(argv: Sequence[str]) -> int:
    """Scale a folder of images; give the exit code.

    Raises:
        UserError: No folder, no images in it, a size out of range, an output that is in the way or cannot be written;
            or, when all others are written, images that could not be scaled.
    """
    options = tyro.cli(
        ResizeOptions, prog="python -m data_scripts resize", args=list(argv), config=(tyro.conf.FlagCreatePairsOff,)
    )
    size = parse_size(options.size, options.shorter, options.longer)
    out = require_room(options.out, [options.folder], overwrite=options.overwrite)
    pictures = find_pictures(options.folder)
    from ganvas.data.decode import allow_huge_images, read_raster

    colours = _legend(options.folder)

    def make(path: Path) -> Iterable[Output]:
        picture = read_raster(path, keep_alpha=True)
        H, W, _ = picture.array.shape
        width, height = size.of(W, H)
        suffix = suffix_for(picture, path.suffix if options.format == "same" else f".{options.format}")
        name = f"{name_in(options.folder, path)}{suffix}"
        if (width, height) == (W, H) and suffix == path.suffix:
            yield name, read_regular(path)
        elif max(width, height) > MOST:
            raise UserError(f"{path}: would be {width}x{height} pixels; {MOST} a side are the most.")
        else:
            yield name, resized(picture, width, height, nearest=options.nearest, colours=colours, path=path)

    by_name(options.folder, pictures, _name_with_suffix if options.format == "same" else name_in)
    with allow_huge_images() if options.huge else nullcontext():
        write_folder(out, pictures, make, doing="resizing", description=read_description(options.folder))
    print(f"{out}: {len(pictures)} images")
    return 0


def _legend(folder: Path) -> Sequence[Color]:
    from ganvas.data.paired import dataset_info
    from ganvas.data.palette import parse_palette

    return list(parse_palette(dataset_info(folder)).values())


def _name_with_suffix(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def parse_size(size: str | None, shorter: int | None, longer: int | None) -> Size:
    """Read the size that is asked for.

    Raises:
        UserError: None or several are given, or one is no size.
    """
    given = [value for value in (size, shorter, longer) if value is not None]
    if len(given) != 1:
        raise UserError(f"resize was given {len(given)} sizes; expected one of --size, --shorter and --longer.")
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(given[0]))
    sides = [int(side) for side in match.groups() if side is not None] if match else []
    if not sides or not all(1 <= side <= MOST for side in sides):
        raise UserError(f"The size is {given[0]}; expected pixels from 1 to {MOST}, such as 256 or --size 512x256.")
    if size is None:
        return Size(shorter=shorter, longer=longer)
    return Size(width=sides[0], height=sides[-1])


def resized(picture: Raster, width: int, height: int, *, nearest: bool, colours: Sequence[Color], path: Path) -> Raster:
    """Scale a image, and what is known of it beside its pixels.

    Args:
        image: Read with its alpha.
        width: In pixels, of the new one.
        height: Its height.
        nearest: Whether to take nearest neighbors whatever the image.
        colors: Of the legend; images and halves of images in these are scaled by nearest neighbors, too.
        path: Of the image, for the message.

    Raises:
        UserError: One half is in flat colors and the other is not, and the new width does not split into halves.
    """
    import numpy as np

    from ganvas.data.raster import Raster

    H, W, _ = picture.array.shape
    parts = _parts(picture.array, nearest=nearest, colours=colours)
    if width % len(parts):
        raise UserError(f"{path}: half of it is in colors of the legend, and {width} pixels do not split in two.")
    scale = _scaled_over_alpha if picture.alpha == "straight" else scaled
    halves = [scale(part, width // len(parts), height, nearest=flat) for part, flat in parts]
    touched = (
        np.abs(_resampled(picture.nodata_mask[:, :, None].astype(np.float32), width, height, nearest=nearest)) > TOUCHED
    )
    tags = picture.tags.scaled(width / W, height / H)
    return Raster(np.concatenate(halves, axis=1), tags, touched[:, :, 0], picture.alpha)


def _parts(array: np.ndarray, *, nearest: bool, colours: Sequence[Color]) -> list[tuple[np.ndarray, bool]]:
    """Give what is scaled on its own, with whether to take nearest neighbors: the image, or its halves."""
    from ganvas.data.palette import is_flat

    middle = array.shape[1] // 2
    if not nearest and not array.shape[1] % 2:
        halves = [(half, is_flat(half, colours)) for half in (array[:, :middle], array[:, middle:])]
        if halves[0][1] != halves[1][1]:
            return halves
    return [(array, nearest or is_flat(array, colours))]


def scaled(picture: np.ndarray, width: int, height: int, *, nearest: bool = False) -> np.ndarray:
    """Scale [H, W, C] of uint8, uint16 or float32 to [height, width, C] of the same type, within its values.

    Values that are not finite reach as far as the pixels they are averaged into.
    """
    return _within(_resampled(picture, width, height, nearest=nearest), picture)


def _within(result: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Cut what cubics overshoot: keep finite values among those of the image that they were made from."""
    import numpy as np

    finite = picture[np.isfinite(picture)]
    return np.where(np.isfinite(result), result.clip(finite.min(), finite.max()), result) if finite.size else result


def _scaled_over_alpha(picture: np.ndarray, width: int, height: int, *, nearest: bool) -> np.ndarray:
    """Scale [H, W, C], straight alpha last: a color counts by its alpha; where all is transparent, as without."""
    import numpy as np

    plain = scaled(picture, width, height, nearest=nearest)
    alpha = picture[:, :, -1:].astype(np.float32)
    if nearest or alpha.min() == alpha.max():
        return plain
    colours = _resampled(picture[:, :, :-1] * alpha, width, height, nearest=False)
    weight = _resampled(alpha, width, height, nearest=False)
    counts = weight > TOUCHED * alpha.max()
    mixed = np.where(counts, colours / np.where(counts, weight, 1), plain[:, :, :-1])
    mixed = _within(mixed, picture[:, :, :-1])
    whole = np.rint(mixed) if picture.dtype != np.float32 else mixed
    return np.concatenate([whole.astype(picture.dtype), plain[:, :, -1:]], axis=2)


def _resampled(picture: np.ndarray, width: int, height: int, *, nearest: bool) -> np.ndarray:
    import cv2
    import numpy as np

    H, W, C = picture.shape
    steps = [((width, height), cv2.INTER_NEAREST_EXACT)]
    if not nearest:
        steps = [((min(width, W), min(height, H)), cv2.INTER_AREA), ((width, height), cv2.INTER_CUBIC)]
    parts = []
    for first in range(0, C, CHANNELS_AT_ONCE):
        part = np.ascontiguousarray(picture[:, :, first : first + CHANNELS_AT_ONCE])
        for size, method in steps:
            if size != (part.shape[1], part.shape[0]):
                part = cv2.resize(part, size, interpolation=method).reshape(size[1], size[0], -1)
        parts.append(part)
    return np.concatenate(parts, axis=2)
