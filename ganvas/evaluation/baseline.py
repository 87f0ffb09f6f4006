"""The trivial predictors that a network must beat: one color a class of a drawn map, or the other domain's colors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ganvas.data.arrays import FULL_RANGE
from ganvas.data.palette import parse_palette
from ganvas.errors import UserError


@dataclass(frozen=True)
class MedianColours:
    """For each class of the legend, the median color of the target images where the source shows that class.

    The median is what minimizes the mean absolute difference, so no other predictor that sees a pixel's class alone
    has a lower L1. It draws nothing but flat areas: metrics that see more than L1 must catch it.

    Attributes:
        legend: [K, 3] uint8, the source's colors by class.
        colors: [K, C] of the targets' type, what each class is predicted as.
    """

    legend: np.ndarray
    colours: np.ndarray

    @classmethod
    def fit(
        cls, sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], legend: Mapping[str, Sequence[int]]
    ) -> "MedianColours":
        """Find the medians over all the images given; on the images that it is scored on, the best there is.

        A class without a pixel takes the median of all pixels.

        Args:
            sources: Images [H, W, 3], uint8, uint16 or float32 in [0, 1], of any sizes.
            targets: Images [H, W, C] of the same sizes, one type and number of channels.
            legend: Name and color (8-bit red, green, blue) of each class, as in a dataset's dataset.json.

        Raises:
            UserError: The legend has no class, or one that is no color; or the sources are no color images.
            ValueError: There are no images, or sources and targets do not correspond.
        """
        if not sources or [source.shape[:2] for source in sources] != [target.shape[:2] for target in targets]:
            raise ValueError(f"{len(sources)} sources and {len(targets)} targets; expected pairs of equal sizes")
        if not legend:
            raise UserError("legend: has no class. Give it in dataset.json as a color by name, or leave it out.")
        colours = np.array(list(parse_palette({"legend": legend}).values()), dtype=np.uint8)
        classes = np.concatenate([_nearest(source, colours).ravel() for source in sources])  # [P]
        pixels = np.concatenate([target.reshape(-1, target.shape[2]) for target in targets])  # [P, C]
        overall = _median(pixels)
        medians = [_median(pixels[classes == k]) if (classes == k).any() else overall for k in range(len(colours))]
        return cls(colours, np.stack(medians))

    def predict(self, source: np.ndarray) -> np.ndarray:
        """Paint each pixel of a source [H, W, 3] by its class: [H, W, C] of the targets' type.

        Raises:
            UserError: The source is no color image.
        """
        return self.colours[_nearest(source, self.legend)]


def _nearest(source: np.ndarray, legend: np.ndarray) -> np.ndarray:
    """Find each pixel's class, the one whose color is nearest: [H, W, 3] to [H, W] in 0 .. K - 1.

    Lines and labels have colors of their own and fall to the class they resemble most.
    """
    if source.shape[2] != 3:
        raise UserError(f"a source image has {source.shape[2]} channels; a legend's colors need images of 3.")
    values = source.astype(np.float32) * (255 / FULL_RANGE[source.dtype])
    distances = [np.square(values - colour).sum(axis=2) for colour in legend.astype(np.float32)]
    return np.argmin(distances, axis=0)


def _median(pixels: np.ndarray) -> np.ndarray:
    """Give the median of [P, C] by channel, in the same type: [C]."""
    median = np.median(pixels, axis=0)
    return (np.rint(median) if np.issubdtype(pixels.dtype, np.integer) else median).astype(pixels.dtype)


@dataclass(frozen=True)
class DomainColours:
    """The colors of a domain: all that a translator knows that learned nothing else of it.

    Attributes:
        mean: Of each channel over all pixels, [C].
        deviation: The same.
        median: The same; no flat image has a lower L1 to the domain's.
    """

    mean: Tensor
    deviation: Tensor
    median: Tensor

    @classmethod
    def of(cls, pictures: Sequence[Tensor]) -> "DomainColours":
        """Measure images, [C, H, W] each, of any sizes.

        Raises:
            ValueError: There are none, or they differ in channels.
        """
        if len({picture.shape[0] for picture in pictures}) != 1:
            raise ValueError(f"{len(pictures)} images; expected some, all of as many channels")
        values = torch.cat([picture.flatten(1) for picture in pictures], dim=1)  # [C, P]
        return cls(values.mean(dim=1), values.std(dim=1), values.median(dim=1).values)

    def flat(self, like: Tensor) -> Tensor:
        """Give a image of the median color, as large as ``like`` [C', H, W]: [C, H, W]."""
        return self.median[:, None, None].expand(-1, *like.shape[-2:])


def match_colours(picture: Tensor, source: DomainColours, target: DomainColours) -> Tensor:
    """Move each channel's mean and deviation from those of one domain to those of another (Reinhard et al. 2001).

    What a translator without pairs must beat: it knows the colors of the domains, and nothing else.

    Args:
        image: Of the source domain, [C, H, W] in [-1, 1].
        source: That domain's colors.
        target: The other domain's, with as many channels.

    Returns:
        The same shape, clipped to [-1, 1].
    """
    scale = target.deviation / source.deviation.clamp(min=1e-6)
    moved = (picture - source.mean[:, None, None]) * scale[:, None, None] + target.mean[:, None, None]
    return moved.clamp(-1, 1)
