"""Where the tiles of a huge image lie, and how much each counts where they overlap.

A network that halves its maps n times computes the same again only where the image moves by 2^n pixels. So all tiles
begin on one grid, and that is the grid of the image translated whole: the network mirrors a image out to whole
squares, half of what is missing before and half after, and so does the plan. Positions here are those of the image
mirrored out, unless a name or a docstring says otherwise.
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
    """How a network divides a image.

    Attributes:
        step: Side of a square: by so many pixels a image may move, and the output moves with it.
        least: Least side of a image that needs no mirroring; a multiple of ``step``.
    """

    step: int = 1
    least: int = 1

    def padded(self, length: int) -> int:
        """Return the pixels of a side with the network's padding."""
        return max(_whole(length, self.step), self.least)


def grid_of(network: nn.Module) -> Grid:
    """Find the grid of a network; of one that is neither U-Net nor ResNet, every pixel is a square."""
    if isinstance(network, UNetGenerator):
        return Grid(2**network.num_levels, 2**network.num_levels)
    return Grid(4, 8) if isinstance(network, ResNetGenerator) else Grid()


@dataclass(frozen=True)
class Tiling:
    """How a image is cut, and where its norm layers' statistics come from.

    Attributes:
        tile: Pixels a side; made larger to whole squares of the network's grid.
        overlap: Pixels that neighbors share at least.
        exact: Gather the statistics from all tiles until they are settled, not from a sample.
        shared: Whether tiles share their statistics; without, each has its own, and seams show: for comparison.
    """

    tile: int = 512
    overlap: int = 64
    exact: bool = False
    shared: bool = True

    def side(self, network: nn.Module) -> int:
        """Give the pixels a side of a tile in whole squares of the network's grid."""
        return _whole(self.tile, grid_of(network).step)

    def check(self, network: nn.Module) -> None:
        """Refuse a tile that the network or the overlap does not allow.

        Raises:
            UserError: It is smaller than the network's minimum, or leaves no room between two overlaps, or the overlap
                is negative.
        """
        grid = grid_of(network)
        if self.overlap < 0:
            raise UserError(f"--overlap is {self.overlap}; give 0 or more pixels.")
        if self.tile < grid.least:
            raise UserError(f"--tile is {self.tile}; this network needs {grid.least} pixels or more.")
        if self.side(network) - self.overlap < grid.step:
            least = _whole(self.overlap, grid.step) + grid.step
            raise UserError(
                f"--tile is {self.tile}: too small for --overlap {self.overlap}, since this network's tiles lie "
                f"{grid.step} pixels or a multiple of it apart. Give --tile {least} or more, or a smaller overlap."
            )


@dataclass(frozen=True)
class Axis:
    """Tiles along one side of a image.

    Attributes:
        length: Pixels of the image.
        tile: Pixels of a tile, as in `Tiling`.
        overlap: Pixels that neighbors share at least.
        grid: The network's.
    """

    length: int
    tile: int
    overlap: int
    grid: Grid = Grid()

    @property
    def before(self) -> int:
        """Pixels mirrored out before the image's first, as many as the network would."""
        return (self.whole - self.length) // 2

    @property
    def whole(self) -> int:
        """Pixels of the image mirrored out."""
        return self.grid.padded(self.length)

    @property
    def size(self) -> int:
        """Pixels of each tile."""
        return min(_whole(self.tile, self.grid.step), self.whole)

    @cached_property
    def starts(self) -> list[int]:
        """First pixels of the tiles; the last tile is shifted inwards, so that it ends with the image."""
        return [*range(0, self.whole - self.size, self._apart), self.whole - self.size]

    @cached_property
    def done(self) -> list[int]:
        """Pixels of each tile that no later tile reaches, counted from its first."""
        return [*np.diff(self.starts).tolist(), self.size]

    @cached_property
    def weights(self) -> np.ndarray:
        """Weights of each tile's pixels: [tiles, size], smooth, of sum 1 at each pixel of the image.

        They are 0 in the outer quarter of what neighbors share: the network's padding shows most there.
        """
        length = self._shared - 2 * self._context
        slope = np.sin(np.pi / 2 * (np.arange(length) + 0.5) / max(length, 1)) ** 2
        rise = np.concatenate([np.zeros(self._context), slope, np.ones(self._context + self.size)])[: self.size]
        first, last = self.starts[0], self.starts[-1]
        raw = np.stack([np.where(s > first, rise, 1) * np.where(s < last, rise[::-1], 1) for s in self.starts])
        total = np.zeros(self.whole)
        for start, row in zip(self.starts, raw, strict=True):
            total[start : start + self.size] += row
        return np.stack([row / total[s : s + self.size] for s, row in zip(self.starts, raw, strict=True)])

    def pixels(self, start: int) -> np.ndarray:
        """Tell which pixel of the image each pixel of a tile shows: [size], mirrored where it lies outside."""
        period = max(2 * self.length - 2, 1)
        place = np.arange(start - self.before, start - self.before + self.size) % period
        return np.minimum(place, period - place)

    @property
    def borders(self) -> list[int]:
        """Pixels of the image at which a tile begins to count or no longer does: where a seam would show."""
        begin = {start + self._context for start in self.starts[1:]}
        end = {start + self.size - self._context for start in self.starts[:-1]}
        return sorted(edge - self.before for edge in begin | end if 0 < edge - self.before < self.length)

    @property
    def _apart(self) -> int:
        """Pixels from one tile to the next."""
        step = self.grid.step
        return (_whole(self.tile, step) - self.overlap) // step * step

    @property
    def _shared(self) -> int:
        """Pixels that neighbors share; the last two may share more."""
        return _whole(self.tile, self.grid.step) - self._apart

    @property
    def _context(self) -> int:
        """Pixels at each end of a tile that only its network sees."""
        return self._shared // 4


@dataclass(frozen=True)
class Window:
    """A tile's place: rows from ``top``, columns from ``left``, and the weights of its rows and of its columns."""

    top: int
    left: int
    down: np.ndarray
    across: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """Weights of the pixels, [H, W] float32."""
        return np.outer(self.down, self.across).astype(np.float32)


@dataclass(frozen=True)
class Plan:
    """All tiles of a image: those of its rows by those of its columns."""

    rows: Axis
    columns: Axis

    @classmethod
    def of(cls, height: int, width: int, tiling: Tiling, network: nn.Module) -> "Plan":
        """Plan a image's tiles.

        Raises:
            UserError: As `Tiling.check`.
        """
        tiling.check(network)
        grid = grid_of(network)
        rows, columns = (Axis(side, tiling.tile, tiling.overlap, grid) for side in (height, width))
        return cls(rows, columns)

    @property
    def tiles(self) -> int:
        """How many there are."""
        return len(self.rows.starts) * len(self.columns.starts)

    def row(self, number: int) -> list[Window]:
        """List a row of tiles from left to right."""
        top, down = self.rows.starts[number], self.rows.weights[number]
        return [
            Window(top, left, down, across)
            for left, across in zip(self.columns.starts, self.columns.weights, strict=True)
        ]

    def spread(self, count: int) -> list[Window]:
        """Choose at most ``count`` tiles, evenly over the image.

        Rows alternate in direction, so that every second tile and the others are the two colors of a chessboard.
        """
        R, C = len(self.rows.starts), len(self.columns.starts)
        down = min(R, count, max(1, round(math.sqrt(count * R / C))))
        across = min(C, count // down)
        down = min(R, count // across)
        chosen = []
        for i, number in enumerate(_evenly(R, down)):
            row = self.row(number)
            chosen += [row[j] for j in _evenly(C, across)[:: -1 if i % 2 else 1]]
        return chosen


def _whole(length: int, step: int) -> int:
    """Round up to whole squares."""
    return -(-length // step) * step


def _evenly(count: int, chosen: int) -> list[int]:
    """Choose numbers below ``count``, each the middle of its share."""
    return [(2 * i + 1) * count // (2 * chosen) for i in range(chosen)]
