"""Conversion between Pillow images and arrays of the same channels and depth. Works without torch."""

import numpy as np
from PIL import Image

from ganvas.data.arrays import Alpha, composite_over_white
from ganvas.data.decode_basic import pillow_pixels
from ganvas.data.decode_errors import decoding
from ganvas.errors import UserError

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
DEEP_MODES = ("I;16", "I;16L", "I;16B", "F")  # of one channel


def from_pillow(image: Image.Image, channels: int) -> np.ndarray:
    """Convert a Pillow image to [H, W, C]: uint8, or uint16 or float32 for its deep modes of one channel.

    EXIF orientation is applied, palettes are expanded, and colors become gray for a model of one channel. Alpha is kept
    if ``channels`` includes it (2 or 4), and composed over white otherwise.

    Raises:
        UserError: Pillow has no image of so many channels, or the image has 32-bit integers.
    """
    if image.mode == "I" or (channels not in MODES and image.mode not in DEEP_MODES):
        raise UserError(
            f"the image is a Pillow image of mode {image.mode}, the model takes {channels} channels. Give an array "
            "[H, W, C] of uint8, uint16 or float32."
        )
    with decoding("the image"):  # it may be a file that is decoded only now
        return with_channels(*pillow_pixels(image), channels)


def with_channels(array: np.ndarray, alpha: Alpha, channels: int) -> np.ndarray:
    """Convert pixels [H, W, C] to a model's channels as `from_pillow` does; ``alpha`` describes the last channel."""
    if channels not in (2, 4):
        array, _ = composite_over_white(array, alpha, channels)
    C = array.shape[2]
    if array.dtype != np.uint8 or channels == C or {channels, C} - MODES.keys():
        return array
    return np.atleast_3d(np.asarray(to_pillow(array).convert(MODES[channels])))


def to_pillow(image: np.ndarray) -> Image.Image:
    """Convert [H, W, C] to a Pillow image of the same depth.

    Raises:
        UserError: Pillow has no image of these channels and this depth.
    """
    C = image.shape[2]
    if C == 1 or (image.dtype == np.uint8 and C in MODES):
        return Image.fromarray(image[:, :, 0] if C == 1 else image)
    raise UserError(f"Pillow has no image of {C} channels of {image.dtype}. Give an array instead, and get an array.")
