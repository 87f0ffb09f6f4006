"""The metric that selects the best step of a run, from pixels: no classifier, no labels, any images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ganvas.evaluation.distribution import frechet_distance

MAX_SIDE = 16  # pixels: digits remain distinguishable, and the covariance stays small
COMPONENTS = 64  # principal components; digits have 95% of their variance in fewer


class PixelFrechet:
    """Fréchet distance between real and generated images in the principal components of downscaled real ones.

    Our choice, for comparing steps of one run: it detects collapse and noise, but not blur. Use ``dcgan evaluate`` to
    compare models.

    Args:
        real: Training images, [M, C, S, S] uint8.
    """

    def __init__(self, real: Tensor) -> None:
        pixels = _downscaled(real)  # [M, D]
        self._mean = pixels.mean(dim=0)
        covariance = torch.cov((pixels - self._mean).T)  # [D, D]
        _, vectors = torch.linalg.eigh(covariance)  # in ascending order of variance
        self._components = vectors[:, -COMPONENTS:]  # [D, COMPONENTS]
        self._real = self._project(pixels)

    def __call__(self, fake: Tensor) -> float:
        """Return the distance of generated images, [N, C, S, S] uint8; 0 is equal."""
        return frechet_distance(self._real, self._project(_downscaled(fake)))

    def _project(self, pixels: Tensor) -> Tensor:
        return (pixels - self._mean) @ self._components


def _downscaled(images: Tensor) -> Tensor:
    """Halve images until they have at most MAX_SIDE pixels a side, and flatten them: [N, D] in [0, 1]."""
    x = images.double() / 255
    while x.shape[-1] > MAX_SIDE:
        x = F.avg_pool2d(x, 2)
    return x.flatten(1)
