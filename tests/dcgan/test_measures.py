"""Figures of drawn digits on pictures whose figures are known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dcgan.data import load_pictures
from dcgan.measures import (
    checkerboard_energy,
    class_coverage,
    label_entropy,
    near_copies,
    speckle,
    within_class_diversity,
)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=200))
def test_entropy_against_its_sum(labels):
    shares = [labels.count(k) / len(labels) for k in set(labels)]
    expected = -sum(s * math.log2(s) for s in shares)
    assert label_entropy(torch.tensor(labels), 10) == pytest.approx(expected, abs=1e-9)


def test_entropy_of_even_digits_is_3_32_bits():
    assert label_entropy(torch.arange(1000) % 10, 10) == pytest.approx(3.3219, abs=1e-4)
    assert label_entropy(torch.ones(5, dtype=torch.long), 10) == 0


def test_coverage_counts_classes_from_2_percent_on():
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate((950, 20, 19, 11))])
    assert class_coverage(labels, 10) == 2
    assert class_coverage(labels, 10, share=0.011) == 4
    with pytest.raises(ValueError, match="no labels"):
        class_coverage(torch.tensor([], dtype=torch.long), 10)


def test_diversity_is_relative_to_real_pictures_of_the_class():
    chance = torch.Generator().manual_seed(0)
    real = torch.randn(60, 1, 4, 4, generator=chance)
    labels = torch.arange(60) % 3
    assert within_class_diversity(real, labels, real, labels) == pytest.approx(1)
    assert within_class_diversity(real, labels, 0.5 * real + 7, labels) == pytest.approx(0.5)
    assert within_class_diversity(real, labels, torch.ones_like(real), labels) == 0
    halved = torch.where((labels == 2)[:, None, None, None], 0.5 * real, real)
    assert within_class_diversity(real, labels, halved, labels) == pytest.approx((1 + 1 + 0.5) / 3)
    assert math.isnan(within_class_diversity(real, labels, real[:1], labels[:1]))


def test_copies_are_found_and_new_pictures_are_not():
    chance = torch.Generator().manual_seed(0)
    train, test = (torch.randint(0, 256, (n, 1, 8, 8), generator=chance).byte() for n in (300, 200))
    changed = train[:50].clone()
    changed[:, 0, 0, 0] ^= 3
    new = torch.randint(0, 256, (50, 1, 8, 8), generator=chance).byte()
    assert near_copies(train, test, changed) == 1
    assert near_copies(train, test, torch.cat([changed, changed, new, new])) == pytest.approx(0.5, abs=0.05)
    assert near_copies(train, test, test) == pytest.approx(0.05, abs=0.006)


def test_speckle_counts_pixels_in_spots_of_one_or_two():
    picture = torch.zeros(1, 1, 12, 12, dtype=torch.uint8)
    picture[0, 0, 1, 1] = 255  # alone: 1
    picture[0, 0, 4, 4] = picture[0, 0, 5, 5] = 128  # two that touch at a corner: 2
    picture[0, 0, 8:10, 8:10] = 200  # a stroke of 4: none
    picture[0, 0, 11, 0] = 127  # not bright
    assert speckle(picture) == 3
    assert speckle(torch.cat([picture, torch.zeros_like(picture)])) == 1.5
    colour = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    colour[0, 2, 3, 3] = 255
    assert speckle(colour) == 1


def test_checkerboard_energy_is_the_share_at_the_finest_frequencies():
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    board = (255 * ((x + y) % 2)).byte()[None, None]
    stripes = (255 * (x % 2)).byte()[None, None]
    slow = (128 + 60 * torch.cos(2 * math.pi * x / 8)).byte()[None, None]
    assert checkerboard_energy(board) == pytest.approx(1)
    assert checkerboard_energy(stripes) == pytest.approx(1)
    assert checkerboard_energy(slow) < 0.01
    assert checkerboard_energy(torch.full_like(slow, 77)) == 0
    # A wave of amplitude a beside one of amplitude b: the shares of a² and b².
    wave = 128 + 60 * torch.cos(2 * math.pi * x / 8) + 30 * torch.cos(math.pi * x)
    expected = 30**2 / (30**2 + 60**2 / 2)
    assert checkerboard_energy(wave.round().byte()[None, None]) == pytest.approx(expected, rel=0.02)


def test_real_digits_have_little_of_either():
    digits = load_pictures("mnist5k", "test").pictures
    assert speckle(digits) < 0.1
    assert 0 < checkerboard_energy(digits) < 0.01
