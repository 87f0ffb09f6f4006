"""Values that look like marks of missing data although no tag of the file says so.

Rasters mark pixels without data by a value far from all others: -9999, the least float, a border of zeros. A file that
names the value (GDAL's no-data tag) is read as it should be; one that does not would stretch the range of values so far
that all the rest becomes one flat color.
"""

import math

import numpy as np

# In common use: -9999 and its like (GDAL, ESRI), the least 16- and 32-bit integers, 1e20 (climate models).
MARKS = np.array([-999, -9999, -99999, -999999, -32767, -32768, -(2**31), 9999, 99999, 1e20, -1e20], np.float32)
HUGE = 1e30  # what is larger is no measurement: the largest float, netCDF's 9.97e36
FULL_UINT16 = 65535
# Our choices: what tells a mark from the end of a distribution, whose values follow one another closely.
LEAST_GAP = 0.05  # between the mark and the next value, as a share of the range of the others
SPACINGS = 20  # of the others' mean distance, that the gap has at least
LEAST_BORDER = 0.01  # share of the pixels that are 0, in an image with a border of zeros
LEAST_VALUES = 16  # distinct ones beside zeros: of labels and masks there are fewer


def find_sentinels(image: np.ndarray) -> dict[float, int]:
    """Find values that look like marks of missing data: known ones apart from all others, and borders of zeros.

    Args:
        image: [H, W, C] of finite values; of uint8 there are none.

    Returns:
        Each such value with the number of pixels that have it in any channel.
    """
    if image.dtype == np.uint8:
        return {}
    found: set[float] = set()
    for band in np.moveaxis(image, 2, 0):
        ends = float(band.min()), float(band.max())
        if not any(end in (0, FULL_UINT16) or is_mark(end) for end in ends):
            continue  # without sorting the values of a large raster
        values = np.unique(band)
        while (mark := _mark(band, values)) is not None:
            found.add(mark)
            values = values[values != mark]
    return {value: int((image == value).any(axis=2).sum()) for value in sorted(found)}


def is_mark(value: float) -> bool:
    """Check whether a value is known to mark missing data, whatever the others are."""
    return abs(value) >= HUGE or bool((np.float32(value) == MARKS).any())


def range_without(image: np.ndarray, sentinels: dict[float, int]) -> tuple[float, float] | None:
    """Return the least and the greatest value without some; None where there is no other."""
    values = image[~np.isin(image, list(sentinels))] if sentinels else image
    return (float(values.min()), float(values.max())) if values.size else None


def rounded_range(low: float, high: float) -> tuple[float, float]:
    """Round a range outward to two digits of its width: -670.2 to 1420.7 becomes -700 to 1500.

    Whole numbers up to 65535 stay, since 0 to 255 says more than 0 to 260.
    """
    if 0 <= low < high <= 65535 and float(low).is_integer() and float(high).is_integer():
        return low, high
    if low == high:
        return math.floor(low), math.floor(low) + 1
    step = 10.0 ** (math.floor(math.log10(high - low)) - 1)
    return float(f"{math.floor(low / step) * step:.6g}"), float(f"{math.ceil(high / step) * step:.6g}")


def number(value: float) -> str:
    """Write a value of a float32 image in as few digits as name it, none of which is past what the type can hold."""
    short = str(np.float32(value)).removesuffix(".0")
    return short if float(short) == value or abs(value) < HUGE else repr(value)


def _mark(band: np.ndarray, values: np.ndarray) -> float | None:
    """Find one mark of missing data among the sorted distinct values that are left of a band."""
    if not len(values):
        return None
    if len(values) == 1:
        value = float(values[0])
        return value if band.dtype == np.float32 and is_mark(value) else None
    for value, others in ((values[0], values[1:]), (values[-1], values[:-1])):
        low, high = float(others[0]), float(others[-1])
        gap = min(abs(low - float(value)), abs(high - float(value)))
        spacing = (high - low) / max(1, len(others) - 1)
        if gap < LEAST_GAP * (high - low) or gap < SPACINGS * spacing:
            continue
        if band.dtype == np.float32 and is_mark(float(value)):
            return float(value)
        if value == FULL_UINT16 and band.dtype == np.uint16 and gap > high - low:
            return float(value)
        if value == 0 and len(others) >= LEAST_VALUES and _is_border(band == 0):
            return 0.0
    return None


def _is_border(zeros: np.ndarray) -> bool:
    edges = (zeros[0], zeros[-1], zeros[:, 0], zeros[:, -1])
    return any(edge.any() for edge in edges) and bool(zeros.mean() >= LEAST_BORDER)
