"""Tiles put together to bands of rows: each counts by its window, and what no later tile reaches leaves at once.

Only overlaps are kept as sums: those with the tile to the left, and those with the row of tiles above. The rest is a
band in the image's own type, so that memory grows by a row of tiles for each column of the image, and not with its
height.

Letters in shape comments: C channels, H rows, W columns.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ganvas.inference.tiling.plan import Plan, Window

Tile = tuple[Tensor, np.ndarray]  # output [C, H, W] of the network, and which pixels have no data [H, W]
Band = tuple[np.ndarray, np.ndarray]  # rows [rows, W, C] of the image, and which of their pixels have no data


def blend(
    plan: Plan, channels: int, translate: Callable[[Window], Tile], finish: Callable[[Tensor], np.ndarray]
) -> Iterator[Band]:
    """Translate all tiles and blend them; yield the image's rows from above.

    Args:
        plan: Where the tiles lie.
        channels: Of the output.
        translate: Gives a tile.
        finish: Makes a piece [C, H, W] of the blended output a piece [H, W, C] of the image.
    """
    above = torch.zeros(channels, 0, plan.columns.whole)
    width = slice(plan.columns.before, plan.columns.before + plan.columns.length)
    for number, (top, done) in enumerate(zip(plan.rows.starts, plan.rows.done, strict=True)):
        below = torch.zeros(channels, plan.rows.size - done, plan.columns.whole)
        pieces, holes = [], []
        for left, ready, empty in _row(plan, number, translate):
            columns = slice(left, left + ready.shape[2])
            ready[:, : above.shape[1]] += above[:, :, columns]
            below[:, :, columns] = ready[:, done:]
            pieces.append(finish(ready[:, :done]))
            holes.append(empty[:done])
        above = below
        first = max(plan.rows.before - top, 0)
        height = slice(first, min(plan.rows.before + plan.rows.length - top, done))
        yield np.concatenate(pieces, axis=1)[height, width], np.concatenate(holes, axis=1)[height, width]


def _row(plan: Plan, number: int, translate: Callable[[Window], Tile]) -> Iterator[tuple[int, Tensor, np.ndarray]]:
    """Blend a row of tiles; yield the first of the columns that no later one reaches, these columns, their holes."""
    beside: Tensor | None = None
    for window, done in zip(plan.row(number), plan.columns.done, strict=True):
        output, holes = translate(window)
        patch = output * torch.from_numpy(window.weights)
        if beside is not None:
            patch[:, :, : beside.shape[2]] += beside
        beside = patch[:, :, done:]
        yield window.left, patch[:, :, :done], holes[:, :done]
