"""How FID and KID see an image, and LPIPS a pair: networks, and the images as the networks take them.

`ganvas.evaluation.weights` loads the networks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ganvas.data.tensors import to_array
from ganvas.errors import UserError

FEATURE_SIZE = 299  # pixels a side: what Inception v3 was trained on (Szegedy et al. 2016, Sec. 8)
_BATCH = 16  # images; a batch of 299x299 pixels has 4 MB

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FeatureNetwork:
    """A network whose outputs FID and KID compare.

    Attributes:
        network: Maps [N, 3, 299, 299] uint8 to [N, D].
        name: What it is, for the protocol.
        digest: SHA-256 of the file of its weights.
        device: Where it computes.
        dimensions: D.
    """

    network: Network
    name: str
    digest: str
    device: str
    dimensions: int

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features, [N, D] float32 on the CPU, of images [N, 3, 299, 299] uint8."""
        return self.network(images.to(self.device)).float().cpu()


@dataclass(frozen=True)
class PairNetwork:
    """A network that returns the perceptual distance of two images.

    Attributes:
        network: Maps two tensors [1, 3, H, W] in [-1, 1] to a tensor of one value.
        name: What it is, for the protocol.
        digest: SHA-256 of the file of its weights.
        device: Where it computes.
    """

    network: Callable[[Tensor, Tensor], Tensor]
    name: str
    digest: str
    device: str

    @torch.no_grad()
    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the distance of two images [1, C, H, W] in [-1, 1], C being 1 or 3: [1] float32 on the CPU."""
        x, y = (image.float().expand(-1, 3, -1, -1).to(self.device) for image in (output, target))
        return self.network(x, y).float().cpu().reshape(1)


def clean_resize(image: Tensor) -> Tensor:
    """Return an image as Inception v3 gets it: 8 bits, then bicubic with antialiasing to 299x299 pixels (Pillow).

    Without antialiasing, as in the first FID code, a distance depends on how an image was resized more than on the
    image. Departure from the paper's code: values after the resizing are rounded to 8 bits, too, since torch-fidelity's
    network takes no others.

    Args:
        image: [C, H, W] in [-1, 1], C being 1 or 3; gray is repeated.

    Returns:
        [3, 299, 299] uint8.

    Reference: Parmar et al. 2022, Sec. 3.
    """
    pixels = to_array(image.expand(3, -1, -1), np.uint8)  # [H, W, 3]
    resized = Image.fromarray(pixels).resize((FEATURE_SIZE, FEATURE_SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


class FeatureVectors:
    """Collects the features of images that are added one by one; of the images, at most 16 are held.

    Args:
        network: Computes them.
    """

    def __init__(self, network: FeatureNetwork) -> None:
        self._network = network
        self._waiting: list[Tensor] = []
        self._vectors: list[Tensor] = []

    def add(self, image: Tensor) -> None:
        """Add an image [C, H, W] in [-1, 1]."""
        self._waiting.append(clean_resize(image))
        if len(self._waiting) == _BATCH:
            self._compute()

    def vectors(self) -> Tensor:
        """Return the features of all images, [n, D] float32.

        Raises:
            UserError: They are not finite.
        """
        self._compute()
        return torch.cat(self._vectors)

    def _compute(self) -> None:
        if not self._waiting:
            return
        vectors = self._network(torch.stack(self._waiting))
        if not vectors.isfinite().all():
            raise UserError(f"fid and kid: the features of {self._network.name} are not finite. Use another network.")
        self._vectors.append(vectors)
        self._waiting = []
