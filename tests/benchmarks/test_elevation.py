import colorsys

import numpy as np
import pytest

from benchmarks.elevation import chessboard, fit_table, measure, read_truth
from data_scripts.sets.earth_elevation import BINS, color_cells


def test_cells_are_those_of_the_standard_librarys_hsv():
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (6, 3))
    colors[:, 2] = colors[:, 2] // 4  # little blue: no water
    plain = np.repeat(colors[None, :, None], 40, axis=2).repeat(30, axis=0).reshape(30, -1, 3).astype(np.uint8)
    cells, is_water = color_cells(plain)
    assert not is_water.any()
    for index, color in enumerate(colors):
        hsv = colorsys.rgb_to_hsv(*color / 255)
        expected = [min(int(value * number), number - 1) for value, number in zip(hsv, BINS, strict=True)]
        assert np.unravel_index(cells[15, 40 * index + 20], BINS) == tuple(expected)


def test_cells_do_not_depend_on_the_strip():
    colors = np.random.default_rng(1).integers(0, 256, (640, 40, 3), dtype=np.uint8)
    cells, is_water = color_cells(colors)
    for found, shifted in zip((cells, is_water), color_cells(colors[50:]), strict=True):
        np.testing.assert_array_equal(found[70:], shifted[20:])


def test_water_leaves_the_color_of_the_shore_alone():
    land, water = (120, 180, 90), (130, 200, 240)
    colors = np.full((30, 60, 3), land, dtype=np.uint8)
    colors[:, 30:] = water
    cells, is_water = color_cells(colors)
    assert is_water[:, 30:].all() and not is_water[:, :30].any()
    assert len(np.unique(cells[:, :30])) == 1


def test_a_cell_has_the_mean_of_its_pixels_and_an_empty_one_that_of_the_nearest_also_across_red():
    cells = np.repeat(np.ravel_multi_index(([1, 36], [10, 10], [5, 5]), BINS), 20)
    truth = np.where(np.arange(40) < 20, 100.0, 900.0) + np.tile([-5, 5], 20)
    table = fit_table(cells, truth)
    assert table.shape == BINS
    assert table[1, 10, 5] == pytest.approx(100) and table[36, 10, 5] == pytest.approx(900)
    assert table[71, 10, 5] == pytest.approx(100)  # hue 71 is two steps from hue 1
    assert table[30, 10, 5] == pytest.approx(900)


def test_halves_are_equal_and_do_not_overlap():
    is_fitted, is_measured = chessboard((360, 720))
    assert not (is_fitted & is_measured).any()
    assert is_fitted.sum() == pytest.approx(is_measured.sum(), rel=0.1)
    assert (is_fitted | is_measured).mean() == pytest.approx(130 / 180, abs=0.01)


def test_truth_lies_on_the_pixels_of_the_image(tmp_path):
    latitude = 90 - (np.arange(-2, 2162) + 0.5) / 12  # two cells beyond each pole
    np.savez(tmp_path / "topo.npz", arr_0=np.repeat(latitude[:, None], 4324, axis=1))
    truth = read_truth(tmp_path / "topo.npz", (2700, 5400))
    np.testing.assert_allclose(truth[10:-10, 7], (90 - (np.arange(2700) + 0.5) / 15)[10:-10], atol=1e-3)


def test_errors_are_reported_by_band():
    truth = np.array([100.0, 150, 1500, 1800])
    total, low, high = measure(truth + np.array([10, -30, 100, -50]), truth)  # bands without pixels are left out
    assert "4 pixels" in total
    assert "0 to  200 m: mean error   20 m" in low and "1000 to 2000 m: mean error   75 m" in high
