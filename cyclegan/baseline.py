"""The trivial predictors that a translator without pairs must beat: they know the colors of the domains alone."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_BINS = 2**16  # for medians: exact for 8 and 16 bits of full range, else to 2e-5


@dataclass(frozen=True)
class DomainColors:
    """The colors of a domain.

    Attributes:
        mean: [C] over all pixels.
        deviation: [C] standard deviation.
        median: [C]; no flat image has a lower L1 to the domain's images.
    """

    mean: Tensor
    deviation: Tensor
    median: Tensor

    @classmethod
    def measure(cls, images: Iterable[Tensor]) -> "DomainColors":
        """Measure images [C, H, W] in [-1, 1] of any sizes; one at a time is held.

        Raises:
            ValueError: There are none, or they differ in channels.
        """
        count, sums, histogram = 0, torch.zeros(0), torch.zeros(0)
        for image in images:
            values = image.flatten(1)  # [C, P]
            C, P = values.shape
            if not count:
                sums = torch.zeros(2, C, dtype=torch.float64)
                histogram = torch.zeros(C, NUM_BINS, dtype=torch.int64)
            if len(histogram) != C:
                raise ValueError(f"images have {len(histogram)} and {C} channels; expected equally many")
            count += P
            sums += torch.stack([values.sum(dim=1, dtype=torch.float64), values.double().square().sum(dim=1)])
            bins = ((values + 1) * ((NUM_BINS - 1) / 2)).round().clamp(0, NUM_BINS - 1).long()
            for channel in range(C):
                histogram[channel] += torch.bincount(bins[channel], minlength=NUM_BINS)
        if not count:
            raise ValueError("there are no images")
        mean = sums[0] / count
        variance = (sums[1] - count * mean.square()).clamp(min=0) / (count - 1)
        median = (histogram.cumsum(dim=1) > (count - 1) // 2).int().argmax(dim=1) * (2 / (NUM_BINS - 1)) - 1
        return cls(mean.float(), variance.sqrt().float(), median.float())

    def flat(self, like: Tensor) -> Tensor:
        """Return an image of the median color, [C, H, W], of the size of ``like`` [C', H, W]."""
        return self.median[:, None, None].expand(-1, *like.shape[-2:])


def match_colors(image: Tensor, source: DomainColors, target: DomainColors) -> Tensor:
    """Move each channel's mean and deviation from those of one domain to those of another.

    Args:
        image: An image of the source domain, [C, H, W] in [-1, 1].
        source: That domain's colors.
        target: The other domain's colors, of as many channels.

    Returns:
        The same shape, clipped to [-1, 1].

    Reference: Reinhard et al. 2001.
    """
    scale = target.deviation / source.deviation.clamp(min=1e-6)
    moved = (image - source.mean[:, None, None]) * scale[:, None, None] + target.mean[:, None, None]
    return moved.clamp(-1, 1)
