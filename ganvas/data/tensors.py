"""Conversion between image arrays and the tensors of a network.

An array is [H, W, C], uint8, uint16 or float32 (floats in [0, 1] by default); a tensor is [C, H, W] float32 in [-1, 1].
"""

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from ganvas.data.arrays import FULL_RANGE, TOLERANCE
from ganvas.data.sentinels import find_sentinels, number, range_without, rounded_range
from ganvas.errors import UserError

ValueRange = tuple[float, float]


def to_tensor(image: np.ndarray, value_range: ValueRange | None = None) -> Tensor:
    """Return [H, W, C] as [C, H, W] float32 in [-1, 1].

    Args:
        image: uint8, uint16 or float32.
        value_range: The values that become -1 and 1; others are clipped to it. By default 0 and the dtype's largest
            value, 1 for floats.

    Raises:
        ValueError: The dtype is not supported.
    """
    if image.dtype not in FULL_RANGE:
        raise ValueError(f"the image's type is {image.dtype}; allowed are uint8, uint16 and float32")
    low, high = value_range or (0.0, FULL_RANGE[image.dtype])
    # In place and in NumPy: with many small images a second, torch's threads would be a bottleneck.
    values = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # non-finite values stay so
        values -= np.float32(low)
        values *= np.float32(2 / (high - low))
        values -= 1
    return torch.from_numpy(values if value_range is None else values.clip(-1, 1))


def to_array(image: Tensor, dtype: DTypeLike, value_range: ValueRange | None = None) -> np.ndarray:
    """Return [C, H, W] in [-1, 1] as [H, W, C]: clipped, and rounded for integers.

    Args:
        image: The tensor.
        dtype: uint8, uint16 or float32.
        value_range: The values that -1 and 1 become; by default the dtype's own, as in `to_tensor`.

    Raises:
        ValueError: The dtype is not supported.
    """
    dtype = np.dtype(dtype)
    if dtype not in FULL_RANGE:
        raise ValueError(f"the type asked for is {dtype}; allowed are uint8, uint16 and float32")
    low, high = value_range or (0.0, FULL_RANGE[dtype])
    values = image.detach().float().cpu().clamp(-1, 1).add(1).mul((high - low) / 2).add(low).permute(1, 2, 0).numpy()
    return values.astype(dtype) if dtype == np.float32 else np.rint(values).clip(0, FULL_RANGE[dtype]).astype(dtype)


def to_display(image: np.ndarray, value_range: ValueRange | None = None) -> np.ndarray:
    """Return [H, W, C] as [H, W, 3] uint8 to look at: gray is repeated, of many channels the first three are shown.

    Args:
        image: uint8, uint16 or float32.
        value_range: The values that become black and white, as in `to_tensor`.
    """
    image = to_array(to_tensor(np.nan_to_num(image), value_range), np.uint8)
    return image[..., :3] if image.shape[2] >= 3 else image[..., :1].repeat(3, axis=2)


def require_range(image: np.ndarray, value_range: ValueRange | None, what: str) -> np.ndarray:
    """Check that all values can be given to a network; return the image.

    Args:
        image: [H, W, C].
        value_range: As in `to_tensor`; without one, floats must lie in [0, 1].
        what: Start of the message: the image's file and a colon, or "the image".

    Raises:
        UserError: A value is not finite, or floats without a range lie outside [0, 1].
    """
    if image.dtype != np.float32:
        return image
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(
            f"{what} has values that are not finite (NaN or infinite). Fill them, or name the value of pixels without "
            "data in the file, as GeoTIFF does."
        )
    if value_range is None and (low < -TOLERANCE or high > 1 + TOLERANCE):
        raise UserError(
            f"{what} has values from {low:g} to {high:g}, while floats without a range have to lie in 0 to 1. "
            f"{_suggest_range(image)}"
        )
    return image


def _suggest_range(image: np.ndarray) -> str:
    """Return what to do about floats outside [0, 1], with the range of this image."""
    sentinels = find_sentinels(image)
    found = range_without(image, sentinels)
    advice = ""
    if sentinels:
        first = number(next(iter(sentinels)))
        advice = (
            f"{first} looks like a mark of missing data: name it in the file (gdal_edit.py -a_nodata {first} FILE). "
        )
    if found is None or (found[0] >= -TOLERANCE and found[1] <= 1 + TOLERANCE):
        return advice.rstrip()
    proposed = ":".join(f"{end:g}" for end in rounded_range(*found))
    return (
        f"{advice}Train with the range of all images (for this one --value-range={proposed}; python -m data_scripts "
        "check finds that of all), or scale the values."
    )
