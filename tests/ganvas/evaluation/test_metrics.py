import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import wasserstein_distance
from skimage.metrics import structural_similarity
from torch import Tensor

from ganvas.evaluation import metrics
from ganvas.evaluation.metrics import (
    PAIRED_METRICS,
    PatchSampler,
    bootstrap_interval,
    l1,
    ms_ssim,
    patch_count,
    patch_distance,
    psnr,
    sliced_wasserstein,
    ssim,
)


def random_images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def normal_images(*shape, seed=0):
    """Independent normal pixels, deviation 0.25."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 4


def blurred(images: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(gaussian_filter(images.numpy(), sigma=(0, 0, sigma, sigma), mode="mirror"))


# --- each image with its target ---


def test_l1_and_psnr_equal_their_formulas():
    output, target = random_images(3, 2, 9, 14), random_images(3, 2, 9, 14, seed=1)
    difference = (output - target).numpy().astype(np.float64).reshape(3, -1)

    np.testing.assert_allclose(l1(output, target), np.abs(difference).mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(psnr(output, target), 10 * np.log10(4 / np.square(difference).mean(axis=1)), rtol=1e-5)


def test_psnr_of_equal_images_is_finite():
    images = random_images(2, 3, 8, 8)
    assert psnr(images, images).tolist() == [100, 100]


def reference_ssim(output: np.ndarray, target: np.ndarray) -> float:
    """SSIM of [C, H, W] in [-1, 1] by scikit-image; it leaves out the border, so that is mirrored first."""
    a, b = (np.pad((x.astype(np.float64) + 1) / 2, [(0, 0), (5, 5), (5, 5)], mode="reflect") for x in (output, target))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    return float(structural_similarity(a, b, channel_axis=0, **options))


@pytest.mark.parametrize("size", [(11, 11), (24, 37)])
@pytest.mark.parametrize("offset", [-0.6, 0.0, 0.6])
def test_ssim_equals_scikit_image(size, offset):
    target = 0.4 * random_images(2, 2, *size) + offset
    output = target + 0.1 * random_images(2, 2, *size, seed=1)
    expected = [reference_ssim(*pair) for pair in zip(output.numpy(), target.numpy(), strict=True)]
    np.testing.assert_allclose(ssim(output, target), expected, atol=1e-4)


def test_ssim_of_one_texture_on_either_side_of_zero_is_near_one():
    """On [-1, 1] itself the luminance term would turn negative where two means differ in sign."""
    texture = 0.2 * random_images(1, 1, 32, 32)
    texture -= texture.mean()
    assert 0.98 < ssim(texture + 0.05, texture - 0.05).item() < 1


def test_ssim_mirrors_images_smaller_than_the_window():
    output, target = random_images(1, 1, 3, 20), random_images(1, 1, 3, 20, seed=1)
    rows = [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]

    assert ssim(output, target).item() == pytest.approx(ssim(output[:, :, rows], target[:, :, rows]).item(), abs=1e-6)


def test_ssim_of_single_pixels_is_the_luminance_term():
    output, target = torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), 0.25)
    c1 = 0.01**2
    assert ssim(output, target).item() == pytest.approx((2 * 0.75 * 0.625 + c1) / (0.75**2 + 0.625**2 + c1), abs=1e-4)


def reference_ms_ssim(output: np.ndarray, target: np.ndarray) -> float:
    """MS-SSIM of [C, H, W] in [-1, 1] by its formula (Wang et al. 2003, Eq. 7), with SciPy's Gaussian filter."""
    x, y = ((image.astype(np.float64) + 1) / 2 for image in (output, target))
    c1, c2, factors = 0.01**2, 0.03**2, []

    def mean(image):
        return gaussian_filter(image, sigma=(0, 1.5, 1.5), mode="mirror", truncate=3.5)

    for scale, exponent in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mx, my = mean(x), mean(y)
        vx, vy, covariance = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
        contrast = (2 * covariance + c2) / (vx + vy + c2)
        luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
        term = luminance * contrast if scale == 4 else contrast[:, 5:-5, 5:-5]
        factors.append(max(term.mean(), 0.0) ** exponent)
        C, H, W = x.shape
        halves = (image[:, : H // 2 * 2, : W // 2 * 2].reshape(C, H // 2, 2, W // 2, 2) for image in (x, y))
        x, y = (image.mean(axis=(2, 4)) for image in halves)
    return float(np.prod(factors))


@pytest.mark.parametrize("size", [(176, 176), (181, 215)])
def test_ms_ssim_equals_its_formula(size):
    target = blurred(random_images(2, 3, *size), 2.0) * 3
    output = 0.9 * target + 0.2 * random_images(2, 3, *size, seed=1)
    expected = [reference_ms_ssim(*pair) for pair in zip(output.numpy(), target.numpy(), strict=True)]
    assert 0.5 < min(expected) < max(expected) < 0.99
    np.testing.assert_allclose(ms_ssim(output, target), expected, atol=1e-5)


def test_ms_ssim_of_equal_images_is_one_and_small_images_are_refused():
    images = random_images(1, 1, 176, 176)
    assert ms_ssim(images, images).item() == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="both sides must have 176 pixels or more"):
        ms_ssim(images[..., :175], images[..., :175])


@pytest.mark.parametrize("metric", PAIRED_METRICS.values())
def test_an_image_scores_the_same_alone_and_in_a_batch(metric):
    output, target = random_images(4, 3, 176, 176), random_images(4, 3, 176, 176, seed=1)
    alone = [metric(output[i : i + 1], target[i : i + 1]).item() for i in range(4)]
    np.testing.assert_allclose(metric(output, target), alone, rtol=1e-5)


@pytest.mark.parametrize("metric", PAIRED_METRICS.values())
def test_half_precision_is_computed_in_float32(metric):
    output, target = (random_images(1, 1, 176, 176, seed=seed).bfloat16() for seed in (0, 1))
    scores = metric(output, target)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, metric(output.float(), target.float()))


@pytest.mark.parametrize("metric", PAIRED_METRICS.values())
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (1, 3, 8, 8), (3, 8, 8)])
def test_shapes_that_would_broadcast_are_refused(metric, shape):
    with pytest.raises(ValueError, match=r"output is \(2, 3, 8, 8\)"):
        metric(torch.zeros(2, 3, 8, 8), torch.zeros(shape))


# --- sets of images ---


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(7, 40), st.integers(7, 40), st.integers(0, 2**32))
def test_equal_sets_have_no_distance(count, channels, height, width, seed):
    images = random_images(count, channels, height, width, seed=seed)
    assert sliced_wasserstein(images, images, seed=seed, patches_per_image=8, directions=8).mean == 0


def test_levels_end_at_16_pixels():
    def sizes(height, width):
        images = random_images(1, 1, height, width)
        return list(sliced_wasserstein(images, images, patches_per_image=1, directions=1).levels)

    assert sizes(128, 128) == ["128x128", "64x64", "32x32", "16x16"]
    assert sizes(33, 70) == ["33x70", "17x35"]
    assert sizes(31, 300) == ["31x300"]
    assert sizes(16, 16) == ["16x16"]


@pytest.mark.parametrize("sizes", [(40, 40), (60, 40)])
def test_flat_images_reduce_to_one_dimension(sizes):
    """Patches of flat images lie on a line, where the distance is known.

    A direction w of the unit sphere in 49 dimensions sees the line shortened by |sum of w| / 7, on average
    Gamma(49 / 2) / (sqrt(pi) Gamma(50 / 2)).
    """
    rng = np.random.default_rng(0)
    first, second = rng.uniform(-0.5, 0.5, sizes[0]), rng.normal(0.2, 0.2, sizes[1])
    output, target = (
        torch.from_numpy(values).float().view(-1, 1, 1, 1).expand(-1, 1, 16, 16) for values in (first, second)
    )
    shortened = math.exp(math.lgamma(24.5) - math.lgamma(25)) / math.sqrt(math.pi)
    expected = 7 * shortened * wasserstein_distance(first, second) / second.std()

    measured = sliced_wasserstein(output, target, patches_per_image=4, directions=4096).mean
    assert 0.96 * expected < measured < 1.04 * expected


@pytest.mark.parametrize(("contrast", "expected"), [(0.0, 1.0), (0.5, 0.5), (2.0, 1.0)])
def test_contrast_counts_in_the_target_s_deviations(contrast, expected):
    """Projections of independent normal pixels are normal: |contrast - 1| sqrt(2 / pi) deviations of transport."""
    target = normal_images(200, 1, 16, 16)
    output = contrast * normal_images(200, 1, 16, 16, seed=1)

    expected *= math.sqrt(2 / math.pi)
    measured = sliced_wasserstein(output, target, patches_per_image=32).mean
    assert measured == pytest.approx(expected, rel=0.03)


def test_distance_grows_with_blur_and_is_largest_for_flat_images():
    target = blurred(normal_images(24, 3, 64, 64), 0.7)
    flat = target.mean(dim=(2, 3), keepdim=True).expand_as(target)
    candidates = [target, *(blurred(target, sigma) for sigma in (0.5, 1.0, 2.0, 4.0)), flat]

    distances = [sliced_wasserstein(candidate, target, patches_per_image=32) for candidate in candidates]
    for before, after in pairwise(distances):
        assert after.mean > before.mean + 0.02
        assert after.levels["64x64"] > before.levels["64x64"]


@pytest.mark.slow
def test_other_sharp_images_are_closer_than_blurred_own_ones():
    """What L1 prefers, this metric must not."""
    images = blurred(normal_images(80, 3, 64, 64), 0.7)
    target, other = images[:40], images[40:]
    smooth = blurred(target, 1.5)

    assert l1(smooth, target).mean() < 0.8 * l1(other, target).mean()
    assert sliced_wasserstein(other, target).mean < 0.25 * sliced_wasserstein(smooth, target).mean


def test_rounding_in_flat_images_is_no_distance():
    flat = torch.zeros(4, 3, 32, 32)
    rounded = flat + 1e-6 * random_images(4, 3, 32, 32)
    assert sliced_wasserstein(rounded, flat).mean < 1e-3


@pytest.mark.slow
def test_seed_decides_the_result_to_the_bit_and_changes_it_little():
    target = blurred(normal_images(30, 3, 64, 64), 0.7)
    output = blurred(target, 1.0)
    first = sliced_wasserstein(output, target, seed=3)
    distances = [sliced_wasserstein(output, target, seed=seed).mean for seed in range(4)]

    assert sliced_wasserstein(output, target, seed=3) == first
    assert len(set(distances)) == 4
    assert max(distances) < 1.05 * min(distances)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((2, 3, 16, 16), (2, 1, 16, 16), "must be"),
        ((2, 3, 16, 16), (2, 3, 16, 17), "must be"),
        ((3, 16, 16), (3, 16, 16), "must be"),
        ((0, 3, 16, 16), (2, 3, 16, 16), "at least one"),
        ((2, 3, 6, 16), (2, 3, 6, 16), "7 pixels"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        sliced_wasserstein(torch.zeros(first), torch.zeros(second))


def distance_of_all(output, target, seed=0, directions=128):
    """The sliced Wasserstein distance by level, of two sets that are held at once: the formula without streaming."""
    count, distances = 128 * min(len(output), len(target)), []
    for level, (a, b) in enumerate(zip(pyramid(output), pyramid(target), strict=True)):
        rng = np.random.default_rng([seed, level])
        top, left = rng.random((2, count))
        deviation, mean = torch.std_mean(b, dim=(0, 2, 3), correction=0, keepdim=True)
        points = []
        for band in (a, b):
            band = (band - mean) / deviation.clamp(min=1 / 255)
            N, _, H, W = band.shape
            places = np.stack([np.arange(count) * N // count, top * (H - 6), left * (W - 6)], axis=1).astype(int)
            points.append(torch.stack([band[i, :, y : y + 7, x : x + 7].flatten() for i, y, x in places]))
        vectors = torch.from_numpy(rng.standard_normal((directions, points[0].shape[1]), dtype=np.float32))
        vectors /= vectors.norm(dim=1, keepdim=True)
        x, y = ((vectors @ each.T).sort(dim=1).values for each in points)
        distances.append(float((x - y).abs().mean()))
    return distances


def pyramid(x):
    while min(x.shape[-2:]) >= 32:
        smaller = binomial(x)[..., ::2, ::2]
        spread = torch.zeros_like(x)
        spread[..., ::2, ::2] = smaller
        yield x - 4 * binomial(spread)
        x = smaller
    yield x


def binomial(x):
    kernel = torch.tensor([1, 4, 6, 4, 1]) / 16
    weight = (kernel[:, None] * kernel).expand(x.shape[1], 1, 5, 5)
    return torch.nn.functional.conv2d(
        torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect"), weight, groups=x.shape[1]
    )


def sampled(images, count, batch=1):
    sampler = PatchSampler(len(images), count)
    for part in images.split(batch):
        sampler.add(part)
    return sampler


@pytest.mark.parametrize(("sizes", "batch"), [((5, 5), 1), ((7, 3), 1), ((3, 8), 2)])
def test_a_streamed_set_has_the_distance_of_one_in_memory(sizes, batch):
    output, target = random_images(sizes[0], 3, 64, 70), normal_images(sizes[1], 3, 64, 70) + 0.2
    count = patch_count(*sizes)
    streamed = patch_distance(sampled(output, count, batch), sampled(target, count, batch))
    assert list(streamed.levels) == ["64x70", "32x35", "16x18"]
    np.testing.assert_allclose(list(streamed.levels.values()), distance_of_all(output, target), rtol=0, atol=1e-6)
    assert streamed.mean == pytest.approx(np.mean(list(streamed.levels.values())))
    assert streamed == sliced_wasserstein(output, target)


def test_patches_of_a_large_set_are_bounded_and_come_from_all_images(monkeypatch):
    monkeypatch.setattr(metrics, "MAX_PATCHES", 100)
    images = torch.arange(60.0).view(-1, 1, 1, 1).expand(-1, 1, 16, 16) / 60
    sampler = sampled(images, patch_count(60, 80))
    (level,) = sampler.levels
    assert len(level.patches) == 100
    assert level.patches[:, 0, 0, 0].unique().tolist() == images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("shapes", [[(3, 16, 16), (3, 16, 17)], [(3, 6, 16), (3, 6, 16)], [(3, 16, 16), (1, 16, 16)]])
def test_images_of_several_shapes_or_below_a_patch_have_no_distance(shapes):
    sampler, other = PatchSampler(2, 256), sampled(random_images(2, 3, 16, 16), 256)
    for shape in shapes:
        sampler.add(torch.zeros(1, *shape))
    assert patch_distance(sampler, other) is None
    assert patch_distance(other, sampler) is None


# --- intervals ---


@pytest.mark.parametrize(("level", "quantile"), [(0.95, 1.959964), (0.8, 1.281552)])
def test_interval_agrees_with_normal_theory(level, quantile):
    values = np.random.default_rng(0).normal(3, 2, size=500)
    interval = bootstrap_interval(values, level=level)
    half_width = quantile * values.std(ddof=1) / math.sqrt(500)

    assert interval.mean == pytest.approx(values.mean())
    assert 0.95 * half_width < interval.mean - interval.low < 1.05 * half_width
    assert 0.95 * half_width < interval.high - interval.mean < 1.05 * half_width


def test_paired_differences_detect_what_single_intervals_cannot():
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(0.05, 0.3, 100)
    first, second = difficulty + rng.normal(0, 0.01, 100), difficulty + 0.01 + rng.normal(0, 0.01, 100)

    assert bootstrap_interval(first).high > bootstrap_interval(second).low
    difference = bootstrap_interval(first - second)
    assert -0.02 < difference.low < difference.high < 0


@settings(max_examples=30)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30), st.floats(-1e3, 1e3))
def test_interval_is_within_the_values_and_shifts_with_them(values, shift):
    interval = bootstrap_interval(np.array(values), resamples=200)
    moved = bootstrap_interval(np.array(values) + shift, resamples=200)

    assert min(values) - 1e-6 <= interval.low <= interval.high <= max(values) + 1e-6
    assert moved.low == pytest.approx(interval.low + shift, abs=1e-6)
    assert moved.high == pytest.approx(interval.high + shift, abs=1e-6)


def test_interval_does_not_depend_on_the_memory_used(monkeypatch):
    values = np.random.default_rng(0).normal(size=37)
    whole = bootstrap_interval(values, resamples=1000)
    monkeypatch.setattr(metrics, "_VALUES_AT_A_TIME", 37 * 7)
    assert bootstrap_interval(values, resamples=1000) == whole
    assert bootstrap_interval(values, resamples=1000, seed=1) != whole


@pytest.mark.parametrize("values", [[], [0.25], [[1.0, 2.0]], [1.0, math.nan], [1.0, math.inf]])
def test_values_without_a_mean_are_refused(values):
    with pytest.raises(ValueError, match="expected"):
        bootstrap_interval(np.array(values))


@pytest.mark.parametrize("level", [0, 1, 95])
def test_level_is_a_probability(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_interval(np.array([1.0, 2.0]), level=level)
