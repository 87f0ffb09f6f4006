"""The seam measure: known steps give known ratios."""

import numpy as np
import pytest

from ganvas.inference.tiling.seams import Borders, SeamMeter, seam_measure


def ramp(rows=8, columns=40):
    return np.tile(np.arange(float(columns))[None, :, None], (rows, 1, 3))


def test_a_ramp_has_ratio_one_and_a_step_its_height():
    image = ramp()
    assert seam_measure(image, [], [20]) == pytest.approx(1)
    image[:, 20:] += 4
    assert seam_measure(image, [], [20]) == pytest.approx(5)
    assert seam_measure(image.transpose(1, 0, 2), [20], []) == pytest.approx(5)


def test_no_border_or_a_constant_has_ratio_one():
    assert seam_measure(ramp(), [], []) == 1
    assert seam_measure(np.full((9, 9, 1), 7, np.uint8), [4], [4]) == 1


def test_bands_of_any_height_agree_with_one_pass():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (197, 50, 3), dtype=np.uint8)
    rows, columns = [10, 64, 128, 193], [7, 32]
    whole = seam_measure(image, rows, columns)
    meter = SeamMeter(Borders(rows), Borders(columns))
    for band in np.split(image, [1, 2, 64, 131]):
        meter.add(band)
    assert meter.ratio() == pytest.approx(whole)
    steps = [np.abs(np.diff(image.astype(float), axis=axis)).mean(axis=(1 - axis, 2)) for axis in (0, 1)]
    at = [step[np.array(places) - 1].mean() for step, places in zip(steps, (rows, columns), strict=True)]
    away = [np.delete(step, np.array(places) - 1).mean() for step, places in zip(steps, (rows, columns), strict=True)]
    counts = np.array([len(rows) * 50, len(columns) * len(image)])
    assert whole == pytest.approx(counts @ at / (counts @ away))


def test_a_periodic_pattern_is_no_seam():
    image = ramp(8, 81)
    image += 3 * (np.arange(81) // 8)[None, :, None]  # a step of 4 before each eighth pixel, of 1 elsewhere
    meter = SeamMeter(Borders([], 8), Borders([40], 8))
    meter.add(image)
    assert meter.ratio() == pytest.approx(4 / (1 + 3 * 9 / 79))
    assert meter.ratio_on_grid() == pytest.approx(1)
