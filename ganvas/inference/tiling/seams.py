"""How much a image shows that it was made of tiles.

The measure is the mean step between neighboring pixels across tile borders over the mean step elsewhere, each
direction by its own steps. 1 is no seam; but networks of stride leave a pattern of their own, whose steps lie at the
same places of each square of the network's grid as tile borders do. So steps are also compared with those of like
places only.

Letters in shape comments: C channels, H rows, W columns.
"""

import math
from dataclasses import dataclass

import numpy as np

PERIOD = 32  # pixels; the pattern of a grid of wider squares is hardly seen in steps from pixel to pixel


@dataclass(frozen=True)
class Borders:
    """Where tiles begin and end along one side, and the network's grid.

    Attributes:
        places: Pixels before which a border lies.
        step: Side of the grid's squares.
    """

    places: list[int]
    step: int = 1

    def kinds(self, first: int, count: int) -> np.ndarray:
        """Sort the steps into pixels from ``first`` on: 2 across a border, 1 at like places of the grid, else 0."""
        pixels, period = np.arange(first, first + count), min(self.step, PERIOD)
        places = np.array(self.places, dtype=int)
        alike = np.isin(pixels % period, places % period)
        return np.where(np.isin(pixels, places), 2, alike.astype(int))


class SeamMeter:
    """Measures a image that comes in bands of rows.

    Args:
        rows: Borders between rows.
        columns: Borders between columns.
    """

    def __init__(self, rows: Borders, columns: Borders) -> None:
        self._rows, self._columns = rows, columns
        self._sums, self._counts = np.zeros((2, 3)), np.zeros((2, 3))  # [direction, kind]
        self._top = 0
        self._last: np.ndarray | None = None

    def add(self, band: np.ndarray) -> None:
        """Take the next rows, [rows, W, C]."""
        values = band.astype(np.float32)
        W = values.shape[1]
        across = np.abs(np.diff(values, axis=1)).sum(axis=(0, 2), dtype=float)
        self._count(1, across, self._columns.kinds(1, W - 1), values[:, 0].size)
        joined = values if self._last is None else np.concatenate([self._last, values])
        first = self._top + len(values) - len(joined) + 1
        down = np.abs(np.diff(joined, axis=0)).sum(axis=(1, 2), dtype=float)
        self._count(0, down, self._rows.kinds(first, len(down)), values[0].size)
        self._last, self._top = values[-1:], self._top + len(values)

    def _count(self, direction: int, steps: np.ndarray, kinds: np.ndarray, each: int) -> None:
        self._sums[direction] += np.bincount(kinds, steps, minlength=3)
        self._counts[direction] += each * np.bincount(kinds, minlength=3)

    def ratio(self) -> float:
        """Give the measure: 1 where there is no seam, no border, or nothing but one flat color."""
        return self._against([0, 1])

    def ratio_on_grid(self) -> float:
        """Give the measure against steps at the same places of the network's grid."""
        return self._against([1])

    def _against(self, kinds: list[int]) -> float:
        means = self._sums[:, kinds].sum(axis=1) / np.maximum(self._counts[:, kinds].sum(axis=1), 1)
        expected = float(means @ self._counts[:, 2])
        found = float(self._sums[:, 2].sum())
        return found / expected if expected else (math.inf if found else 1.0)


def seam_measure(picture: np.ndarray, rows: list[int], columns: list[int]) -> float:
    """Measure the seams of a whole image [H, W, C], as `SeamMeter` does."""
    meter = SeamMeter(Borders(rows), Borders(columns))
    meter.add(picture)
    return meter.ratio()
