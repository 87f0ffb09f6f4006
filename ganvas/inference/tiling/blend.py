"""Blending of overlapping tiles into bands of rows, which are complete as soon as no later tile covers them.

Only overlaps are kept as weighted sums: the one with the tile to the left, and the one with the row of tiles above. So
memory grows with a row of tiles, not with the height of the image.

Letters in shape comments: C channels, H rows, W columns.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ganvas.inference.tiling.plan import Plan, Window

Tile = tuple[Tensor, np.ndarray]  # the network's output [C, H, W], and its nodata mask [H, W]
Band = tuple[np.ndarray, np.ndarray]  # rows of the image [rows, W, C], and their nodata mask [rows, W]


def blend(
    plan: Plan, channels: int, translate: Callable[[Window], Tile], to_image: Callable[[Tensor], np.ndarray]
) -> Iterator[Band]:
    """Translate and blend all tiles; yield bands of the image from top to bottom.

    Args:
        plan: The tiles.
        channels: Channels of the output.
        translate: Translates a tile.
        to_image: Converts a blended output [C, H, W] to a part [H, W, C] of the image.
    """
    above = torch.zeros(channels, 0, plan.columns.padded)
    width = slice(plan.columns.pad_before, plan.columns.pad_before + plan.columns.length)
    for number, (top, finished) in enumerate(zip(plan.rows.starts, plan.rows.finished, strict=True)):
        below = torch.zeros(channels, plan.rows.size - finished, plan.columns.padded)
        parts, masks = [], []
        for left, blended, mask in _blend_row(plan, number, translate):
            columns = slice(left, left + blended.shape[2])
            blended[:, : above.shape[1]] += above[:, :, columns]
            below[:, :, columns] = blended[:, finished:]
            parts.append(to_image(blended[:, :finished]))
            masks.append(mask[:finished])
        above = below
        first = max(plan.rows.pad_before - top, 0)
        height = slice(first, min(plan.rows.pad_before + plan.rows.length - top, finished))
        yield np.concatenate(parts, axis=1)[height, width], np.concatenate(masks, axis=1)[height, width]


def _blend_row(
    plan: Plan, number: int, translate: Callable[[Window], Tile]
) -> Iterator[tuple[int, Tensor, np.ndarray]]:
    """Blend a row of tiles; yield first column, weighted sum and nodata mask of the columns that are complete."""
    beside: Tensor | None = None
    for window, finished in zip(plan.row(number), plan.columns.finished, strict=True):
        output, mask = translate(window)
        weighted = output * torch.from_numpy(window.weights)
        if beside is not None:
            weighted[:, :, : beside.shape[2]] += beside
        beside = weighted[:, :, finished:]
        yield window.left, weighted[:, :, :finished], mask[:, :finished]
