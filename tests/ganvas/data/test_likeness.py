"""Figures by which images unlike those of a training are noticed, checked on tiles of the Earth and changed ones."""

import numpy as np
import pytest
import torch

from ganvas.data.likeness import FEWEST, LIMIT, SourceFigures, measure, measure_sources
from ganvas.errors import UserError


def tile(seed, channels=3):
    """A smooth image with sharp lines; all have common colors."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:24, :24] / 24
    waves = np.sin(2 * np.pi * (rng.random(2) @ np.stack([x.ravel(), y.ravel()])).reshape(24, 24) + rng.random())
    base = np.stack([0.3 + 0.2 * c / channels + 0.2 * waves for c in range(channels)])
    base[:, rng.integers(24)] = -0.5
    return torch.from_numpy(base).float()


SOURCES = measure_sources(tile, 100)


def test_figures_of_a_known_image():
    """Two channels: a checkerboard of -1 and 1, and zeros. All neighbors differ by 2 in the one, by 0 in the other."""
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    figures = measure(torch.stack([board, torch.zeros(2, 2)]))
    assert figures == pytest.approx([0, 0, 1, 0, np.log(1.02), np.log(1.02)], abs=1e-6)


def test_images_of_many_channels_have_common_figures():
    assert measure(tile(0, channels=4)).shape == (10,)
    assert measure(tile(0, channels=5)).shape == measure(tile(0, channels=200)).shape == (4,)
    assert np.isfinite(measure(torch.zeros(3, 1, 1))).all()


def test_distance_is_that_of_mahalanobis_over_the_farthest():
    images = torch.stack([tile(i) for i in range(100)])
    figures = np.stack([measure(image) for image in images])
    covariance = np.cov(figures.T) + 0.02**2 * np.eye(8)

    def distance(image):
        away = measure(image) - figures.mean(axis=0)
        return np.sqrt(away @ np.linalg.solve(covariance, away))

    expected = distance(tile(1000)) / max(map(distance, images))
    assert SOURCES.distance(tile(1000)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: -x,
        lambda x: x.mean(dim=0, keepdim=True).repeat(3, 1, 1),
        lambda x: x.flip(0),
        lambda x: 0.25 * x - 0.75,
        lambda x: x + 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
        lambda x: x.mean(dim=(1, 2), keepdim=True).expand(3, 24, 24),
    ],
    ids=["negative", "gray", "channels reversed", "dark", "noise", "flat"],
)
def test_other_images_are_far_and_like_images_are_not(change):
    """Held-out images stay below the limit; their changed copies are beyond it."""
    held_out = [tile(seed) for seed in range(500, 530)]
    assert max(map(SOURCES.distance, held_out)) < LIMIT < min(SOURCES.distance(change(image)) for image in held_out)


def test_unreadable_images_are_left_out_and_few_images_tell_nothing():
    def read(index):
        if index % 2:
            raise UserError("broken.")
        return tile(index)

    assert measure_sources(read, 2 * FEWEST) is not None
    assert measure_sources(read, 2 * FEWEST - 2) is None


def test_figures_of_other_channels_find_nothing():
    assert SOURCES.distance(tile(0, channels=1)) == 0
    assert SourceFigures(SOURCES.mean, SOURCES.precision[:1], 1.0).distance(tile(0)) == 0


def test_alike_training_images_allow_for_a_gray_level():
    """All training images are equal: two of 255 gray levels are no difference that counts."""
    sources = measure_sources(lambda index: torch.full((1, 8, 8), 0.5), FEWEST)
    assert sources.distance(torch.full((1, 8, 8), 0.5)) == pytest.approx(0, abs=1e-3)
    assert 0.1 < sources.distance(torch.full((1, 8, 8), 0.5 + 4 / 255)) < LIMIT
    assert sources.distance(torch.full((1, 8, 8), -0.5)) > LIMIT
