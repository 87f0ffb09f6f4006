"""A pool of earlier fakes, so that D does not forget what G did some steps ago (Shrivastava et al. 2017, Sec. 2.3)."""

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Up to ``size`` generated images; a module, so that a checkpoint saves it like a network.

    The rule, image by image: until the pool is full, a image is kept and given back. Then, with probability one
    half, a random kept one is given in its place, and it takes that one's place; else it is given back and not kept.

    Args:
        size: Images to keep; 0 gives every image back.
        shape: Of a image, (C, H, W).

    Reference: Zhu et al. 2017, Sec. 4 (50 images).
    """

    pictures: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("pictures", torch.zeros(size, *shape))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self._count: int | None = None  # ``filled`` on the host, so that no step waits for the device
        self.register_load_state_dict_post_hook(_forget_count)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def forward(self, fresh: Tensor) -> Tensor:
        """Give D's images for G's: [N, C, H, W] in and out, float32. Draws from torch's generator on the CPU."""
        if not self.size:
            return fresh
        if self._count is None:
            self._count = int(self.filled)  # just built, or just read from a checkpoint
        given = []
        for picture in fresh.float():
            if self._count < self.size:
                self.pictures[self._count] = picture
                self._count += 1
                given.append(picture)
                continue
            place = int(torch.randint(self.size, ()))
            if torch.rand(()) < 0.5:
                given.append(self.pictures[place].clone())
                self.pictures[place] = picture
            else:
                given.append(picture)
        self.filled.fill_(self._count)
        return torch.stack(given).contiguous(memory_format=torch.channels_last)


def _forget_count(pool: nn.Module, incompatible_keys: object) -> None:
    pool._count = None  # type: ignore[assignment]
