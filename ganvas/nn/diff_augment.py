"""Differentiable augmentation of what a discriminator sees (Zhao et al. 2020, "DiffAugment").

A discriminator that sees few images learns them by heart. Augmenting only the real ones would teach the generator the
augmentation; so real and generated images are augmented alike, by functions that pass gradients to the generator. A
conditional discriminator sees source and target with one and the same transform.

Letters in shape comments: N images, C channels, H rows, W columns.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

AugmentPolicy = Literal["color", "translation", "cutout"]

MAX_SHIFT = 1 / 8  # of the side; this and the other strengths are the paper's (Sec. 4.1)
CUTOUT = 1 / 2  # side of the square, of the image's


def draw_augmentation(
    policies: Sequence[AugmentPolicy], like: Tensor, rng: torch.Generator | None = None
) -> Callable[[Tensor], Tensor]:
    """Draw one transform for each image of a batch, and return the function that applies it to such batches.

    Args:
        policies: "color": brightness, saturation and contrast; "translation": shift by up to an eighth of the side,
            filled with 0; "cutout": a square of half the side becomes 0. Without any, nothing is drawn, and images stay
            as they are.
        like: A batch [N, C, H, W]: its N, H, W and device.
        rng: On the CPU; torch's global one by default.

    Returns:
        A function of batches [N, C', H, W] in [-1, 1] with any number of channels, to float32 of the same shape.
        Colors may leave [-1, 1].
    """
    if not policies:
        return _unchanged
    N, _, H, W = like.shape
    draws = torch.rand(N, 7, generator=rng).to(like.device).view(N, 7, 1, 1, 1).unbind(1)  # each [N, 1, 1, 1]
    brightness, saturation, contrast, *places = draws

    def augment(x: Tensor) -> Tensor:
        x = x.float()
        if "color" in policies:
            x = x + brightness - 0.5
            x = torch.lerp(x.mean(1, keepdim=True), x, 2 * saturation)
            x = torch.lerp(x.mean((1, 2, 3), keepdim=True), x, 0.5 + contrast)
        if "translation" in policies:
            x = _shift(x, places[0], places[1])
        if "cutout" in policies:
            x = x * _outside_square(places[2], places[3], H, W)
        return x

    return augment


def _unchanged(x: Tensor) -> Tensor:
    return x


def _shift(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Move each image of [N, C, H, W] by up to `MAX_SHIFT` of its sides; ``down`` and ``right`` are in [0, 1)."""
    N, _, H, W = x.shape
    rows = torch.arange(H, device=x.device) - _shift_pixels(down, H)  # [N, H]: the row that each row shows
    columns = torch.arange(W, device=x.device) - _shift_pixels(right, W)  # [N, W]
    inside = ((rows >= 0) & (rows < H))[:, :, None] & ((columns >= 0) & (columns < W))[:, None, :]  # [N, H, W]
    images = torch.arange(N, device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[images, rows.clamp(0, H - 1)[:, :, None], columns.clamp(0, W - 1)[:, None, :]]
    return moved.permute(0, 3, 1, 2) * inside[:, None]


def _shift_pixels(draw: Tensor, side: int) -> Tensor:
    """Return whole pixels [N, 1], uniform from -most to most, for draws [N, 1, 1, 1] in [0, 1)."""
    most = int(side * MAX_SHIFT + 0.5)
    return (draw.view(-1, 1) * (2 * most + 1)).long() - most


def _outside_square(down: Tensor, right: Tensor, H: int, W: int) -> Tensor:
    """Return 0 inside a square whose center is anywhere in the image, else 1: [N, 1, H, W]."""
    masks = []
    for draw, side, shape in ((down, H, (-1, 1, H, 1)), (right, W, (-1, 1, 1, W))):
        half = int(side * CUTOUT) / 2
        center = draw.view(-1, 1) * side
        position = torch.arange(side, device=draw.device) + 0.5
        masks.append(((position - center).abs() < half).view(shape))
    return (~(masks[0] & masks[1])).float()
