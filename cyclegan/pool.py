"""A pool of earlier fakes, so that D does not forget what G did some steps ago (Shrivastava et al. 2017, Sec. 2.3)."""

from collections.abc import Mapping

import torch
from torch import Tensor


class ImagePool:
    """Up to ``size`` generated images.

    The rule, image by image: until the pool is full, an image is kept and returned. Then, with probability one half,
    a random kept image is returned instead and replaced by the new one; otherwise the new one is returned and not kept.

    Args:
        size: Images to keep; with 0 every image is returned as it is.
        shape: Shape of an image, (C, H, W).
        device: Device of the images.

    Reference: Zhu et al. 2017, Sec. 4 (50 images).

    Example:
        >>> pool = ImagePool(50, (3, 8, 8))
        >>> pool(torch.zeros(2, 3, 8, 8)).shape, pool.filled
        (torch.Size([2, 3, 8, 8]), 2)
    """

    def __init__(self, size: int, shape: tuple[int, int, int], device: torch.device | str = "cpu") -> None:
        self.size, self.filled = size, 0
        self.images = torch.zeros(size, *shape, device=device)

    @torch.no_grad()
    def __call__(self, fresh: Tensor) -> Tensor:
        """Return D's images for G's: [N, C, H, W] in and out, float32. Draws from torch's generator on the CPU."""
        if not self.size:
            return fresh
        shown = []
        for image in fresh.float():
            if self.filled < self.size:
                self.images[self.filled] = image
                self.filled += 1
                shown.append(image)
                continue
            index = int(torch.randint(self.size, ()))
            if torch.rand(()) < 0.5:
                shown.append(self.images[index].clone())
                self.images[index] = image
            else:
                shown.append(image)
        return torch.stack(shown).contiguous(memory_format=torch.channels_last)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the images, and how many there are."""
        return {"images": self.images, "filled": torch.tensor(self.filled, device=self.images.device)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: The images are of another number or shape.
        """
        if state["images"].shape != self.images.shape:
            raise ValueError(f"pool of {tuple(state['images'].shape)}, expected {tuple(self.images.shape)}")
        self.images.copy_(state["images"])
        self.filled = int(state["filled"])
