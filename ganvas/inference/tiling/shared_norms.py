"""Norm layers with statistics that all tiles of an image share.

Instance norm, and batch norm by each image's own statistics, would normalize each tile differently. Here all tiles
share one mean and variance per channel and layer: the fixed point at which layers normalize by the statistics of their
own inputs. Each pass over the tiles settles at least the first unsettled layer, so at most as many passes are needed as
there are norm layers, and fewer once nothing changes any more.

Letters in shape comments: C channels, H rows, W columns.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganvas.inference.tiling.plan import Window
from ganvas.nn.layers import BatchNorm2d


class SharedNorm(nn.Module):
    """Replaces a norm: accumulates statistics of its inputs, and normalizes by those of the previous pass."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.eps = float(norm.eps)  # type: ignore[arg-type]
        self.weights: Tensor | None = None  # [H, W] of the current tile; None accumulates nothing
        self.parity = 0  # of the index of the current tile
        self.mean: Tensor | None = None  # [C], as the variance
        self.variance: Tensor | None = None
        self.sums: list[Tensor | float] = [0.0, 0.0]  # of each half: [3, C], of w, w x and w x²

    def forward(self, x: Tensor) -> Tensor:
        """Normalize [1, C, H, W]."""
        if self.weights is not None:
            w = F.interpolate(self.weights[None, None], x.shape[-2:], mode="area")[0, 0].to(x)  # [H, W]
            # Each map counts by its share of the image, whatever its resolution.
            share = self.weights.numel() / w.numel()
            self.sums[self.parity] = self.sums[self.parity] + _weighted_sums(x[0], w) * share
        if self.mean is None or self.variance is None:
            return self.norm(x)
        scale, shift = getattr(self.norm, "weight", None), getattr(self.norm, "bias", None)
        return F.batch_norm(x, self.mean.to(x), self.variance.to(x), scale, shift, eps=self.eps)

    def end_pass(self) -> tuple[float, float]:
        """Adopt the accumulated statistics.

        Returns:
            The largest change of a channel's mean or deviation, and the mean square difference of the means of the two
            halves of the tiles, both in units of the deviation.
        """
        halves = [half for half in self.sums if isinstance(half, Tensor)]
        mean, variance = _moments(torch.stack(halves).sum(dim=0))
        deviation = (variance + self.eps).sqrt()
        change = math.inf
        if self.mean is not None and self.variance is not None:
            before = (self.variance + self.eps).sqrt()
            changes = torch.maximum((mean - self.mean).abs(), (deviation - before).abs()) / deviation
            change = float(changes.max())
        means = [_moments(half)[0] for half in halves]
        difference = float(((means[0] - means[-1]) / deviation).square().mean())
        self.mean, self.variance, self.sums = mean.float(), variance.float(), [0.0, 0.0]
        return change, difference


def _weighted_sums(x: Tensor, w: Tensor) -> Tensor:
    """Sum w, w x and w x² over [C, H, W]: [3, C] double, on the CPU, since Apple's GPUs have no doubles.

    Sums in float are those of x - c with c near the mean: with a large mean, x² would drown a small deviation.
    """
    c = x.mean(dim=(1, 2))  # [C]
    centered = x - c[:, None, None]
    zeroth, first, second = (
        torch.einsum("chw,hw->c", y, w).cpu().double() for y in (torch.ones_like(x), centered, centered.square())
    )
    c = c.cpu().double()
    return torch.stack([zeroth, first + c * zeroth, second + 2 * c * first + c.square() * zeroth])


def _moments(sums: Tensor) -> tuple[Tensor, Tensor]:
    mean = sums[1] / sums[0]
    return mean, (sums[2] / sums[0] - mean.square()).clamp(min=0)


@contextmanager
def shared_norms(network: nn.Module) -> Iterator[list[SharedNorm]]:
    """Replace, within the block, the norms whose statistics would differ from tile to tile."""
    replaced = []
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            is_per_image = isinstance(norm, BatchNorm2d) and norm.statistics == "picture"
            if is_per_image or isinstance(norm, nn.InstanceNorm2d):
                shared = SharedNorm(norm)
                setattr(parent, name, shared.eval())
                replaced.append((parent, name, shared))
    try:
        yield [shared for _, _, shared in replaced]
    finally:
        for parent, name, shared in replaced:
            setattr(parent, name, shared.norm)


def compute_statistics(
    norms: list[SharedNorm], tiles: list[Window], translate: Callable[[Window], object], tolerance: float
) -> tuple[int, float]:
    """Compute the statistics of norms by passes over tiles.

    Args:
        norms: The layers, as from `shared_norms`.
        tiles: The tiles.
        translate: Applies the network to a tile.
        tolerance: Largest change of a channel's mean or deviation, in units of the deviation, that ends the passes.

    Returns:
        The number of passes, and the root mean square difference between the channel means of even and odd tiles, in
        units of the deviation.
    """
    passes, uncertainty = 0, 0.0
    for _ in norms:
        passes += 1
        for index, window in enumerate(tiles):
            for norm in norms:
                norm.weights, norm.parity = torch.from_numpy(window.weights), index % 2
            translate(window)
        changes, differences = zip(*(norm.end_pass() for norm in norms), strict=True)
        uncertainty = math.sqrt(sum(differences) / len(differences))
        if max(changes) < tolerance:
            break
    for norm in norms:
        norm.weights = None
    return passes, uncertainty
