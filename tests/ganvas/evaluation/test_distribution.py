"""Distances between sets against closed forms and against sums over all pairs, written out."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from ganvas.evaluation.distribution import density_coverage, frechet_distance, kernel_distance, precision_recall


def normal(n, d=4, seed=0, shift=0.0, scale=1.0):
    return shift + scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 6), st.integers(0, 100))
def test_frechet_against_the_matrix_root(d, seed):
    real, fake = normal(50, d, seed), normal(40, d, seed + 1, shift=0.5, scale=2) @ normal(d, d, seed + 2)
    a, b = real.double().numpy(), fake.double().numpy()
    C, K = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    root = scipy.linalg.sqrtm(C @ K).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(C + K - 2 * root)
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_frechet_of_one_dimension_is_the_closed_form():
    """(m - m')² + (s - s')²."""
    real, fake = normal(5000, 1), normal(5000, 1, seed=1, shift=3.0, scale=2.0)
    expected = (real.mean() - fake.mean()) ** 2 + (real.std() - fake.std()) ** 2
    assert frechet_distance(real, fake) == pytest.approx(float(expected), rel=1e-5)
    assert 9 < expected < 11


def test_frechet_of_a_set_and_itself_is_nothing_also_where_the_covariance_is_singular():
    few = normal(5, 64)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(few, few + 1) == pytest.approx(64, rel=1e-6)


def mmd(x, y):
    """Gretton's unbiased estimate, pair by pair."""

    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_kernel_distance_against_all_pairs():
    real, fake = normal(12), normal(12, seed=1, shift=0.7)
    assert kernel_distance(real, fake, subsets=3) == pytest.approx(mmd(real.double(), fake.double()), rel=1e-6)


def test_kernel_distance_is_unbiased_and_sees_a_shift():
    same = [kernel_distance(normal(200, seed=s), normal(200, seed=s + 99), subsets=1) for s in range(30)]
    assert min(same) < 0 < max(same)
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(30)
    assert kernel_distance(normal(200), normal(200, seed=1, shift=1.0)) > 5 * max(same)


def test_kernel_distance_repeats_for_a_seed():
    real, fake = normal(60), normal(80, seed=1)
    first = kernel_distance(real, fake, subset_size=20, subsets=5)
    assert first == kernel_distance(real, fake, subset_size=20, subsets=5)
    assert first != kernel_distance(real, fake, subset_size=20, subsets=5, seed=1)


def kth(points, i, k):
    """Distance of point i to its k-th neighbour."""
    return sorted(float((points[i] - p).norm()) for j, p in enumerate(points) if j != i)[k - 1]


@given(st.integers(1, 4), st.integers(0, 200))
def test_precision_and_recall_against_all_pairs(k, seed):
    real, fake = normal(15, seed=seed).double(), normal(15, seed=seed + 1, shift=0.6).double()

    def inside(point, others):
        return any(float((point - o).norm()) <= kth(others, i, k) for i, o in enumerate(others))

    expected = (
        sum(inside(p, real) for p in fake) / 15,
        sum(inside(p, fake) for p in real) / 15,
    )
    assert precision_recall(real, fake, k) == pytest.approx(expected)


@given(st.integers(1, 4), st.integers(0, 200))
def test_density_and_coverage_against_all_pairs(k, seed):
    real, fake = normal(15, seed=seed).double(), normal(11, seed=seed + 1, shift=0.6).double()
    balls = [[float((f - r).norm()) <= kth(real, i, k) for i, r in enumerate(real)] for f in fake]
    density = sum(map(sum, balls)) / (k * 11)
    coverage = sum(any(column) for column in zip(*balls, strict=True)) / 15
    assert density_coverage(real, fake, k) == pytest.approx((density, coverage))


def test_what_the_figures_say():
    real = normal(2500, 8)
    assert precision_recall(real, real) == (1, 1)
    precision, recall = precision_recall(real, real[0] + 0.01 * normal(2500, 8, seed=1))  # one picture over and over
    assert precision > 0.95
    assert recall < 0.05
    assert precision_recall(real, normal(2500, 8, seed=1, shift=50.0)) == (0, 0)
    density, coverage = density_coverage(real, normal(2500, 8, seed=1))
    assert 0.9 < density < 1.1
    assert coverage > 0.95
    assert density_coverage(real, normal(100, 8, shift=50.0)) == (0, 0)


@pytest.mark.parametrize("figure", [frechet_distance, kernel_distance, precision_recall, density_coverage])
def test_what_does_not_fit_is_refused(figure):
    with pytest.raises(ValueError, match=r"expected \[n, d\] and \[m, d\]"):
        figure(normal(9, 3), normal(9, 4))
    with pytest.raises(ValueError, match="real has 1 pictures; at least"):
        figure(normal(1), normal(1))
    if figure is precision_recall:
        with pytest.raises(ValueError, match="real has 9 pictures and fake 8"):
            figure(normal(9), normal(8))
