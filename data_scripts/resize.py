"""``python -m data_scripts resize DIR --out OUT --size 256``: scale all pictures of a folder, subfolders kept.

A side that shrinks is averaged by area, so that nothing flickers; one that grows is interpolated by cubics and kept
within the picture's own values. Depth and channels stay, alpha among them; the tags of a TIFF do not, since their
geo-reference would be wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from data_scripts.chores import (
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

if TYPE_CHECKING:
    import numpy as np

MOST = 32768  # pixels a side
AT_ONCE = 4  # channels that OpenCV averages by area at once


@dataclass(frozen=True)
class ResizeOptions:
    """Scale all pictures of a folder; give one of --size, --shorter and --longer."""

    folder: tyro.conf.Positional[Path]
    """Folder of pictures, with subfolders if any."""
    out: Path
    """Folder to write."""
    size: str | None = None
    """Pixels, such as 256 (for 256x256) or 512x256 (width x height, as for A|B pictures)."""
    shorter: int | None = None
    """Pixels of the shorter side; the other follows."""
    longer: int | None = None
    """Pixels of the longer side; the other follows."""
    nearest: bool = False
    """Take nearest neighbours: for labels and drawn maps, whose colours must not mix."""
    format: Format | Literal["same"] = "same"
    """Of the pictures; what it does not hold in full depth becomes .tif."""
    overwrite: bool = False
    """Replace all pictures in the folder."""


@dataclass(frozen=True)
class Size:
    """Pixels that pictures are scaled to: both sides, or one, by which the other follows."""

    width: int | None = None
    height: int | None = None
    shorter: int | None = None
    longer: int | None = None

    def of(self, width: int, height: int) -> tuple[int, int]:
        """Give the new width and height of a picture."""
        if self.width and self.height:
            return self.width, self.height
        scale = self.shorter / min(width, height) if self.shorter else (self.longer or 0) / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))


def main(argv: Sequence[str]) -> int:
    """Scale a folder of pictures; give the exit code.

    Raises:
        UserError: No folder, no pictures in it, a size out of range, an output that is in the way or cannot be written;
            or, when all others are written, pictures that could not be scaled.
    """
    options = tyro.cli(
        ResizeOptions, prog="python -m data_scripts resize", args=list(argv), config=(tyro.conf.FlagCreatePairsOff,)
    )
    size = parse_size(options.size, options.shorter, options.longer)
    out = require_room(options.out, [options.folder], overwrite=options.overwrite)
    pictures = find_pictures(options.folder)

    def make(path: Path) -> Iterable[Output]:
        picture = read_with_alpha(path)
        H, W, _ = picture.shape
        width, height = size.of(W, H)
        suffix = suffix_for(picture, path.suffix if options.format == "same" else f".{options.format}")
        name = f"{name_in(options.folder, path)}{suffix}"
        if (width, height) == (W, H) and suffix == path.suffix:
            yield name, path.read_bytes()
        elif max(width, height) > MOST:
            raise UserError(f"{path}: would be {width}x{height} pixels; {MOST} a side are the most.")
        else:
            yield name, scaled(picture, width, height, nearest=options.nearest)

    by_name(options.folder, pictures, _name_with_suffix if options.format == "same" else name_in)
    write_folder(out, pictures, make, doing="resizing", description=read_description(options.folder))
    print(f"{out}: {len(pictures)} pictures")
    return 0


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


def read_with_alpha(path: Path) -> np.ndarray:
    """Read a picture [H, W, C] with alpha as its last channel where it has one, instead of over white.

    Raises:
        UserError: As `ganvas.data.images.read_image`.
    """
    from ganvas.data.images import read_image

    picture = read_image(path)
    if picture.shape[2] in (1, 3) and _may_have_alpha(path):
        with suppress(UserError):  # it has none
            return read_image(path, picture.shape[2] + 1)
    return picture


def _may_have_alpha(path: Path) -> bool:
    """Look into the header; of files that Pillow does not know, a TIFF may have alpha."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            return file.has_transparency_data
    except UnidentifiedImageError:
        return path.suffix.lower() in (".tif", ".tiff")


def scaled(picture: np.ndarray, width: int, height: int, *, nearest: bool = False) -> np.ndarray:
    """Scale [H, W, C] of uint8, uint16 or float32 to [height, width, C] of the same type."""
    import cv2
    import numpy as np

    H, W, C = picture.shape
    steps = [((width, height), cv2.INTER_NEAREST_EXACT)]
    if not nearest:
        small = (min(width, W), min(height, H))
        steps = [(small, cv2.INTER_AREA), ((width, height), cv2.INTER_CUBIC)]
    parts = []
    for first in range(0, C, AT_ONCE):
        part = np.ascontiguousarray(picture[:, :, first : first + AT_ONCE])
        for size, method in steps:
            if size != (part.shape[1], part.shape[0]):
                part = cv2.resize(part, size, interpolation=method).reshape(size[1], size[0], -1)
        parts.append(part)
    return np.concatenate(parts, axis=2).clip(picture.min(), picture.max())  # cubics overshoot
