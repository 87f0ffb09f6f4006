"""Distances between sets of features, against formulas and loops that are written out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from ganvas.evaluation import distribution
from ganvas.evaluation.distribution import (
    density_coverage,
    frechet_distance,
    kernel_bias,
    kernel_distance,
    precision_recall,
)

BETWEEN_SETS = [frechet_distance, kernel_distance, precision_recall, density_coverage]
seeds = st.integers(0, 2**32 - 1)


def features(n, d, seed=0, scale=1.0, shift=0.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, scale, (n, d)))


def with_moments(n, mean, covariance, seed=0):
    """Samples whose own mean and covariance are exactly those that are given."""
    raw = np.random.default_rng(seed).standard_normal((n, len(mean)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(raw, rowvar=False)))).T
    return torch.from_numpy(white @ np.linalg.cholesky(covariance).T + mean)


def random_covariance(d, seed):
    factor = np.random.default_rng(seed).standard_normal((d, d))
    return factor @ factor.T + 0.1 * np.eye(d)


# --- Fréchet distance ---


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 12))
def test_frechet_distance_is_the_closed_form_between_gaussians(seed, d):
    first, second = random_covariance(d, seed), random_covariance(d, seed + 1)
    shift = np.random.default_rng(seed + 2).standard_normal(d)
    expected = shift @ shift + np.trace(first + second - 2 * sqrtm(first @ second).real)

    real = with_moments(40, np.zeros(d), first, seed)
    fake = with_moments(55, shift, second, seed + 3)
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6, abs=1e-8)
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_frechet_distance_with_fewer_images_than_features():
    real, fake = features(5, 40), features(7, 40, seed=1, shift=0.5)
    a, b = (each.numpy() for each in (real, fake))
    # √(C C') has the eigenvalues of the small matrix M Mᵀ, with M = X Yᵀ of the centered sets.
    cross = (a - a.mean(0)) @ (b - b.mean(0)).T / math.sqrt(4 * 6)
    trace = np.sqrt(np.linalg.eigvalsh(cross @ cross.T).clip(min=0)).sum()
    covariances = a.var(axis=0, ddof=1).sum() + b.var(axis=0, ddof=1).sum()
    expected = np.square(a.mean(0) - b.mean(0)).sum() + covariances - 2 * trace

    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)


@given(seeds, st.integers(2, 20), st.integers(1, 15))
@settings(max_examples=25, deadline=None)
def test_frechet_distance_is_zero_for_equal_sets_and_the_square_of_a_shift(seed, n, d):
    real = features(n, d, seed)
    assert 0 <= frechet_distance(real, real) < 1e-11
    assert frechet_distance(real, real + 3) == pytest.approx(9 * d, rel=1e-9)


def test_frechet_distance_to_one_image_repeated():
    real = features(30, 4)
    expected = real.var(dim=0).sum() + real.mean(dim=0).square().sum()
    assert frechet_distance(real, torch.zeros(30, 4)) == pytest.approx(float(expected), rel=1e-9)


# --- kernel distance ---


def mmd(x, y):
    """The unbiased estimator, pair by pair."""
    d = len(x[0])

    def kernel(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / d + 1) ** 3

    def within(points):
        pairs = [(i, j) for i in range(len(points)) for j in range(len(points)) if i != j]
        return sum(kernel(points[i], points[j]) for i, j in pairs) / len(pairs)

    between = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * between


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(2, 9), st.integers(1, 5))
def test_kernel_distance_is_the_mean_over_pairs(seed, n, d):
    real, fake = features(n, d, seed), features(n, d, seed + 1, shift=0.5)
    assert kernel_distance(real, fake) == pytest.approx(mmd(real.tolist(), fake.tolist()), rel=1e-9, abs=1e-9)


def test_bias_of_the_kernel_distance_is_what_equal_images_add():
    x, y = (np.random.default_rng(seed).normal(size=(6, 3)) for seed in (0, 1))

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    biased = sum(
        sign * np.mean([kernel(a, b) for a in first for b in second])
        for sign, first, second in ((1, x, x), (1, y, y), (-2, x, y))
    )
    x, y = map(torch.from_numpy, (x, y))
    assert kernel_distance(x, y) + kernel_bias(x) + kernel_bias(y) == pytest.approx(biased, rel=1e-9)


def test_subsets_approximate_the_full_set_and_repeat():
    real, fake = features(400, 3), features(300, 3, seed=1, shift=0.5)
    whole = mmd(real.tolist(), fake.tolist())
    by_subsets = kernel_distance(real, fake, subsets=200, subset_size=100)

    assert whole * 0.9 < by_subsets < whole * 1.1
    assert by_subsets == kernel_distance(real, fake, subsets=200, subset_size=100)
    assert by_subsets != kernel_distance(real, fake, subsets=200, subset_size=100, seed=1)
    assert by_subsets != pytest.approx(whole, rel=1e-9)


def test_kernel_distance_has_no_bias():
    values = [kernel_distance(features(20, 3, 2 * seed), features(20, 3, 2 * seed + 1)) for seed in range(400)]
    error = np.std(values) / math.sqrt(len(values))

    assert abs(np.mean(values)) < 4 * error
    assert 0.2 < np.mean(np.array(values) < 0) < 0.8


# --- balls around neighbors ---


def radius(points, i, k):
    return sorted(math.dist(points[i], other) for j, other in enumerate(points) if j != i)[k - 1]


def balls(points, others, k):
    """For each of the points, which balls around the others it lies in."""
    radii = [radius(others, i, k) for i in range(len(others))]
    return [[math.dist(point, other) <= r for other, r in zip(others, radii, strict=True)] for point in points]


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 14), st.integers(1, 4), st.integers(1, 5), st.floats(-2, 2))
def test_precision_and_recall_are_counted_ball_by_ball(seed, n, d, k, shift):
    n = max(n, k + 1)
    real, fake = features(n, d, seed), features(n, d, seed + 1, shift=shift)
    precision = np.mean([any(row) for row in balls(fake.tolist(), real.tolist(), k)])
    recall = np.mean([any(row) for row in balls(real.tolist(), fake.tolist(), k)])

    assert precision_recall(real, fake, k) == pytest.approx((precision, recall))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 14), st.integers(1, 14), st.integers(1, 4), st.integers(1, 5), st.floats(-2, 2))
def test_density_and_coverage_are_counted_ball_by_ball(seed, n, m, d, k, shift):
    real, fake = features(max(n, k + 1), d, seed), features(m, d, seed + 1, shift=shift)
    inside = np.array(balls(fake.tolist(), real.tolist(), k))

    density, coverage = density_coverage(real, fake, k)
    assert density == pytest.approx(inside.sum() / (k * m))
    assert coverage == pytest.approx(inside.any(axis=0).mean())


def test_the_papers_neighbors_are_the_default():
    real, fake = features(60, 3), features(60, 3, seed=1, shift=0.8)
    assert precision_recall(real, fake) == precision_recall(real, fake, 3) != precision_recall(real, fake, 4)
    assert density_coverage(real, fake) == density_coverage(real, fake, 5) != density_coverage(real, fake, 4)


def test_chunks_change_nothing(monkeypatch):
    real, fake = features(50, 4), features(50, 4, seed=1, shift=0.5)
    whole = precision_recall(real, fake), density_coverage(real, fake)
    monkeypatch.setattr(distribution, "_ROWS_AT_A_TIME", 7)
    assert (precision_recall(real, fake), density_coverage(real, fake)) == whole


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("shift", [0, 1000])
def test_a_set_covers_itself(k, shift):
    """Each ball holds its center and k neighbors, the last one on its surface, where rounding must not decide."""
    real = features(300, 128, shift=shift)
    assert precision_recall(real, real, k) == (1, 1)
    assert density_coverage(real, real.clone(), k) == ((k + 1) / k, 1)


def test_copies_of_one_image_are_neighbors():
    one = features(1, 128, seed=1, shift=5.0)
    real, collapsed = features(200, 128), one.repeat(200, 1)
    assert precision_recall(collapsed, collapsed) == (1, 1)
    assert precision_recall(real, collapsed) == (0, 0)
    assert precision_recall(collapsed, collapsed + 1e-3) == (0, 0)


def test_dropped_modes_lower_recall_and_bad_images_precision():
    real = torch.cat([features(100, 4), features(100, 4, seed=1, shift=50)])
    half = torch.cat([features(100, 4, seed=2), features(100, 4, seed=3)])
    wide = torch.cat([features(100, 4, seed=2), features(100, 4, seed=3, shift=500)])

    precision, recall = precision_recall(real, half)
    density, coverage = density_coverage(real, half)
    assert 0.85 < precision <= 1
    assert 0.4 < recall <= 0.5
    assert 0.75 < density < 1.3
    assert 0.4 < coverage <= 0.5

    assert 0.42 < precision_recall(real, wide)[0] <= 0.5
    assert 0.35 < density_coverage(real, wide)[0] < 0.65


# --- bad input ---

NAN, INF = torch.full((9, 2), math.nan), torch.tensor([[0.0, math.inf]] * 9)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (torch.zeros(9, 3), torch.zeros(9, 4), r"expected \[n, d\] and \[m, d\]"),
        (torch.zeros(9), torch.zeros(9), r"expected \[n, d\] and \[m, d\]"),
        (torch.zeros(9, 3, 1), torch.zeros(9, 3, 1), r"expected \[n, d\] and \[m, d\]"),
        (torch.zeros(9, 2), NAN, "fake has features that are not finite"),
        (INF, torch.zeros(9, 2), "real has features that are not finite"),
        (torch.zeros(1, 2), torch.zeros(9, 2), "real has 1 images; at least"),
        (torch.zeros(9, 2), torch.zeros(0, 2), "fake has 0 images; at least"),
    ],
)
@pytest.mark.parametrize("distance", BETWEEN_SETS)
def test_bad_features_are_refused(distance, real, fake, message):
    with pytest.raises(ValueError, match=message):
        distance(real, fake)


@pytest.mark.parametrize(
    ("distance", "sizes", "arguments", "message"),
    [
        (frechet_distance, (9, 1), {}, "fake has 1 images; at least 2"),
        (kernel_distance, (9, 1), {}, "fake has 1 images; at least 2"),
        (kernel_distance, (9, 9), {"subsets": 0}, "at least 1 and 2 are needed"),
        (kernel_distance, (9, 9), {"subset_size": 1}, "at least 1 and 2 are needed"),
        (precision_recall, (3, 3), {}, "real has 3 images; at least 4"),
        (precision_recall, (9, 8), {}, "real has 9 images and fake 8"),
        (precision_recall, (9, 9), {"k": 0}, "k is 0; at least 1"),
        (density_coverage, (5, 9), {}, "real has 5 images; at least 6"),
        (density_coverage, (9, 9), {"k": 0}, "k is 0; at least 1"),
    ],
)
def test_bad_arguments_are_refused(distance, sizes, arguments, message):
    with pytest.raises(ValueError, match=message):
        distance(*(torch.zeros(size, 2) for size in sizes), **arguments)


def test_fewest_images_are_enough():
    assert precision_recall(features(4, 2), features(4, 2)) == (1, 1)
    assert density_coverage(features(6, 2), features(1, 2, shift=1e6)) == (0, 0)


@pytest.mark.parametrize("distance", BETWEEN_SETS)
def test_single_precision_is_computed_in_double(distance):
    real, fake = features(40, 5).float(), features(40, 5, seed=1).float()
    assert distance(real, fake) == distance(real.double(), fake.double())
