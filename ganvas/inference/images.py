"""Pillow's images in and out: the same kind, size and depth as what was given."""

import numpy as np
from PIL import Image

from ganvas.data.arrays import Alpha, composite_over_white
from ganvas.data.decode_basic import pillow_pixels
from ganvas.data.decode_errors import decoding
from ganvas.errors import UserError

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def from_pillow(picture: Image.Image, channels: int) -> np.ndarray:
    """Give an image as [H, W, C], uint8; of its modes of one deep channel, uint16 or float32.

    EXIF orientation is applied, palettes are expanded, colors become gray where one channel is wanted, and alpha is
    kept where ``channels`` counts it (2 or 4) and composed over white elsewhere.

    Args:
        image: The image.
        channels: How many the model takes.

    Raises:
        UserError: Pillow has no image of so many channels, or the image holds 32-bit whole numbers.
    """
    if picture.mode == "I" or (channels not in MODES and picture.mode not in ("I;16", "I;16L", "I;16B", "F")):
        raise UserError(f"the image is a Pillow image of mode {picture.mode}, the model takes {channels} channels. "
                        "Give an array [H, W, C] of uint8, uint16 or float32.")  # fmt: skip
    with decoding("the image"):  # it may be an opened file
        return with_channels(*pillow_pixels(picture), channels)


def with_channels(array: np.ndarray, alpha: Alpha, channels: int) -> np.ndarray:
    """Bring decoded pixels [H, W, C] to a model's channels where Pillow can: see `from_pillow`.

    Args:
        array: uint8, uint16 or float32.
        alpha: What its last channel is.
        channels: How many the model takes.
    """
    if channels not in (2, 4):
        array, _ = composite_over_white(array, alpha, channels)
    C = array.shape[2]
    if array.dtype != np.uint8 or channels == C or {channels, C} - MODES.keys():
        return array
    converted = np.asarray(to_pillow(array).convert(MODES[channels]))
    return converted if converted.ndim == 3 else converted[:, :, None]


def to_pillow(picture: np.ndarray) -> Image.Image:
    """Give [H, W, C] as an image of the same depth.

    Raises:
        UserError: Pillow has no image of so many channels and such depth.
    """
    C = picture.shape[2]
    if C == 1 or (picture.dtype == np.uint8 and C in MODES):
        return Image.fromarray(picture[:, :, 0] if C == 1 else picture)
    raise UserError(f"Pillow has no image of {C} channels of {picture.dtype}. Give an array instead, and get one.")
