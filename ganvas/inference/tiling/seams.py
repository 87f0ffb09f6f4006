"""Measurement of visible seams between tiles.

The seam ratio is the mean absolute difference of neighboring pixels across tile borders, over that elsewhere, for
horizontal and vertical neighbors apart. 1 means no seam. Strided networks have a pattern of their own with the period
of their grid, on which tile borders lie, so there is also a ratio to differences at the same phase of the grid only.

Letters in shape comments: C channels, H rows, W columns.
"""

import math
from dataclasses import dataclass

import numpy as np

MAX_PERIOD = 32  # pixels; patterns of wider grids hardly show between neighboring pixels
ELSEWHERE, SAME_PHASE, BORDER = range(3)


@dataclass(frozen=True)
class Borders:
    """Tile borders along one axis.

    Attributes:
        places: Pixels that follow a border.
        step: Step of the network's grid in pixels.
    """

    places: list[int]
    step: int = 1

    def classify(self, first: int, count: int) -> np.ndarray:
        """Classify the differences into the pixels from ``first`` on: BORDER, SAME_PHASE or ELSEWHERE."""
        pixels, period = np.arange(first, first + count), min(self.step, MAX_PERIOD)
        places = np.array(self.places, dtype=int)
        same_phase = np.isin(pixels % period, places % period)
        return np.where(np.isin(pixels, places), BORDER, same_phase.astype(int))


class SeamMeter:
    """Measures seams of an image that comes in bands of rows."""

    def __init__(self, rows: Borders, columns: Borders) -> None:
        self._rows, self._columns = rows, columns
        self._sums, self._counts = np.zeros((2, 3)), np.zeros((2, 3))  # [axis, class]
        self._top = 0
        self._last: np.ndarray | None = None

    def add(self, band: np.ndarray) -> None:
        """Add the next rows, [rows, W, C]."""
        values = band.astype(np.float32)
        W = values.shape[1]
        across = np.abs(np.diff(values, axis=1)).sum(axis=(0, 2), dtype=float)
        self._add(1, across, self._columns.classify(1, W - 1), values[:, 0].size)
        joined = values if self._last is None else np.concatenate([self._last, values])
        first = self._top + len(values) - len(joined) + 1
        down = np.abs(np.diff(joined, axis=0)).sum(axis=(1, 2), dtype=float)
        self._add(0, down, self._rows.classify(first, len(down)), values[0].size)
        self._last, self._top = values[-1:], self._top + len(values)

    def _add(self, axis: int, sums: np.ndarray, classes: np.ndarray, count: int) -> None:
        self._sums[axis] += np.bincount(classes, sums, minlength=3)
        self._counts[axis] += count * np.bincount(classes, minlength=3)

    def ratio(self) -> float:
        """Return the seam ratio; 1 if there are no borders or no differences at all."""
        return self._ratio_to([ELSEWHERE, SAME_PHASE])

    def ratio_on_grid(self) -> float:
        """Return the seam ratio to differences at the same phase of the network's grid."""
        return self._ratio_to([SAME_PHASE])

    def _ratio_to(self, classes: list[int]) -> float:
        means = self._sums[:, classes].sum(axis=1) / np.maximum(self._counts[:, classes].sum(axis=1), 1)
        expected = float(means @ self._counts[:, BORDER])
        found = float(self._sums[:, BORDER].sum())
        return found / expected if expected else (math.inf if found else 1.0)


def seam_measure(image: np.ndarray, rows: list[int], columns: list[int]) -> float:
    """Return the seam ratio of an image [H, W, C] with borders at these rows and columns."""
    meter = SeamMeter(Borders(rows), Borders(columns))
    meter.add(image)
    return meter.ratio()
