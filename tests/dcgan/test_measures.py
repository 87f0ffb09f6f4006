"""Measures of drawn digits, against formulas, loops and scipy's labelled spots."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label as connected
from scipy.stats import entropy

from dcgan import measures
from dcgan.measures import (
    class_coverage,
    label_entropy,
    near_copies,
    speckle,
    within_class_diversity,
)

histograms = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any)
seeds = st.integers(0, 2**32 - 1)


def labels_of(counts):
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def noise(n, *shape, seed=0, top=256):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, top, (n, *shape), dtype=np.uint8))


def draw(*rows):
    """A image [1, 1, H, W] from rows of text: # is white."""
    return torch.tensor([[[[255 * (pixel == "#") for pixel in row] for row in rows]]], dtype=torch.uint8)


# --- labels ---


@given(histograms)
def test_label_entropy_by_the_formula(counts):
    assert label_entropy(labels_of(counts), len(counts)) == pytest.approx(entropy(counts, base=2), abs=1e-12)


@given(histograms, st.sampled_from([0.01, 0.02, 0.1, 0.3]))
def test_class_coverage_counts_classes(counts, share):
    expected = sum(count / sum(counts) >= share for count in counts)
    assert class_coverage(labels_of(counts), len(counts), share) == expected


@pytest.mark.parametrize("n", [50, 150, 1050, 10_000])
def test_the_threshold_is_two_percent(n):
    enough = n // 50
    assert class_coverage(labels_of([n - enough, enough]), 10) == 2
    assert class_coverage(labels_of([n - enough + 1, enough - 1]), 10) == 1


@pytest.mark.parametrize("figure", [label_entropy, class_coverage])
@pytest.mark.parametrize(
    ("labels", "message"),
    [([], "no labels"), ([0, 10], "labels are 0 to 10; allowed are 0 to 9"), ([-1, 3], "labels are -1 to 3")],
)
def test_labels_out_of_range(figure, labels, message):
    with pytest.raises(ValueError, match=message):
        figure(torch.tensor(labels, dtype=torch.int64), 10)


# --- diversity within a class ---


def mean_distance(points):
    return np.mean([math.dist(a, b) for a, b in combinations(points.flatten(1).tolist(), 2)])


def test_diversity_by_the_formula():
    real, fake = noise(40, 1, 4, 4), noise(30, 1, 4, 4, seed=1, top=100)
    real_labels, fake_labels = torch.arange(40) % 3, labels_of([18, 10, 2])
    ratios = [mean_distance(fake[fake_labels == c]) / mean_distance(real[real_labels == c]) for c in range(3)]
    expected = np.average(ratios, weights=[18, 10, 2])

    assert within_class_diversity(real, real_labels, fake, fake_labels) == pytest.approx(expected, rel=1e-5)


def test_one_image_per_class_has_no_diversity():
    real, labels = noise(40, 1, 6, 6), torch.arange(40) % 4
    assert within_class_diversity(real, labels, real[:4].repeat(10, 1, 1, 1), labels) == 0
    assert within_class_diversity(real, labels, real, labels) == 1


def test_few_outliers_do_not_hide_a_collapse():
    real, real_labels = noise(400, 1, 6, 6), torch.arange(400) % 10
    odd = noise(18, 1, 6, 6, seed=1)  # two in each of the other classes, as different as real ones
    fake = torch.cat([real[:1].repeat(382, 1, 1, 1), odd])
    value = within_class_diversity(real, real_labels, fake, labels_of([382, *[2] * 9]))
    assert 0.03 < value < 0.06  # 18 of 400


def test_diversity_is_not_defined_without_pairs():
    real, fake = noise(4, 1, 3, 3), noise(4, 1, 3, 3, seed=1)
    each_its_own, same = torch.arange(4), torch.zeros(4, dtype=torch.int64)
    assert math.isnan(within_class_diversity(real, same, fake, each_its_own))
    assert math.isnan(within_class_diversity(real, each_its_own, fake, same))
    assert math.isnan(within_class_diversity(real[:1].repeat(4, 1, 1, 1), same, fake, same))


def test_diversity_needs_a_label_for_each_image():
    four, three = torch.zeros(4, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="fake has 4 images and 3 labels"):
        within_class_diversity(noise(4, 1, 3, 3), four, noise(4, 1, 3, 3), three)


# --- near-copies ---


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(1, 20), st.integers(1, 20), st.integers(1, 20))
def test_near_copies_are_counted_by_exact_distances(seed, n, m, k):
    train, test, fake = (noise(c, 1, 4, 5, seed=seed + i) for i, c in enumerate((n, m, k)))

    def nearest(images):
        points = train.flatten(1).tolist()
        return [min(math.dist(one, other) for other in points) for one in images.flatten(1).tolist()]

    threshold = np.quantile(nearest(test), 0.05)
    ambiguous = [d for d in nearest(fake) if abs(d - threshold) < 1e-9]
    if not ambiguous:
        assert near_copies(train, test, fake) == pytest.approx(np.mean(np.array(nearest(fake)) <= threshold))


def test_copies_are_found(monkeypatch):
    monkeypatch.setattr(measures, "_ROWS_AT_A_TIME", 33)
    train, test, strange = (noise(200, 1, 28, 28, seed=seed) for seed in range(3))
    assert near_copies(train, test, train) == 1
    assert near_copies(train, test, train.clip(1)) == 1
    assert near_copies(train, test, test) == pytest.approx(0.05)
    assert near_copies(train, test, 255 * (strange > 127)) == 0
    assert near_copies(train, test, torch.cat([train[:50], 255 * (strange[:150] > 127)])) == 0.25


def test_with_labels_each_class_has_its_own_threshold():
    """Class 0 is plain, and all of it lies near to some of it; class 1 is noise."""
    plain, loud = noise(2000, 1, 6, 6, top=50), noise(2000, 1, 6, 6, seed=1)
    train, test = torch.cat([plain[:1000], loud[:1000]]), torch.cat([plain[1000:], loud[1000:]])
    test_labels = torch.arange(2000) // 1000
    more = noise(1000, 1, 6, 6, seed=2, top=50)  # plain ones, and no copies
    zeros = torch.zeros(1000, dtype=torch.long)
    assert near_copies(train, test, more) == pytest.approx(0.10, abs=0.03)
    assert near_copies(train, test, more, test_labels=test_labels, fake_labels=zeros) == pytest.approx(0.05, abs=0.02)
    copies = loud[:100] ^ 1
    assert near_copies(train, test, copies, test_labels=test_labels, fake_labels=zeros[:100] + 1) == 1
    with pytest.raises(ValueError, match="go together"):
        near_copies(train, test, more, test_labels=test_labels)


def test_copies_count_even_if_test_images_are_copies():
    train = noise(50, 1, 28, 28)
    assert near_copies(train, train, train) == 1
    assert near_copies(train, train, train ^ 1) == 0


def test_distance_to_a_copy_is_exactly_zero():
    """Sums of squares of large bright images are beyond float32's whole numbers; distances must not show it."""
    train = noise(20, 3, 64, 64) | 0xC0
    assert measures._nearest(train, train).tolist() == [0] * 20
    changed = train.clone()
    changed[:, 0, 0, 0] ^= 1
    assert measures._nearest(changed, train).tolist() == [1] * 20


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 1, 4, 4), (2, 1, 4, 4), (0, 1, 4, 4)],
        [(0, 1, 4, 4), (2, 1, 4, 4), (2, 1, 4, 4)],
        [(2, 1, 4, 4), (2, 1, 4, 4), (2, 1, 2, 8)],
    ],
)
def test_near_copies_need_images_of_one_size(shapes):
    with pytest.raises(ValueError, match="expected images of one size"):
        near_copies(*(torch.zeros(shape, dtype=torch.uint8) for shape in shapes))


# --- speckle ---


@pytest.mark.parametrize(
    ("drawing", "stray"),
    [
        (["....", "....", "...."], 0),
        ([".#..", "....", "...."], 1),
        (["##..", "....", "...."], 2),
        (["#...", ".#..", "...."], 2),
        (["#..#", "....", "#..#"], 4),
        (["##..", "...#", "...#"], 4),
        (["##.#", "....", "...#"], 4),
        (["###.", "....", "...."], 0),
        (["#...", ".#..", "..#."], 0),
        (["##..", "##..", "...#"], 1),
        (["#.#.", ".#..", "...."], 0),
    ],
)
def test_stray_pixels_are_in_spots_of_one_or_two(drawing, stray):
    assert speckle(draw(*drawing)) == stray


@settings(max_examples=50, deadline=None)
@given(seeds, st.floats(0.02, 0.6), st.integers(1, 12), st.integers(1, 12))
def test_speckle_counts_the_pixels_of_small_spots(seed, share, height, width):
    bright = np.random.default_rng(seed).random((3, height, width)) < share
    stray = 0
    for each in bright:
        spots, _ = connected(each, structure=np.ones((3, 3)))
        stray += sum(size for size in np.bincount(spots.ravel())[1:] if size <= 2)
    assert speckle(torch.from_numpy(bright[:, None] * np.uint8(255))) == pytest.approx(stray / 3)


def test_bright_is_half_of_white_in_any_channel():
    colors = torch.zeros(4, 3, 5, 5, dtype=torch.uint8)
    colors[0, 1, 2, 2], colors[1, 2, 2, 2], colors[2, :, 2, 2] = 128, 127, 127
    assert speckle(colors) == 0.25


def test_speckle_of_many_images_is_their_mean():
    one, none = draw("#..", "...", "..."), draw("...", "...", "...")
    assert speckle(torch.cat([one] * 900 + [none] * 1800)) == pytest.approx(1 / 3)


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (4, 4)])
def test_empty_sets_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \[n, C, H, W\]"):
        speckle(torch.zeros(shape, dtype=torch.uint8))
