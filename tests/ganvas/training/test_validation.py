"""Scores of validations, and the mode of batch norm that they choose."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gmean
from torch import nn

from ganvas.nn.layers import BatchNorm2d
from ganvas.training.validation import MIN_METRIC, combined_score, compare_statistics, default_statistics

VALUES = st.floats(1e-4, 1e4)


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_score_is_the_geometric_mean(values):
    metrics = {f"val_{i}": value for i, value in enumerate(values)}
    assert combined_score(metrics | {"val_psnr": 1e9}, list(metrics)) == pytest.approx(gmean(values), rel=1e-9)


@given(VALUES, VALUES, VALUES, VALUES, st.floats(1e-2, 1e2), st.floats(1e-2, 1e2))
def test_scale_of_a_metric_does_not_change_the_choice(a, b, c, d, unit_1, unit_2):
    """A set of a tenth of the contrast has a tenth of the L1, and the same distance in deviations of the target."""
    criteria = ("val_l1", "val_swd")
    first, second = ({"val_l1": x, "val_swd": y} for x, y in ((a, b), (c, d)))
    scaled = [{"val_l1": unit_1 * each["val_l1"], "val_swd": unit_2 * each["val_swd"]} for each in (first, second)]
    ratio = combined_score(first, criteria) / combined_score(second, criteria)
    assert combined_score(scaled[0], criteria) / combined_score(scaled[1], criteria) == pytest.approx(ratio, rel=1e-6)


def test_both_metrics_count_with_low_contrast():
    """The sum was decided by the distance alone: 0.01 + 0.30 is more than 0.03 + 0.25."""
    near, far = {"val_l1": 0.01, "val_swd": 0.30}, {"val_l1": 0.03, "val_swd": 0.25}
    assert combined_score(near, ("val_l1", "val_swd")) < combined_score(far, ("val_l1", "val_swd"))


def test_missing_metrics():
    assert combined_score({"val_l1": 0.25}, ("val_l1", "val_swd")) == pytest.approx(0.25)
    with pytest.raises(ValueError, match=r"metrics are val_psnr; at least one of val_l1, val_swd"):
        combined_score({"val_psnr": 20.0}, ("val_l1", "val_swd"))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_metric_gives_nan(bad):
    for metrics in ({"a": bad, "b": 0.0}, {"a": 0.5, "b": bad}):
        assert math.isnan(combined_score(metrics, ("a", "b")))
    assert not math.isnan(combined_score({"a": 0.5, "b": 0.5, "other": bad}, ("a", "b")))


def test_metric_of_zero_leaves_the_choice_to_others():
    zero = [combined_score({"a": 0.0, "b": b}, ("a", "b")) for b in (0.1, 0.2)]
    assert 0 < zero[0] < zero[1]
    assert zero[0] == pytest.approx(math.sqrt(MIN_METRIC * 0.1))
    assert combined_score({"a": -1e-9, "b": 0.1}, ("a", "b")) == zero[0]  # a distance by subtraction


def network(*, batch_norm):
    return nn.Sequential(nn.Conv2d(1, 1, 1), *([nn.Sequential(BatchNorm2d(1))] if batch_norm else []))


@pytest.mark.parametrize(
    ("images", "batch_norm", "expected"),
    [(1, True, "picture"), (2, True, "running"), (1, False, "running")],
)
def test_default_mode_is_that_of_the_training(images, batch_norm, expected):
    assert default_statistics([network(batch_norm=False), network(batch_norm=batch_norm)], images) == expected


@pytest.mark.parametrize(
    ("running", "per_image", "better"),
    [
        ((0.2, 0.3), (0.1, 0.3), "picture"),
        ((0.2, 0.3), (0.2, 0.4), "running"),
        ((0.20, 0.9), (0.21, 0.3), "picture"),  # by the score, not by the first metric
        ((math.nan, 0.3), (9.0, 9.0), "picture"),
        ((9.0, 9.0), (0.1, math.inf), "running"),
    ],
)
def test_mode_with_the_lower_score_is_chosen(running, per_image, better):
    found = {"running": running, "picture": per_image}
    modes = []

    def validate(mode):
        modes.append(mode)
        return {"val_l1": found[mode][0], "val_swd": found[mode][1], "val_psnr": 20.0}

    mode, metrics = compare_statistics([network(batch_norm=True)], validate, ("val_l1", "val_swd"))
    assert (mode, sorted(modes)) == (better, ["picture", "running"])
    expected = {"val_l1": found[better][0], "val_swd": found[better][1], "val_psnr": 20.0}
    expected |= {f"val_l1_{mode}": found[mode][0] for mode in found} | {
        f"val_swd_{mode}": found[mode][1] for mode in found
    }
    np.testing.assert_equal(metrics, expected)


def test_networks_without_batch_norm_are_validated_once():
    modes = []
    mode, metrics = compare_statistics(
        [network(batch_norm=False)], lambda mode: modes.append(mode) or {"val_l1": 0.5}, ("val_l1",)
    )
    assert (mode, metrics, modes) == ("running", {"val_l1": 0.5}, ["running"])
