"""How much of the images' detail is a grid of dots, which generators draw and cameras do not (Odena et al. 2016)."""

import torch
from torch import Tensor

_ROUNDING = 1e-20  # spectral energy per pixel
_IMAGES_AT_A_TIME = 1000


def checkerboard_energy(images: Tensor) -> float:
    """Return the share of spectral energy at the highest frequencies, where stride-2 layers leave artifacts.

    These are the frequencies within π / 8, along each axis, of (0, π), (π, 0) or (π, π). The mean brightness of each
    image and channel is excluded. Real images have some energy there: compare with their value.

    Args:
        images: [n, C, H, W] uint8, n > 0.

    Returns:
        In [0, 1]; 0 for constant images.

    Raises:
        ValueError: There are no images.
    """
    if images.dim() != 4 or not len(images):
        raise ValueError(f"images are {tuple(images.shape)}; expected [n, C, H, W] with at least one")
    energy = torch.zeros(images.shape[-2:], dtype=torch.float64)  # [H, W]
    for part in images.split(_IMAGES_AT_A_TIME):
        x = part.double() / 255
        centered = x - x.mean(dim=(-2, -1), keepdim=True)
        energy += torch.fft.fft2(centered).abs().square().sum(dim=(0, 1)).cpu()
    (low_y, high_y), (low_x, high_x) = (_near_zero_and_pi(side) for side in energy.shape)
    fine = (low_y[:, None] & high_x) | (high_y[:, None] & low_x) | (high_y[:, None] & high_x)
    total = float(energy.sum())
    return float(energy[fine].sum()) / total if total > _ROUNDING * images.numel() else 0.0


def _near_zero_and_pi(side: int) -> tuple[Tensor, Tensor]:
    """Return which of the ``side`` frequencies 2π k / side, in FFT order, are within π / 8 of 0, and of π."""
    k = torch.arange(side)
    k = torch.minimum(k, side - k)  # 0 to side // 2: frequencies above π are negative ones
    return 16 * k <= side, 16 * k >= 7 * side
