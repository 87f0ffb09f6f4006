"""How much detail an image has: its gradients, and the energy of the finest octaves of its spectrum.

Both are compared with the true images as a ratio of means over sets, 1 being as much detail as the truth. They need no
pairs and no network, and say what L1 and SSIM do not: whether an output is blurred (below 1), or noisy (above 1).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

OCTAVES = ("2_to_4_pixels", "4_to_8_pixels")  # wavelengths, the finest first
SMALLEST_SPECTRUM = 16  # pixels a side: two periods of the longest wavelength
SMALLEST_GRADIENT = 2  # pixels a side
_ROUNDING = 1e-10  # energy per pixel of a constant image in float32


def gradient_magnitude(images: Tensor) -> Tensor:
    """Compute the mean length of the gradient of each image, by differences of neighboring pixels.

    Args:
        images: [N, C, H, W] in [-1, 1], both sides of 2 pixels or more.

    Returns:
        [N] float32 per pixel; 0 for a constant image.

    Raises:
        ValueError: The shape does not fit.
    """
    _require_images(images, SMALLEST_GRADIENT)
    x = images.float()
    here = x[..., :-1, :-1]
    across, down = x[..., :-1, 1:] - here, x[..., 1:, :-1] - here  # [N, C, H - 1, W - 1] each
    return torch.hypot(across, down).mean(dim=(1, 2, 3))


def octave_energies(images: Tensor) -> Tensor:
    """Compute the mean energy of the two finest octaves of each image's spectrum, per pixel and channel.

    The finest octave has the wavelengths below 4 pixels, with the diagonal ones that are shorter than 2; the next those
    from 4 to 8 pixels. A Hann window, after the mean is subtracted, keeps the jump between opposite borders out of the
    fine frequencies. By Parseval's theorem an image's energies over all frequencies add up to the variance of its
    windowed pixels.

    Args:
        images: [N, C, H, W] in [-1, 1], both sides of 16 pixels or more.

    Returns:
        [N, 2] float32, the finest octave first.

    Raises:
        ValueError: The shape does not fit.
    """
    _require_images(images, SMALLEST_SPECTRUM)
    H, W = images.shape[-2:]
    x = images.float()
    window = _hann(H, x)[:, None] * _hann(W, x)  # [H, W]
    spectrum = torch.fft.fft2((x - x.mean(dim=(-2, -1), keepdim=True)) * window)
    energy = spectrum.abs().square().mean(dim=1) / (H * W * window.square().sum())  # [N, H, W]
    rows, columns = (torch.fft.fftfreq(side, device=x.device) for side in (H, W))  # cycles per pixel
    frequency = torch.hypot(rows[:, None], columns)  # [H, W]
    bands = (frequency > 1 / 4, (frequency > 1 / 8) & (frequency <= 1 / 4))
    return torch.stack([energy[:, band].sum(dim=1) for band in bands], dim=1)


def ratio(output: Sequence[float], target: Sequence[float]) -> float:
    """Return the mean of the outputs' values over that of the targets'; NaN if the targets have none.

    Args:
        output: One value per image, 0 or more.
        target: The same, of the true images.
    """
    total = math.fsum(target) / len(target)
    return math.fsum(output) / len(output) / total if total > _ROUNDING else math.nan


def _hann(side: int, like: Tensor) -> Tensor:
    return torch.hann_window(side, periodic=False, dtype=like.dtype, device=like.device)


def _require_images(images: Tensor, smallest: int) -> None:
    if images.ndim != 4 or min(images.shape[-2:]) < smallest:
        raise ValueError(
            f"images are {tuple(images.shape)}; expected [N, C, H, W] with sides of at least {smallest} pixels"
        )
