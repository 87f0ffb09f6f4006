import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganvas.errors import UserError
from pix2pix.baseline import MedianColors

PALETTE = {"land": [240, 235, 220], "water": [150, 190, 230]}


def draw_map(land):
    return np.where(np.asarray(land)[..., None], PALETTE["land"], PALETTE["water"]).astype(np.uint8)


def fit(sources, targets, palette=PALETTE):
    baseline = MedianColors(palette)
    for source, target in zip(sources, targets, strict=True):
        baseline.add(source, target)
    return baseline


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_colors_are_the_medians_of_the_classes_over_all_images(seed, channels):
    rng = np.random.default_rng(seed)
    land = [rng.random((6, width)) < 0.4 for width in (5, 3, 4)]
    targets = [rng.integers(0, 256, (*each.shape, channels), dtype=np.uint8) for each in land]
    pixels, is_land = (np.concatenate([each.reshape(-1, n) for each in x]) for x, n in ((targets, channels), (land, 1)))
    for color, mask in zip(fit(map(draw_map, land), targets).colors(), (is_land[:, 0], ~is_land[:, 0]), strict=True):
        expected = np.median(pixels[mask] if mask.any() else pixels, axis=0)
        np.testing.assert_array_equal(color, np.rint(expected))


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1.0)])
def test_sources_of_any_depth_are_painted_by_class(dtype, full):
    land = [[True, True, False]]
    source = (draw_map(land) / 255 * full).astype(dtype)
    baseline = fit([source], [np.array([[[10, 1], [30, 1], [200, 2]]], np.uint8)])
    predicted = baseline.predict(source)
    assert predicted.dtype == np.uint8
    assert predicted.tolist() == [[[20, 1], [20, 1], [200, 2]]]


def test_lines_belong_to_the_class_they_resemble():
    baseline = fit([draw_map([[True, False]])], [np.array([[[1], [2]]], np.uint8)])
    lines = np.array([[[230, 230, 225], [140, 170, 240], [0, 0, 255]]], np.uint8)
    assert baseline.predict(lines)[..., 0].tolist() == [[1, 2, 2]]


def test_a_class_without_pixels_has_the_median_of_all():
    baseline = fit([draw_map([[True, True, True]])], [np.array([[[10], [20], [90]]], np.uint8)])
    assert baseline.colors().tolist() == [[20], [20]]


@pytest.mark.parametrize("palette", [{}, {"land": [1, 2]}, {"land": [1, 2, 256]}, {"land": 5}, {"land": "red"}])
def test_a_palette_without_colors_is_refused(palette):
    with pytest.raises(UserError, match="legend"):
        MedianColors(palette)


def test_gray_sources_are_refused():
    with pytest.raises(UserError, match="1 channels"):
        fit([np.zeros((1, 1, 1), np.uint8)], [np.zeros((1, 1, 3), np.uint8)])
