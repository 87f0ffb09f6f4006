"""The trivial predictors that a network must beat: one colour a class of a drawn map, or the other domain's colours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ganvas.data.images import FULL_RANGE
from ganvas.data.legend import legend_of
from ganvas.errors import UserError


@dataclass(frozen=True)
class MedianColours:
    """For each class of the legend, the median colour of the target pictures where the source shows that class.

    The median is what minimises the mean absolute difference, so no other predictor that sees a pixel's class alone
    has a lower L1. It draws nothing but flat areas: metrics that see more than L1 must catch it.

    Attributes:
        legend: [K, 3] uint8, the source's colours by class.
        colours: [K, C] of the targets' type, what each class is predicted as.
    """

    legend: np.ndarray
    colours: np.ndarray

    @classmethod
    def fit(
        cls, sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], legend: Mapping[str, Sequence[int]]
    ) -> "MedianColours":
        """Find the medians over all the pictures given; on the pictures that it is scored on, the best there is.

        A class without a pixel takes the median of all pixels.

        Args:
            sources: Pictures [H, W, 3], uint8, uint16 or float32 in [0, 1], of any sizes.
            targets: Pictures [H, W, C] of the same sizes, one type and number of channels.
            legend: Name and colour (8-bit red, green, blue) of each class, as in a data set's dataset.json.

        Raises:
            UserError: The legend has no class, or one that is no colour; or the sources are no colour pictures.
            ValueError: There are no pictures, or sources and targets do not correspond.
        """
        if not sources or [source.shape[:2] for source in sources] != [target.shape[:2] for target in targets]:
            raise ValueError(f"{len(sources)} sources and {len(targets)} targets; expected pairs of equal sizes")
        if not legend:
            raise UserError("legend: has no class. Give it in dataset.json as a colour by name, or leave it out.")
        colours = np.array(list(legend_of({"legend": legend}).values()), dtype=np.uint8)
        classes = np.concatenate([_nearest(source, colours).ravel() for source in sources])  # [P]
        pixels = np.concatenate([target.reshape(-1, target.shape[2]) for target in targets])  # [P, C]
        overall = _median(pixels)
        medians = [_median(pixels[classes == k]) if (classes == k).any() else overall for k in range(len(colours))]
        return cls(colours, np.stack(medians))

    def predict(self, source: np.ndarray) -> np.ndarray:
        """Paint each pixel of a source [H, W, 3] by its class: [H, W, C] of the targets' type.

        Raises:
            UserError: The source is no colour picture.
        """
        return self.colours[_nearest(source, self.legend)]


def _nearest(source: np.ndarray, legend: np.ndarray) -> np.ndarray:
    """Find each pixel's class, the one whose colour is nearest: [H, W, 3] to [H, W] in 0 .. K - 1.

    Lines and labels have colours of their own and fall to the class they resemble most.
    """
    if source.shape[2] != 3:
        raise UserError(f"a source picture has {source.shape[2]} channels; a legend's colours need pictures of 3.")
    values = source.astype(np.float32) * (255 / FULL_RANGE[source.dtype])
    distances = [np.square(values - colour).sum(axis=2) for colour in legend.astype(np.float32)]
    return np.argmin(distances, axis=0)


def _median(pixels: np.ndarray) -> np.ndarray:
    """Give the median of [P, C] by channel, in the same type: [C]."""
    median = np.median(pixels, axis=0)
    return (np.rint(median) if np.issubdtype(pixels.dtype, np.integer) else median).astype(pixels.dtype)


def match_colours(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
    """Move each channel's mean and deviation, over all pictures, to those of another set (Reinhard et al. 2001).

    What a translator without pairs must beat: it knows the colours of the other domain, and nothing else.

    Args:
        sources: Pictures, [C, H, W] in [-1, 1].
        targets: Pictures of the other domain with as many channels, in any order and number.

    Returns:
        The sources with the targets' colours, clipped to [-1, 1].
    """
    C = sources[0].shape[0]
    if any(picture.shape[0] != C for picture in (*sources, *targets)):
        raise ValueError("sources and targets differ in channels")
    (mean, deviation), (wanted_mean, wanted) = (
        (values.mean(dim=1), values.std(dim=1))
        for values in (torch.cat([p.flatten(1) for p in pictures], dim=1) for pictures in (sources, targets))
    )
    scale = (wanted / deviation.clamp(min=1e-6))[:, None, None]
    moved = [(picture - mean[:, None, None]) * scale + wanted_mean[:, None, None] for picture in sources]
    return [picture.clamp(-1, 1) for picture in moved]
