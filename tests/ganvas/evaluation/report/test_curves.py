import json
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganvas.evaluation.report.curves import HEIGHT, WIDTH, Series, labels, ticks
from ganvas.evaluation.report.curves import chart as lay_out
from ganvas.evaluation.report.writer import TEMPLATES

numbers = st.floats(-1e9, 1e9)


def series(values, name="loss", every=10):
    return Series(name, np.arange(1, len(values) + 1) * every, np.array(values, dtype=float))


def chart(title, series):
    return TEMPLATES.get_template("chart.html").render(chart=lay_out(title, series))


def parsed(html):
    """Read a chart as XML: it must be well formed, names escaped."""
    return ElementTree.fromstring(html)


def points(path):
    return [tuple(map(float, pair.split())) for pair in path.get("d").strip("MZ").split("L")]


def curves(figure):
    return [points(path) for path in figure.iter("path") if "curve" in path.get("class")]


@given(numbers, st.floats(1e-6, 1e9))
def test_ticks_enclose_the_range_in_few_round_steps(low, width):
    high = low + width
    if width < 1e-4 * max(abs(low), abs(high)):
        return  # a chart widens such a range before it asks for ticks
    values = ticks(low, high)
    step = values[1] - values[0]
    slack = 1e-6 * step

    assert values[0] <= low + slack < values[0] + step + 2 * slack
    assert values[-1] - step - 2 * slack < high - slack <= values[-1]
    assert 3 <= len(values) <= 8
    mantissa = step / 10 ** math.floor(math.log10(step * (1 + 1e-9)))
    assert min(abs(mantissa - whole) for whole in (1, 2, 5)) < 1e-3


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([0, 0.05, 0.1], ["0.00", "0.05", "0.10"]),
        ([-1, 0, 1], ["-1", "0", "1"]),
        ([0, 500, 1000], ["0", "500", "1,000"]),
        ([0, 5000, 10000], ["0", "5k", "10k"]),
        ([0, 500_000, 1_000_000], ["0", "0.5M", "1.0M"]),
        ([0, 5e-5, 1e-4, 1.5e-4, 2e-4], ["0", "0.5e-4", "1e-4", "1.5e-4", "2e-4"]),
    ],
)
def test_labels(values, written):
    assert labels(values) == written


def test_a_straight_line_runs_between_the_corners_of_the_axes():
    figure = parsed(chart("Loss", [Series("loss", np.array([0, 50, 100]), np.array([0.0, 5.0, 10.0]))]))
    (first, middle, last) = curves(figure)[0]
    axis = next(line for line in figure.iter("line") if line.get("class") == "axis")

    assert first == (float(axis.get("x1")), float(axis.get("y1")))
    assert last == (float(axis.get("x2")), 10.0)
    assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2), abs=0.1)
    assert {text.text for text in figure.iter("text")} >= {"0", "2", "10", "50", "100", "step"}


def test_the_legend_lists_every_series_with_its_latest_value():
    figure = parsed(chart("Losses", [series([3, 2.5], "loss_d"), series([1, 0.00012345], "loss_g")]))
    items = [" ".join("".join(item.itertext()).split()) for item in figure.iter("li")]
    assert items == ["loss_d 2.5", "loss_g 0.0001234"]
    assert len(curves(figure)) == 2


def test_values_that_are_not_finite_leave_a_gap():
    figure = parsed(chart("Loss", [series([1, 2, math.nan, math.inf, 5, 6, 7])]))
    assert [len(curve) for curve in curves(figure)] == [2, 3]
    numbers = json.loads(figure.get("data-curves"))
    assert numbers["series"][0]["values"] == ["1", "2", None, None, "5", "6", "7"]


def test_many_points_become_means_with_their_range_behind():
    values = np.random.default_rng(0).normal(5, 1, 24_000)
    figure = parsed(chart("Loss", [series(values)]))
    (curve,) = curves(figure)
    (band,) = [points(path) for path in figure.iter("path") if "range" in path.get("class")]
    heights = np.array([y for _, y in curve])
    upper, lower = np.array(band[:240])[:, 1], np.array(band[:239:-1])[:, 1]

    assert len(curve) == 240
    assert len(band) == 480
    assert (upper < heights).all()  # the drawing's y points down
    assert (heights < lower).all()
    shown = [float(value) for value in json.loads(figure.get("data-curves"))["series"][0]["values"]]
    np.testing.assert_allclose(shown, values.reshape(240, 100).mean(axis=1), rtol=1e-3)


def test_few_points_have_no_band():
    assert 'class="range' not in chart("Loss", [series(np.random.default_rng(0).normal(size=240))])


def test_a_sparse_curve_among_gaps_is_drawn():
    values = np.full(1000, math.nan)
    values[500] = 3.0
    assert len(curves(parsed(chart("Loss", [series(values)])))) == 1


@given(st.lists(st.one_of(numbers, st.floats(-1e-6, 1e-6)), min_size=1, max_size=6))
def test_any_values_stay_within_the_drawing_and_its_labels_differ(values):
    figure = parsed(chart("Loss", [series(values)]))
    for x, y in curves(figure)[0]:
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT
    written = [text.text for text in figure.iter("text") if text.get("text-anchor") == "end"]
    assert len(set(written)) == len(written) >= 2


def test_texts_are_escaped():
    html = chart("<script>a</script>", [series([1, 2], "<b onload='x'>")])
    assert not re.search(r"<script|<b onload", html)
    assert parsed(html).find("figcaption").text == "<script>a</script>"
