"""How unlike the training images an image is, by a few figures: a translator answers anything, also with nonsense."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor

from ganvas.errors import UserError
from ganvas.options import STRICT

IMAGES, FEWEST = 128, 32  # of a training that are measured, a few seconds of reading; fewer tell no limit
FLOOR = 0.02  # least deviation of a figure: where all training images are alike, two and a half gray levels are no news
# An image is unlike when it is this much farther from the mean than the farthest training image. Held-out images of
# seven datasets stay below 1.3; those of other domains have 2 to 20 where the training images have much in common.
LIMIT = 1.5

CHANNELS = 4  # that are measured each; of images with more, all together
MOST = 2 * CHANNELS + 2  # figures
Numbers = Annotated[tuple[float, ...], Field(max_length=MOST)]


@dataclass(frozen=True)
class SourceFigures:
    """What the source images of a training have in common.

    Attributes:
        mean: Of the figures of `measure`.
        precision: Inverse of their covariance.
        farthest: Mahalanobis distance of the farthest training image.
    """

    __pydantic_config__ = STRICT

    mean: Numbers
    precision: Annotated[tuple[Numbers, ...], Field(max_length=MOST)]
    farthest: Annotated[float, Field(gt=0)]

    def distance(self, image: Tensor) -> float:
        """Return how far an image [C, H, W] in [-1, 1] is from the mean, in distances of the farthest training image.

        0 if the figures belong to images of other channels.
        """
        figures = measure(image)
        F = len(figures)
        if [len(row) for row in (self.mean, *self.precision)] != [F] * (1 + F):
            return 0.0
        away = figures - np.array(self.mean)
        return float(np.sqrt(max(0.0, away @ np.array(self.precision) @ away))) / self.farthest


def measure(image: Tensor) -> np.ndarray:
    """Return the mean and the deviation of each channel, and the logarithms of color and detail: [F].

    Color is the mean range of the channels, detail the mean absolute difference of neighboring pixels: it depends on
    scale and blur.

    Args:
        image: [C, H, W] in [-1, 1].
    """
    x = image.float().cpu().numpy()
    steps = [np.abs(np.diff(x, axis=axis)).mean() for axis in (1, 2) if x.shape[axis] > 1]
    axes = (1, 2) if len(x) <= CHANNELS else (0, 1, 2)
    shares = np.array([np.ptp(x, axis=0).mean(), np.mean(steps) if steps else 0.0])
    figures = (x.mean(axis=axes), x.std(axis=axes), np.log(FLOOR + shares))
    return np.concatenate([np.atleast_1d(each) for each in figures]).astype(np.float64)


def measure_sources(read: Callable[[int], Tensor], length: int) -> SourceFigures | None:
    """Measure images that are evenly spaced over a training's; None if there are fewer than `FEWEST`.

    Args:
        read: Returns the source image of an index as the network takes it, [C, H, W] in [-1, 1].
        length: Number of training images.
    """
    found = []
    for index in sorted({round(index) for index in np.linspace(0, length - 1, min(IMAGES, length))}):
        try:
            found.append(measure(read(index)))
        except UserError:  # the training reports it when it gets there
            continue
    if len(found) < FEWEST:
        return None
    figures = np.stack(found)  # [N, F]
    covariance = np.cov(figures.T) + FLOOR**2 * np.eye(figures.shape[1])
    away, precision = figures - figures.mean(axis=0), np.linalg.inv(covariance)
    distances = np.sqrt(np.einsum("nf,fg,ng->n", away, precision, away))
    farthest = max(*distances, np.sqrt(figures.shape[1]))  # the mean square of a distance is the number of figures
    mean, *rows = (tuple(float(f"{value:.6g}") for value in row) for row in (figures.mean(axis=0), *precision))
    return SourceFigures(mean, tuple(rows), round(float(farthest), 3))
