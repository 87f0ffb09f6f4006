"""A figure that chooses the best step of a run, from pixels alone: no classifier, no labels, any images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ganvas.evaluation.distribution import frechet_distance

LARGEST_SIDE = 16  # pixels: what tells a digit from another survives there, and the covariance stays small
COMPONENTS = 64  # principal components; digits have 95% of their variance in fewer


class PixelFrechet:
    """Fréchet distance between real and generated images in the principal components of shrunken real ones.

    Our choice, for choosing among the steps of one run: it sees collapse and noise, but not sharpness. Figures to be
    compared between models come from ``dcgan evaluate``.

    Args:
        real: Training images, [M, C, S, S] uint8.
    """

    def __init__(self, real: Tensor) -> None:
        pixels = _shrunken(real)  # [M, D]
        self._mean = pixels.mean(dim=0)
        covariance = torch.cov((pixels - self._mean).T)  # [D, D]
        _, vectors = torch.linalg.eigh(covariance)  # by rising variance
        self._components = vectors[:, -COMPONENTS:]  # [D, COMPONENTS]
        self._real = self._project(pixels)

    def __call__(self, fake: Tensor) -> float:
        """Give the distance of generated images, [N, C, S, S] uint8; 0 is equal."""
        return frechet_distance(self._real, self._project(_shrunken(fake)))

    def _project(self, pixels: Tensor) -> Tensor:
        return (pixels - self._mean) @ self._components


def _shrunken(pictures: Tensor) -> Tensor:
    """Halve images until they are small enough, and flatten them: [N, D] in [0, 1]."""
    x = pictures.double() / 255
    while x.shape[-1] > LARGEST_SIDE:
        x = F.avg_pool2d(x, 2)
    return x.flatten(1)
