"""The trivial predictor that a network must beat: one color per class of a drawn map."""

from collections.abc import Mapping, Sequence

import numpy as np

from ganvas.data.arrays import FULL_RANGE
from ganvas.data.palette import parse_palette
from ganvas.errors import UserError

NUM_VALUES = 256  # of a channel


class MedianColors:
    """Predicts each class of a drawn map as the median color of the target pixels where the source shows that class.

    The median minimizes the mean absolute difference, so no predictor that sees only a pixel's class has a lower L1. It
    draws nothing but flat areas, which metrics beyond L1 must detect. It is fitted image by image.

    Args:
        palette: Name and color (8-bit red, green, blue) of each class, as "legend" in dataset.json has them.

    Raises:
        UserError: The palette has no class, or one that is not a color.
    """

    def __init__(self, palette: Mapping[str, Sequence[int]]) -> None:
        colors = list(parse_palette({"legend": palette}).values())
        if not colors:
            raise UserError("dataset.json: the legend has no class. Add a color by name, or remove the key.")
        self._palette = np.array(colors, dtype=np.float32)  # [K, 3]
        self._counts: np.ndarray | None = None  # [K, C, 256]

    def add(self, source: np.ndarray, target: np.ndarray) -> None:
        """Fit to another pair.

        Args:
            source: [H, W, 3] uint8, uint16 or float32 in [0, 1].
            target: [H, W, C] uint8.

        Raises:
            UserError: The source is not a color image.
        """
        K, C = len(self._palette), target.shape[2]
        if self._counts is None:
            self._counts = np.zeros((K, C, NUM_VALUES), dtype=np.int64)
        bins = self._classes(source).ravel() * NUM_VALUES
        for channel in range(C):
            counts = np.bincount(bins + target[:, :, channel].ravel(), minlength=K * NUM_VALUES)
            self._counts[:, channel] += counts.reshape(K, NUM_VALUES)

    def colors(self) -> np.ndarray:
        """Return the color that each class is predicted as, [K, C] uint8; a class without pixels has that of all."""
        assert self._counts is not None, "there is no pair yet"
        is_empty = ~self._counts.any(axis=(1, 2), keepdims=True)
        return _medians(np.where(is_empty, self._counts.sum(axis=0), self._counts))

    def predict(self, source: np.ndarray) -> np.ndarray:
        """Paint each pixel of a source [H, W, 3] by its class, [H, W, C] uint8.

        Raises:
            UserError: The source is not a color image.
        """
        return self.colors()[self._classes(source)]

    def _classes(self, source: np.ndarray) -> np.ndarray:
        """Return the class whose color is nearest, [H, W]. Lines and labels fall to the class they resemble most."""
        if source.shape[2] != 3:
            raise UserError(f"A source image has {source.shape[2]} channels; a legend's colors need images of 3.")
        values = source.astype(np.float32) * (255 / FULL_RANGE[source.dtype])
        distances = [np.square(values - color).sum(axis=2) for color in self._palette]
        return np.argmin(distances, axis=0)


def _medians(counts: np.ndarray) -> np.ndarray:
    """Return the medians of histograms [..., 256], rounded to uint8."""
    below = counts.cumsum(axis=-1)
    total = below[..., -1:]
    middle = [(below > rank).argmax(axis=-1) for rank in ((total - 1) // 2, total // 2)]
    return np.rint(np.mean(middle, axis=0)).astype(np.uint8)
