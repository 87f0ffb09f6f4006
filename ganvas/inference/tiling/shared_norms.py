"""Norm layers whose statistics all tiles of a image share.

Instance norm, and batch norm by each image's own statistics, would normalize each tile differently. Here all tiles
share one mean and variance for each channel of each norm layer. They are a fixed point: what the layers see when they
normalize by them. Each pass over the tiles settles at least the first layer that is not settled yet, so that there are
never more passes than norm layers, and fewer where nothing moves any more.

Letters in shape comments: C channels, H rows, W columns.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganvas.inference.tiling.plan import Window
from ganvas.nn.layers import BatchNorm2d, InstanceNorm2d


class SharedNorm(nn.Module):
    """Stands in for a norm: gathers what it sees and normalizes by what an earlier pass gathered, if there was one."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.eps = float(norm.eps)  # type: ignore[arg-type]
        self.weights: Tensor | None = None  # [H, W] of the tile that is gathered; None gathers nothing
        self.side = 0
        self.mean: Tensor | None = None  # [C], as the next
        self.variance: Tensor | None = None
        self.sums: list[Tensor | float] = [0.0, 0.0]  # of each half of the tiles: [3, C], of w, w x and w x²

    def forward(self, x: Tensor) -> Tensor:
        """Normalize [1, C, H, W]."""
        if self.weights is not None:
            w = F.interpolate(self.weights[None, None], x.shape[-2:], mode="area")[0, 0].to(x)  # [H, W]
            # Each map counts by its share of the image, whatever its resolution.
            share = self.weights.numel() / w.numel()
            self.sums[self.side] = self.sums[self.side] + _sums(x[0], w) * share
        if self.mean is None or self.variance is None:
            return self.norm(x)
        scale, shift = getattr(self.norm, "weight", None), getattr(self.norm, "bias", None)
        return F.batch_norm(x, self.mean.to(x), self.variance.to(x), scale, shift, eps=self.eps)

    def settle(self) -> tuple[float, float]:
        """End a pass: take its statistics; give how far a channel moved, and how far the halves' means differ."""
        gathered = [half for half in self.sums if isinstance(half, Tensor)]
        mean, variance = _moments(torch.stack(gathered).sum(dim=0))
        deviation = (variance + self.eps).sqrt()
        moved = math.inf
        if self.mean is not None and self.variance is not None:
            before = (self.variance + self.eps).sqrt()
            moves = torch.maximum((mean - self.mean).abs(), (deviation - before).abs()) / deviation
            moved = float(moves.max())
        halves = [_moments(half)[0] for half in gathered]
        apart = float(((halves[0] - halves[-1]) / deviation).square().mean())
        self.mean, self.variance, self.sums = mean.float(), variance.float(), [0.0, 0.0]
        return moved, apart


def _sums(x: Tensor, w: Tensor) -> Tensor:
    """Sum w, w x and w x² over [C, H, W]: [3, C] double, on the CPU, since Apple's devices have no doubles.

    The sums in float are those of x - c, c near the mean: beside a large mean, x² would drown a small deviation.
    """
    c = x.mean(dim=(1, 2))  # [C]
    apart = x - c[:, None, None]
    zeroth, first, second = (
        torch.einsum("chw,hw->c", y, w).cpu().double() for y in (torch.ones_like(x), apart, apart.square())
    )
    c = c.cpu().double()
    return torch.stack([zeroth, first + c * zeroth, second + 2 * c * first + c.square() * zeroth])


def _moments(sums: Tensor) -> tuple[Tensor, Tensor]:
    mean = sums[1] / sums[0]
    return mean, (sums[2] / sums[0] - mean.square()).clamp(min=0)


@contextmanager
def shared_norms(network: nn.Module) -> Iterator[list[SharedNorm]]:
    """Replace, while the block runs, the norms whose statistics would differ from tile to tile."""
    replaced = []
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            own = isinstance(norm, BatchNorm2d) and norm.statistics == "picture"
            if own or isinstance(norm, InstanceNorm2d):
                shared = SharedNorm(norm)
                setattr(parent, name, shared.eval())
                replaced.append((parent, name, shared))
    try:
        yield [shared for _, _, shared in replaced]
    finally:
        for parent, name, shared in replaced:
            setattr(parent, name, shared.norm)


def gather(
    norms: list[SharedNorm], tiles: list[Window], translate: Callable[[Window], object], tolerance: float
) -> tuple[int, float]:
    """Find statistics for the norms by passes over some tiles.

    Args:
        norms: The layers, as `shared_norms` gives them.
        tiles: Where to look.
        translate: Sends a tile through the network.
        tolerance: Largest move of a channel's mean or deviation, in its deviations, that ends the passes.

    Returns:
        The passes that it took, and the root mean square difference of the channel means of every second tile from
        those of the others, in deviations.
    """
    passes, uncertainty = 0, 0.0
    for _ in norms:
        passes += 1
        for index, window in enumerate(tiles):
            for norm in norms:
                norm.weights, norm.side = torch.from_numpy(window.weights), index % 2
            translate(window)
        moved, apart = zip(*(norm.settle() for norm in norms), strict=True)
        uncertainty = math.sqrt(sum(apart) / len(apart))
        if max(moved) < tolerance:
            break
    for norm in norms:
        norm.weights = None
    return passes, uncertainty
