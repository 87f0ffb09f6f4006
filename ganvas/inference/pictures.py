"""Pillow's images in and out: the same kind, size and depth as what was given."""

import numpy as np
from PIL import Image, ImageOps

from ganvas.errors import UserError

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
SINGLE = {"I;16": np.uint16, "I;16L": np.uint16, "I;16B": np.uint16, "F": np.float32}  # modes of one deep channel


def from_pillow(picture: Image.Image, channels: int) -> np.ndarray:
    """Give an image as [H, W, C], uint8; of its modes of one deep channel, uint16 or float32.

    EXIF orientation is applied, palettes are expanded, colours become gray where one channel is wanted, and alpha is
    kept where ``channels`` counts it (2 or 4) and composed over white elsewhere.

    Args:
        picture: The image.
        channels: How many the model takes.

    Raises:
        UserError: Pillow has no image of so many channels, or the image holds 32-bit whole numbers.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in SINGLE:
        return np.asarray(picture).astype(SINGLE[picture.mode])[:, :, None]
    if picture.mode == "I" or channels not in MODES:
        raise UserError(f"the picture is a Pillow image of mode {picture.mode}, the model takes {channels} channels. "
                        "Give an array [H, W, C] of uint8, uint16 or float32.")  # fmt: skip
    if channels in (1, 3) and picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    array = np.asarray(picture.convert(MODES[channels]))
    return array[:, :, None] if array.ndim == 2 else array


def to_pillow(picture: np.ndarray) -> Image.Image:
    """Give [H, W, C] as an image of the same depth.

    Raises:
        UserError: Pillow has no image of so many channels and such depth.
    """
    C = picture.shape[2]
    if C == 1 or (picture.dtype == np.uint8 and C in MODES):
        return Image.fromarray(picture[:, :, 0] if C == 1 else picture)
    raise UserError(f"Pillow has no image of {C} channels of {picture.dtype}. Give an array instead, and get one.")
