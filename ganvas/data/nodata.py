"""Pixels without data, whose value the tags of a TIFF may define (GDAL's nodata tag)."""

import math

import numpy as np

from ganvas.data.arrays import Alpha
from ganvas.data.formats import TIFF_SUFFIXES
from ganvas.data.tiff_tags import Tags


def nodata_mask(array: np.ndarray, tags: Tags) -> np.ndarray:
    """Return which pixels of [H, W, C] have the nodata value in any channel: [H, W] bool."""
    if tags.nodata is None:
        return np.zeros(array.shape[:2], dtype=bool)
    with np.errstate(over="ignore"):  # a double too large for the array's floats was infinite in the file, too
        equal = np.isnan(array) if math.isnan(tags.nodata) else array == tags.nodata
    return equal.any(axis=2)


def fill_nodata(array: np.ndarray, alpha: Alpha, tags: Tags) -> tuple[np.ndarray, np.ndarray]:
    """Set pixels without data to the smallest value elsewhere, 0 where there is none; alpha is left as it is.

    Returns:
        The array [H, W, C], and the mask [H, W] bool of the pixels without data.
    """
    C = array.shape[2] - (alpha != "none")
    mask = nodata_mask(array[:, :, :C], tags)
    if mask.any():
        array = array.copy()
        array[mask, :C] = array[~mask, :C].min() if not mask.all() else 0
    return array, mask


def apply_nodata(suffix: str, image: np.ndarray, mask: np.ndarray, tags: Tags) -> tuple[np.ndarray, Tags]:
    """Set masked pixels to the nodata value, as far as a format supports that.

    Args:
        suffix: Suffix of the file that is written; only TIFF stores the value in its tags.
        image: [H, W, C]; two or four channels are with alpha in PNG and WebP.
        mask: [H, W] bool.
        tags: Tags of the source image.

    Returns:
        The image, and the tags to write with it.
    """
    has_alpha = suffix.lower() in (".png", ".webp") and image.shape[2] in (2, 4)
    return set_nodata(image, mask, tags, "straight" if has_alpha else "none", is_tagged=suffix.lower() in TIFF_SUFFIXES)


def set_nodata(
    image: np.ndarray, mask: np.ndarray, tags: Tags, alpha: Alpha = "none", *, is_tagged: bool = True
) -> tuple[np.ndarray, Tags]:
    """Set masked pixels to the nodata value of the tags; without one, nothing changes.

    Args:
        image: [H, W, C] of any dtype. If it cannot hold the value, NaN takes its place, or 0 for integers.
        mask: [H, W] bool.
        tags: Tags of the source image.
        alpha: Whether the last channel is alpha, which is left as it is.
        is_tagged: Whether the file stores the value. Then pixels outside the mask that have it are moved to the next
            value.
    """
    if tags.nodata is None:
        return image, tags
    value = tags.nodata
    if not _is_representable(value, image.dtype):
        value = math.nan if image.dtype.kind == "f" else 0.0
        tags = tags.with_nodata(value)
    image = image.copy()
    channels = image[:, :, : image.shape[2] - (alpha != "none")]
    if is_tagged:
        _move_away(channels, value)
    channels[mask] = value
    return image, tags


def _is_representable(value: float, dtype: np.dtype) -> bool:
    """Return whether a dtype holds a value; for floats, up to rounding."""
    if dtype.kind != "f":
        return value.is_integer() and 0 <= value <= np.iinfo(dtype).max
    with np.errstate(over="ignore"):
        nearest = float(dtype.type(value))
    return math.isnan(value) or math.isclose(nearest, value, rel_tol=float(np.finfo(dtype).eps))


def _move_away(array: np.ndarray, value: float) -> None:
    """Change, in place, what equals a value to the nearest that does not."""
    dtype = array.dtype
    if dtype.kind != "f":
        array[array == value] = value + 1 if value < np.iinfo(dtype).max else value - 1
    elif math.isfinite(value):
        # Programs treat floats as equal that are two steps apart. Moved towards 0, so that none becomes infinite.
        eps = float(np.finfo(dtype).eps)
        moved = value * (1 - 8 * eps) or float(np.finfo(dtype).tiny)
        array[np.isclose(array, value, rtol=4 * eps, atol=0)] = moved
