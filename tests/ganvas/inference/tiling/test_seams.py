"""The seam measure: known steps give known ratios."""

import numpy as np
import pytest

from ganvas.inference.tiling.seams import Borders, SeamMeter, seam_measure


def ramp(rows=8, columns=40):
    return np.tile(np.arange(float(columns))[None, :, None], (rows, 1, 3))


def test_of_a_ramp_it_is_one_and_of_a_step_it_is_the_step():
    picture = ramp()
    assert seam_measure(picture, [], [20]) == pytest.approx(1)
    picture[:, 20:] += 4
    assert seam_measure(picture, [], [20]) == pytest.approx(5)
    assert seam_measure(picture.transpose(1, 0, 2), [20], []) == pytest.approx(5)


def test_without_a_border_or_with_one_colour_it_is_one():
    assert seam_measure(ramp(), [], []) == 1
    assert seam_measure(np.full((9, 9, 1), 7, np.uint8), [4], [4]) == 1


def test_bands_of_any_height_give_what_the_whole_picture_gives():
    chance = np.random.default_rng(0)
    picture = chance.integers(0, 256, (197, 50, 3), dtype=np.uint8)
    rows, columns = [10, 64, 128, 193], [7, 32]
    whole = seam_measure(picture, rows, columns)
    meter = SeamMeter(Borders(rows), Borders(columns))
    for band in np.split(picture, [1, 2, 64, 131]):
        meter.add(band)
    assert meter.ratio() == pytest.approx(whole)
    steps = [np.abs(np.diff(picture.astype(float), axis=axis)).mean(axis=(1 - axis, 2)) for axis in (0, 1)]
    at = [step[np.array(places) - 1].mean() for step, places in zip(steps, (rows, columns), strict=True)]
    away = [np.delete(step, np.array(places) - 1).mean() for step, places in zip(steps, (rows, columns), strict=True)]
    counts = np.array([len(rows) * 50, len(columns) * len(picture)])
    assert whole == pytest.approx(counts @ at / (counts @ away))


def test_a_pattern_of_the_network_is_no_seam_against_like_places():
    picture = ramp(8, 81)
    picture += 3 * (np.arange(81) // 8)[None, :, None]  # a step of 4 before each eighth pixel, of 1 elsewhere
    meter = SeamMeter(Borders([], 8), Borders([40], 8))
    meter.add(picture)
    assert meter.ratio() == pytest.approx(4 / (1 + 3 * 9 / 79))
    assert meter.ratio_on_grid() == pytest.approx(1)
