"""Layout of overlapping tiles, and their blending weights.

A network that halves its maps n times is equivariant only to shifts by 2^n pixels. So all tiles start on a grid of that
step, the same grid as that of the untiled image: the network pads an image by reflection to a multiple of the step,
half of it before and half after, and so does the plan. Positions are those in the padded image, unless stated
otherwise.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from ganvas.errors import UserError
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.unet import UNetGenerator


@dataclass(frozen=True)
class Grid:
    """The sizes at which a network needs no padding.

    Attributes:
        step: The output shifts with the input for shifts by multiples of this many pixels.
        min_size: Smallest side without padding; a multiple of ``step``.
    """

    step: int = 1
    min_size: int = 1

    def padded(self, length: int) -> int:
        """Return the length of a side in pixels after the network's padding."""
        return max(_round_up(length, self.step), self.min_size)


def grid_of(network: nn.Module) -> Grid:
    """Return the grid of a U-Net or a ResNet; that of any other network has a step of 1."""
    if isinstance(network, UNetGenerator):
        return Grid(2**network.num_levels, 2**network.num_levels)
    return Grid(4, 8) if isinstance(network, ResNetGenerator) else Grid()


@dataclass(frozen=True)
class Tiling:
    """How to cut an image into tiles and where norm layers get their statistics.

    Attributes:
        tile: Side of a tile in pixels; rounded up to the network's grid.
        overlap: Minimal overlap of neighbors in pixels.
        exact: Compute the statistics from all tiles until they converge, not from a sample.
        shared: Share the statistics between tiles. Without, seams are visible; for comparisons.
    """

    tile: int = 512
    overlap: int = 64
    exact: bool = False
    shared: bool = True

    def side(self, network: nn.Module) -> int:
        """Return the side of a tile in pixels, on the network's grid."""
        return _round_up(self.tile, grid_of(network).step)

    def check(self, network: nn.Module) -> None:
        """Check that the network and the overlap allow this tile.

        Raises:
            UserError: The tile is smaller than the network's minimum or too small for the overlap, or the overlap is
                negative.
        """
        grid = grid_of(network)
        if self.overlap < 0:
            raise UserError(f"--overlap is {self.overlap}; give 0 or more pixels.")
        if self.tile < grid.min_size:
            raise UserError(f"--tile is {self.tile}; this network needs {grid.min_size} pixels or more.")
        if self.side(network) - self.overlap < grid.step:
            minimum = _round_up(self.overlap, grid.step) + grid.step
            raise UserError(
                f"--tile is {self.tile}: too small for --overlap {self.overlap}, since the distance of this network's "
                f"tiles is a multiple of {grid.step} pixels. Give --tile {minimum} or more, or a smaller overlap."
            )


@dataclass(frozen=True)
class Axis:
    """Tiles along one side of an image.

    Attributes:
        length: Side of the image in pixels.
        tile: Side of a tile in pixels, as in `Tiling`.
        overlap: Minimal overlap of neighbors in pixels.
        grid: The network's grid.
    """

    length: int
    tile: int
    overlap: int
    grid: Grid = Grid()

    @property
    def padded(self) -> int:
        """Side of the padded image in pixels."""
        return self.grid.padded(self.length)

    @property
    def pad_before(self) -> int:
        """Pixels of padding before the image, as many as in the network."""
        return (self.padded - self.length) // 2

    @property
    def size(self) -> int:
        """Side of each tile in pixels."""
        return min(_round_up(self.tile, self.grid.step), self.padded)

    @cached_property
    def starts(self) -> list[int]:
        """First pixel of each tile; the last tile is shifted so that it ends with the image."""
        return [*range(0, self.padded - self.size, self._stride), self.padded - self.size]

    @cached_property
    def finished(self) -> list[int]:
        """For each tile, the number of its first pixels that no later tile covers."""
        return [*np.diff(self.starts).tolist(), self.size]

    @cached_property
    def weights(self) -> np.ndarray:
        """Smooth weights of the pixels of each tile, [tiles, size], with sum 1 at each pixel of the image.

        They are 0 in the outer quarter of an overlap, where the network's padding has the most influence.
        """
        length = self._shared - 2 * self._context
        slope = np.sin(np.pi / 2 * (np.arange(length) + 0.5) / max(length, 1)) ** 2
        rise = np.concatenate([np.zeros(self._context), slope, np.ones(self._context + self.size)])[: self.size]
        first, last = self.starts[0], self.starts[-1]
        raw = np.stack([np.where(s > first, rise, 1) * np.where(s < last, rise[::-1], 1) for s in self.starts])
        total = np.zeros(self.padded)
        for start, row in zip(self.starts, raw, strict=True):
            total[start : start + self.size] += row
        return np.stack([row / total[s : s + self.size] for s, row in zip(self.starts, raw, strict=True)])

    def pixels(self, start: int) -> np.ndarray:
        """Return the pixel of the unpadded image at each pixel of a tile, [size], reflected outside of the image."""
        period = max(2 * self.length - 2, 1)
        place = np.arange(start - self.pad_before, start - self.pad_before + self.size) % period
        return np.minimum(place, period - place)

    @property
    def borders(self) -> list[int]:
        """Pixels of the unpadded image at which the weights of a tile start or end: where a seam would be visible."""
        begin = {start + self._context for start in self.starts[1:]}
        end = {start + self.size - self._context for start in self.starts[:-1]}
        return sorted(edge - self.pad_before for edge in begin | end if 0 < edge - self.pad_before < self.length)

    @property
    def _stride(self) -> int:
        """Pixels from one tile to the next."""
        step = self.grid.step
        return (_round_up(self.tile, step) - self.overlap) // step * step

    @property
    def _shared(self) -> int:
        """Overlap of neighbors in pixels; that of the last two may be larger."""
        return _round_up(self.tile, self.grid.step) - self._stride

    @property
    def _context(self) -> int:
        """Pixels at each end of a tile that are used only as context, with weight 0."""
        return self._shared // 4


@dataclass(frozen=True)
class Window:
    """A tile: its first row and column, and the weights of its rows and columns."""

    top: int
    left: int
    row_weights: np.ndarray
    column_weights: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """Weights of the pixels, [H, W] float32."""
        return np.outer(self.row_weights, self.column_weights).astype(np.float32)


@dataclass(frozen=True)
class Plan:
    """All tiles of an image, as the product of two axes."""

    rows: Axis
    columns: Axis

    @classmethod
    def of(cls, height: int, width: int, tiling: Tiling, network: nn.Module) -> "Plan":
        """Plan the tiles of an image.

        Raises:
            UserError: As `Tiling.check`.
        """
        tiling.check(network)
        grid = grid_of(network)
        rows, columns = (Axis(side, tiling.tile, tiling.overlap, grid) for side in (height, width))
        return cls(rows, columns)

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.rows.starts) * len(self.columns.starts)

    def row(self, number: int) -> list[Window]:
        """Return a row of tiles from left to right."""
        top, weights = self.rows.starts[number], self.rows.weights[number]
        columns = zip(self.columns.starts, self.columns.weights, strict=True)
        return [Window(top, left, weights, column_weights) for left, column_weights in columns]

    def sample(self, count: int) -> list[Window]:
        """Return at most ``count`` tiles, spread evenly over the image.

        Every second row is reversed, so that tiles with even and with odd index form a checkerboard.
        """
        R, C = len(self.rows.starts), len(self.columns.starts)
        down = min(R, count, max(1, round(math.sqrt(count * R / C))))
        across = min(C, count // down)
        down = min(R, count // across)
        chosen = []
        for i, number in enumerate(_spread(R, down)):
            row = self.row(number)
            chosen += [row[j] for j in _spread(C, across)[:: -1 if i % 2 else 1]]
        return chosen


def _round_up(length: int, step: int) -> int:
    return -(-length // step) * step


def _spread(length: int, count: int) -> list[int]:
    """Return ``count`` numbers below ``length``, each in the middle of an equal share."""
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]
