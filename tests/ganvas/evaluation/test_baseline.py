import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ganvas.data.images import to_tensor
from ganvas.errors import UserError
from ganvas.evaluation.baseline import DomainColours, MedianColours, match_colours
from ganvas.evaluation.metrics import l1, sliced_wasserstein

LEGEND = {"land": [240, 235, 220], "water": [150, 190, 230]}


def drawn_map(land: np.ndarray) -> np.ndarray:
    return np.where(land[..., None], LEGEND["land"], LEGEND["water"]).astype(np.uint8)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 5), st.sampled_from([np.uint8, np.uint16]))
def test_no_other_colour_by_class_has_a_lower_l1(seed, channels, dtype):
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    sources = [drawn_map(rng.random((6, 5)) < 0.4) for _ in range(3)]
    targets = [rng.integers(0, top + 1, (6, 5, channels), dtype=dtype) for _ in range(3)]
    fitted = MedianColours.fit(sources, targets, LEGEND)

    def error(colours):
        guesses = [MedianColours(fitted.legend, colours).predict(source).astype(np.int64) for source in sources]
        return sum(np.abs(guess - target).sum() for guess, target in zip(guesses, targets, strict=True))

    best = error(fitted.colours)
    for _ in range(10):
        other = (fitted.colours + rng.integers(-top // 8, top // 8 + 1, (2, channels))).clip(0, top)
        assert best <= error(other)


def test_classes_are_kept_apart_over_all_pictures():
    land = [np.array([[True, True], [True, False]]), np.array([[False, True]])]
    targets = [np.array([[[10], [20]], [[90], [200]]], np.uint8), np.array([[[210], [30]]], np.uint8)]
    fitted = MedianColours.fit([drawn_map(each) for each in land], targets, LEGEND)

    assert fitted.colours.tolist() == [[25], [205]]  # of 10 20 30 90 and of 200 210
    np.testing.assert_array_equal(fitted.predict(drawn_map(np.array([[True, False]]))), [[[25], [205]]])


def test_lines_belong_to_the_class_they_resemble():
    source = np.array([[[230, 230, 225], [140, 170, 240], [0, 0, 255]]], np.uint8)
    predicted = MedianColours(np.array(list(LEGEND.values()), np.uint8), np.array([[1], [2]], np.uint8)).predict(source)
    assert predicted[..., 0].tolist() == [[1, 2, 2]]


@pytest.mark.parametrize(("dtype", "full"), [(np.uint16, 65535), (np.float32, 1.0)])
def test_sources_and_targets_of_other_depths(dtype, full):
    land = np.array([[True, False, False]])
    source = (drawn_map(land).astype(np.float64) / 255 * full).astype(dtype)
    target = np.array([[[0.25, 0.5], [0.5, 1.0], [0.75, 0.0]]]) * full
    fitted = MedianColours.fit([source], [target.astype(dtype)], LEGEND)

    predicted = fitted.predict(source)
    assert predicted.dtype == dtype
    assert predicted.shape == (1, 3, 2)
    np.testing.assert_allclose(predicted[0, 0] / full, [0.25, 0.5], atol=1e-4)
    np.testing.assert_allclose(predicted[0, 1] / full, [0.625, 0.5], atol=1e-4)


def test_a_class_without_pixels_takes_the_median_of_all():
    target = np.array([[[10], [20], [90]]], np.uint8)
    fitted = MedianColours.fit([drawn_map(np.array([[True, True, True]]))], [target], LEGEND)
    assert fitted.colours.tolist() == [[20], [20]]


def test_patch_statistics_catch_it_where_l1_does_not():
    """The reason for the metric: a sharp stranger is farther in L1, and much nearer in its patches."""
    rng = np.random.default_rng(0)
    land = [rng.random((4, 4)).repeat(8, axis=0).repeat(8, axis=1) < 0.5 for _ in range(32)]
    tones = [np.where(each, 150, 60)[..., None] + rng.normal(0, 25, (32, 32, 3)) for each in land]
    targets = [tone.clip(0, 255).astype(np.uint8) for tone in tones]
    strangers = [(np.where(each, 150, 60)[..., None] + rng.normal(0, 25, (32, 32, 3))).clip(0, 255) for each in land]
    fitted = MedianColours.fit([drawn_map(each) for each in land], targets, LEGEND)

    truth, flat, sharp = (
        torch.stack([to_tensor(np.asarray(picture, np.uint8)) for picture in pictures])
        for pictures in (targets, [fitted.predict(drawn_map(each)) for each in land], strangers)
    )
    assert l1(flat, truth).mean() < 0.8 * l1(sharp, truth).mean()
    assert sliced_wasserstein(sharp, truth).mean < 0.25 * sliced_wasserstein(flat, truth).mean


@pytest.mark.parametrize(
    "legend", [{}, {"land": [1, 2]}, {"land": [1, 2, 3, 4]}, {"land": [1, 2, 256]}, {"land": 5}, {"land": "red"}]
)
def test_a_legend_without_colours_is_refused(legend):
    with pytest.raises(UserError, match="legend"):
        MedianColours.fit([drawn_map(np.ones((1, 1), bool))], [np.zeros((1, 1, 3), np.uint8)], legend)


def test_matched_colours_have_the_other_domains_mean_and_deviation():
    chance = torch.Generator().manual_seed(0)
    dark, light = (
        [torch.randn(3, 20, 10 + n, generator=chance) * spread + mean for n in range(4)]
        for mean, spread in ((-0.3, 0.1), (0.2, 0.05))
    )
    source, target = DomainColours.of(dark), DomainColours.of(light)
    moved = torch.cat([match_colours(picture, source, target).flatten(1) for picture in dark], dim=1)
    wanted = torch.cat([picture.flatten(1) for picture in light], dim=1)
    torch.testing.assert_close(moved.mean(dim=1), wanted.mean(dim=1), rtol=0, atol=1e-5)
    torch.testing.assert_close(moved.std(dim=1), wanted.std(dim=1), rtol=0, atol=1e-5)
    assert torch.equal(target.flat(dark[1])[:, 3, 4], wanted.median(dim=1).values)
    assert target.flat(dark[1]).shape == (3, 20, 11)


def test_matched_colours_stay_in_range_and_flat_domains_do_not_divide_by_zero():
    flat = DomainColours.of([torch.full((1, 4, 4), 0.5)])
    wide = DomainColours.of([torch.tensor([[[-1.0, 1.0]]])])
    assert match_colours(torch.full((1, 2, 2), 0.5), flat, wide).eq(0).all()
    assert match_colours(torch.ones(1, 2, 2), flat, wide).eq(1).all()


@pytest.mark.parametrize("pictures", [[], [torch.zeros(1, 2, 2), torch.zeros(3, 2, 2)]])
def test_colours_of_no_domain_are_refused(pictures):
    with pytest.raises(ValueError, match="expected some, all of as many channels"):
        DomainColours.of(pictures)


def test_grey_sources_are_refused():
    with pytest.raises(UserError, match="1 channels"):
        MedianColours.fit([np.zeros((1, 1, 1), np.uint8)], [np.zeros((1, 1, 3), np.uint8)], LEGEND)


@pytest.mark.parametrize("targets", [[], [np.zeros((2, 3, 3), np.uint8)]])
def test_pictures_that_do_not_correspond_are_refused(targets):
    with pytest.raises(ValueError, match="pairs"):
        MedianColours.fit([np.zeros((3, 2, 3), np.uint8)], targets, LEGEND)
