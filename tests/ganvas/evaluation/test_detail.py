import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ganvas.evaluation.detail import gradient_magnitude, octave_energies, ratio


def random_images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def reference_gradient(image: np.ndarray) -> float:
    """Mean length of the gradient of [C, H, W], pixel by pixel."""
    C, H, W = image.shape
    lengths = [
        math.hypot(image[c, y, x + 1] - image[c, y, x], image[c, y + 1, x] - image[c, y, x])
        for c in range(C)
        for y in range(H - 1)
        for x in range(W - 1)
    ]
    return float(np.mean(lengths))


def reference_octaves(image: np.ndarray) -> list[float]:
    """Energies of [C, H, W] by wavelength below 4, and from 4 to 8 pixels, with NumPy's FFT in double precision."""
    _, H, W = image.shape
    window = np.outer(np.hanning(H), np.hanning(W))
    centered = image.astype(np.float64) - image.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    energy = np.abs(np.fft.fftshift(np.fft.fft2(centered * window), axes=(1, 2))) ** 2
    energy = energy.mean(axis=0) / (H * W) / (window**2).sum()
    y, x = np.meshgrid(np.arange(H) - H // 2, np.arange(W) - W // 2, indexing="ij")
    with np.errstate(divide="ignore"):
        wavelength = 1 / np.sqrt((y / H) ** 2 + (x / W) ** 2)
    return [energy[wavelength < 4].sum(), energy[(wavelength >= 4) & (wavelength < 8)].sum()]


@pytest.mark.parametrize("shape", [(3, 2, 2), (1, 9, 14), (3, 33, 16)])
def test_gradient_equals_its_formula(shape):
    images = random_images(2, *shape)
    expected = [reference_gradient(image) for image in images.double().numpy()]
    np.testing.assert_allclose(gradient_magnitude(images), expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 31, 48), (3, 65, 33)])
def test_octaves_equal_numpys(shape):
    images = random_images(2, *shape)
    expected = [reference_octaves(image) for image in images.numpy()]
    np.testing.assert_allclose(octave_energies(images), expected, rtol=2e-5)


@pytest.mark.parametrize(
    ("wavelength", "direction", "share"),
    [(3, 0, (1, 0)), (5.5, 0, (0, 1)), (5.5, 1, (0, 1)), (20, 0, (0, 0)), (2 * 2**0.5, 2, (1, 0))],
)
def test_a_wave_is_in_the_octave_of_its_length(wavelength, direction, share):
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    along = (x, y, (x + y) / 2**0.5)[direction]
    energies = octave_energies(torch.sin(2 * math.pi * along / wavelength)[None, None])[0]
    np.testing.assert_allclose(energies, 0.5 * np.array(share), atol=0.005)  # the variance of a wave is 1/2


def test_the_jump_between_opposite_borders_is_not_detail():
    ramp = torch.linspace(-1, 1, 128).expand(1, 1, 128, 128)
    energies = octave_energies(ramp)[0]
    assert energies.max() < 1e-5 * ramp.var()
    bare = torch.fft.fft2(ramp).abs().square()[0, 0, 0, 32:97].sum() / (128**2) ** 2
    assert bare > 1e-3 * ramp.var()  # what it would be without a window


def test_blur_lowers_both_and_noise_raises_them():
    truth = torch.from_numpy(gaussian_filter(random_images(1, 3, 64, 64).numpy(), (0, 0, 1, 1)))
    blurred = torch.from_numpy(gaussian_filter(truth.numpy(), (0, 0, 1, 1)))
    noisy = truth + 0.2 * random_images(1, 3, 64, 64, seed=1)
    for measure in (gradient_magnitude, lambda image: octave_energies(image)[:, 0]):
        assert 0 < measure(blurred).item() < 0.8 * measure(truth).item()
        assert measure(noisy).item() > 1.1 * measure(truth).item()


def test_a_constant_image_has_no_detail():
    flat = torch.full((1, 3, 32, 32), 0.3)
    assert gradient_magnitude(flat).item() == 0
    assert octave_energies(flat).max() < 1e-12


def test_ratio_is_that_of_means():
    assert ratio([1.0, 3.0], [4.0]) == pytest.approx(0.5)
    assert math.isnan(ratio([1.0], [0.0, 0.0]))


@pytest.mark.parametrize(("measure", "side"), [(gradient_magnitude, 1), (octave_energies, 15)])
def test_too_small_images_are_refused(measure, side):
    with pytest.raises(ValueError, match="sides of at least"):
        measure(torch.zeros(1, 3, 40, side))
    with pytest.raises(ValueError, match="expected"):
        measure(torch.zeros(3, 40, 40))
