"""Detection of sentinel values for missing data that no tag of the file declares.

Such values lie far from all others: -9999, the smallest float, a border of zeros. Undeclared (GDAL's nodata tag), they
would stretch the range of values so far that the rest becomes one flat color.
"""

import math

import numpy as np

# -9999 and similar (GDAL, ESRI), the smallest 16- and 32-bit integers, 1e20 (climate models).
SENTINELS = np.array([-999, -9999, -99999, -999999, -32767, -32768, -(2**31), 9999, 99999, 1e20, -1e20], np.float32)
HUGE = 1e30  # larger values are not measurements: the largest float, netCDF's 9.97e36
FULL_UINT16 = 65535
# Our choices: what separates a sentinel from the end of a distribution, whose values follow one another closely.
MIN_GAP = 0.05  # between the sentinel and the next value, as a fraction of the range of the others
MIN_SPACINGS = 20  # the same gap, in mean distances of the others
MIN_BORDER = 0.01  # fraction of zero pixels in an image with a border of zeros
MIN_VALUES = 16  # distinct values besides zero; labels and masks have fewer


def find_sentinels(image: np.ndarray) -> dict[float, int]:
    """Find values that look like sentinels: known ones far from all others, and borders of zeros.

    Args:
        image: [H, W, C] of finite values; uint8 images have none.

    Returns:
        The number of pixels that have it in any channel, by sentinel.
    """
    if image.dtype == np.uint8:
        return {}
    found: set[float] = set()
    for band in np.moveaxis(image, 2, 0):
        ends = float(band.min()), float(band.max())
        if not any(end in (0, FULL_UINT16) or is_sentinel(end) for end in ends):
            continue  # without sorting the values of a large raster
        values = np.unique(band)
        while (sentinel := _find_one(band, values)) is not None:
            found.add(sentinel)
            values = values[values != sentinel]
    return {value: int((image == value).any(axis=2).sum()) for value in sorted(found)}


def is_sentinel(value: float) -> bool:
    """Return whether a value is commonly used for missing data."""
    return abs(value) >= HUGE or bool((np.float32(value) == SENTINELS).any())


def range_without(image: np.ndarray, sentinels: dict[float, int]) -> tuple[float, float] | None:
    """Return the smallest and the largest value that is not a sentinel; None where there is no other."""
    values = image[~np.isin(image, list(sentinels))] if sentinels else image
    return (float(values.min()), float(values.max())) if values.size else None


def rounded_range(low: float, high: float) -> tuple[float, float]:
    """Round a range outward to two digits of its width: -670.2 to 1420.7 becomes -700 to 1500.

    Integers up to 65535 stay, since 0 to 255 says more than 0 to 260.
    """
    if 0 <= low < high <= 65535 and float(low).is_integer() and float(high).is_integer():
        return low, high
    if low == high:
        return math.floor(low), math.floor(low) + 1
    step = 10.0 ** (math.floor(math.log10(high - low)) - 1)
    return float(f"{math.floor(low / step) * step:.6g}"), float(f"{math.ceil(high / step) * step:.6g}")


def number(value: float) -> str:
    """Format a value of a float32 image with as few digits as identify it, and no more than the type holds."""
    short = str(np.float32(value)).removesuffix(".0")
    return short if float(short) == value or abs(value) < HUGE else repr(value)


def _find_one(band: np.ndarray, values: np.ndarray) -> float | None:
    """Return one sentinel among the sorted distinct values of a band, if any."""
    if not len(values):
        return None
    if len(values) == 1:
        value = float(values[0])
        return value if band.dtype == np.float32 and is_sentinel(value) else None
    for value, others in ((values[0], values[1:]), (values[-1], values[:-1])):
        low, high = float(others[0]), float(others[-1])
        gap = min(abs(low - float(value)), abs(high - float(value)))
        spacing = (high - low) / max(1, len(others) - 1)
        if gap < MIN_GAP * (high - low) or gap < MIN_SPACINGS * spacing:
            continue
        if band.dtype == np.float32 and is_sentinel(float(value)):
            return float(value)
        if value == FULL_UINT16 and band.dtype == np.uint16 and gap > high - low:
            return float(value)
        if value == 0 and len(others) >= MIN_VALUES and _is_border(band == 0):
            return 0.0
    return None


def _is_border(zeros: np.ndarray) -> bool:
    edges = (zeros[0], zeros[-1], zeros[:, 0], zeros[:, -1])
    return any(edge.any() for edge in edges) and bool(zeros.mean() >= MIN_BORDER)
