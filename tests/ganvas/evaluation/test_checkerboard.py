"""The energy of a grid of dots, against Fourier sums and networks that draw one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganvas.evaluation.checkerboard import checkerboard_energy
from ganvas.nn.init import initialize_weights
from ganvas.nn.resnet import ResNetGenerator

seeds = st.integers(0, 2**32 - 1)


def noise(n, *shape, seed=0, top=256):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, top, (n, *shape), dtype=np.uint8))


def in_band(k, side):
    """Whether frequency k of a side is near 0, and near π, by angles."""
    angle = abs((2 * math.pi * k / side + math.pi) % (2 * math.pi) - math.pi)
    return angle <= math.pi / 8 + 1e-9, math.pi - angle <= math.pi / 8 + 1e-9


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 9), st.integers(2, 9), st.integers(1, 3))
def test_checkerboard_energy_is_a_share_of_the_fourier_sum(seed, H, W, C):
    images = noise(2, C, H, W, seed=seed)
    fine = total = 0.0
    for channel in images.flatten(0, 1).double().numpy():
        for ky in range(H):
            for kx in range(W):
                if ky or kx:
                    y, x = np.mgrid[:H, :W]
                    energy = abs((channel * np.exp(-2j * np.pi * (ky * y / H + kx * x / W))).sum()) ** 2
                    (low_y, high_y), (low_x, high_x) = in_band(ky, H), in_band(kx, W)
                    fine += energy * ((low_y and high_x) or (high_y and low_x) or (high_y and high_x))
                    total += energy
    if total:
        assert checkerboard_energy(images) == pytest.approx(fine / total, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("size", "width"), [(16, 3), (28, 3), (32, 5), (48, 7), (64, 9)])
def test_white_noise_has_the_share_of_the_bands(size, width):
    """On the unit square of frequencies all are alike: the share is that of the frequencies in the three squares."""
    expected = 3 * width**2 / (size**2 - 1)
    assert expected * 0.85 < checkerboard_energy(noise(400, 1, size, size)) < expected * 1.15


@pytest.mark.parametrize("value", [0, 7, 255])
def test_flat_images_have_none(value):
    assert checkerboard_energy(torch.full((5, 3, 28, 28), value, dtype=torch.uint8)) == 0


def test_flat_images_and_brightness_do_not_change_the_share():
    images = noise(6, 1, 28, 28, top=100)
    value = checkerboard_energy(images)
    assert checkerboard_energy(torch.cat([images, torch.full((6, 1, 28, 28), 90, dtype=torch.uint8)])) == (
        pytest.approx(value, rel=1e-9)
    )
    assert checkerboard_energy(images + 100) == pytest.approx(value, rel=1e-9)


def test_a_transposed_convolution_of_uneven_overlap_shows():
    """3x3 with stride 2 covers pixels once, twice or four times; 4x4 covers all alike."""
    coarse = torch.nn.functional.avg_pool2d(torch.rand(20, 1, 64, 64, generator=torch.Generator().manual_seed(0)), 4)

    def drawn(kernel):
        weight = torch.ones(1, 1, kernel, kernel)
        values = torch.nn.functional.conv_transpose2d(coarse, weight, stride=2, padding=1)
        return (values / values.max() * 255).round().to(torch.uint8)

    assert checkerboard_energy(drawn(3)) > 0.5
    assert checkerboard_energy(drawn(4)) < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_blurred_resampling_draws_less_of_a_grid_than_transposed_convolutions(seed):
    """Networks with random weights of the training's start, on smooth images; on flat images, too."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(4, 3, 8, 8, generator=rng) * 2 - 1
    smooth = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic").clamp(-1, 1)

    def drawn(**options):
        network = ResNetGenerator(base_channels=16, num_blocks=2, **options)
        initialize_weights(network, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            output = network(smooth)
        stretched = (output - output.amin()) / (output.amax() - output.amin())
        return checkerboard_energy((stretched * 255).round().to(torch.uint8))

    blurred, transposed = drawn(resampling="blur"), drawn(upsampling="transpose")
    assert transposed > 0.01
    assert blurred < transposed / 4


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (4, 4)])
def test_empty_sets_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \[n, C, H, W\]"):
        checkerboard_energy(torch.zeros(shape, dtype=torch.uint8))
