"""Curves over training steps, as coordinates for an inline SVG: no script, no network, readable on a phone."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 440, 240  # of the drawing in its own units: a font of 12 stays readable at 350 pixels
TOP, RIGHT, BOTTOM = 10, 14, 38  # margins in the same units; the left one follows the labels
MAX_POINTS = 240  # a curve of more is drawn as means of neighbors, with their range behind
NUM_COLORS = 6  # of the style sheet; the next series starts again with the first


@dataclass(frozen=True)
class Series:
    """One logged value.

    Attributes:
        name: Its name in the log.
        steps: [T] rising.
        values: [T]; a value that is not finite leaves a gap.
    """

    name: str
    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Curve:
    """A series as the template draws it.

    Attributes:
        name: Its name in the legend.
        latest: The last finite value, formatted.
        color: Class of the style sheet.
        lines: SVG paths, one for each stretch without a gap.
        ranges: SVG paths of the bands behind.
        end: Where the last value lies.
    """

    name: str
    latest: str
    color: str
    lines: list[str]
    ranges: list[str]
    end: tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """A drawing of curves with a title, a legend and axes; ticks are a coordinate and a label each.

    ``data`` is JSON of the numbers, for a script that shows the values under the pointer.
    """

    title: str
    curves: list[Curve]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    left: float
    data: str
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM
    width: float = WIDTH
    height: float = HEIGHT


def chart(title: str, series: Sequence[Series]) -> Chart:
    """Lay out a chart.

    Args:
        title: What is drawn, with its unit.
        series: At least one, each with a finite value.
    """
    thinned = [_thin(each) for each in series]
    steps = np.concatenate([each.steps for each in thinned])
    values = np.concatenate([edge[np.isfinite(edge)] for each in thinned for edge in (each.low, each.high)])
    y_ticks = ticks(*_y_range(values))
    y_labels = labels(y_ticks)
    left = 14.0 + 7 * max(len(label) for label in y_labels)
    x = _Axis(*_x_range(steps), left, WIDTH - RIGHT)
    y = _Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    x_ticks = ticks(x.low, x.high, about=4)
    # Steps are not stretched to round numbers, so that the curve fills the width.
    x_marks = [(tick, label) for tick, label in zip(x_ticks, labels(x_ticks), strict=True) if x.low <= tick <= x.high]
    return Chart(
        title,
        [_curve(f"s{number % NUM_COLORS}", each, x, y) for number, each in enumerate(thinned)],
        [(x.place(tick), label) for tick, label in x_marks],
        [(y.place(tick), label) for tick, label in zip(y_ticks, y_labels, strict=True)],
        left,
        json.dumps({"x": [x.low, x.high, x.start, x.end], "series": [_numbers(each) for each in thinned]}),
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers, 1, 2 or 5 times a power of ten apart, the first <= ``low`` and the last >= ``high``.

    Args:
        low: Finite.
        high: Finite and greater than ``low``.
        about: Intervals between them to aim at.
    """
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def labels(values: Sequence[float]) -> list[str]:
    """Format evenly spaced numbers with as many digits as distinguish them: 0.05, 10k, 1.5e-4."""
    largest, step = max(abs(value) for value in values), values[1] - values[0]
    for least, size, suffix in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if largest >= least:
            return [f"{value / size:.{_decimals(step / size)}f}{suffix}" if value else "0" for value in values]
    if _decimals(step) <= 4:
        return [f"{value:,.{_decimals(step)}f}" for value in values]
    power = math.floor(math.log10(largest) + 1e-9)
    return [f"{round(value / 10.0**power, 6):g}e{power}" if value else "0" for value in values]


def short(value: float) -> str:
    """Format a number with four significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}".replace("e-0", "e-")


def _decimals(step: float) -> int:
    """Count the decimals that a step of 1, 2 or 5 times a power of ten needs."""
    return max(0, -math.floor(math.log10(step) + 1e-9))


@dataclass(frozen=True)
class _Axis:
    """A range of values and the stretch of the drawing that it covers."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Map a value to the drawing."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


@dataclass(frozen=True)
class _Thinned:
    """A series of few points: each the mean and the range of equally many neighbors, [T] each."""

    name: str
    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _thin(series: Series) -> _Thinned:
    """Join neighbors where there are more points than a drawing can show."""
    count = min(MAX_POINTS, len(series.steps))
    buckets = [values[np.isfinite(values)] for values in np.array_split(series.values, count)]
    mean, low, high = np.array(
        [(values.mean(), values.min(), values.max()) if values.size else (np.nan,) * 3 for values in buckets]
    ).T
    return _Thinned(series.name, np.array([s.mean() for s in np.array_split(series.steps, count)]), mean, low, high)


def _x_range(steps: np.ndarray) -> tuple[float, float]:
    low, high = float(steps.min()), float(steps.max())
    if low == high or low <= 0.2 * high:
        low = 0.0  # the run is drawn from its start
    return low, max(high, low + 4)  # at least four steps, for integers on the axis


def _y_range(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-4 * max(abs(low), abs(high)):  # equal in the digits that are shown
        reach = abs(high) * 0.1 or 1.0
        return low - reach, high + reach
    if 0 <= low < 0.4 * high:
        return 0.0, high  # zero is near: show it
    return low, high


def _curve(color: str, series: _Thinned, x: _Axis, y: _Axis) -> Curve:
    """Draw a line and, where values were joined, a band behind it."""
    lines, ranges = [], []
    finite = np.flatnonzero(np.isfinite(series.mean))
    for stretch in np.split(finite, np.flatnonzero(np.diff(finite) > 1) + 1):
        at = [x.place(step) for step in series.steps[stretch]]
        mean, low, high = (
            [y.place(value) for value in values[stretch]] for values in (series.mean, series.low, series.high)
        )
        if any(bottom - top > 0.5 for bottom, top in zip(low, high, strict=True)):  # y points down
            outline = [*zip(at, high, strict=True), *zip(at[::-1], low[::-1], strict=True)]
            ranges.append(f"{_path(outline)}Z")
        lines.append(_path(zip(at, mean, strict=True)))
    latest = float(series.mean[finite[-1]])
    return Curve(series.name, short(latest), color, lines, ranges, (at[-1], mean[-1]))


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _numbers(series: _Thinned) -> dict[str, object]:
    """Return a series for the script; JSON has no NaN, so a gap is null."""
    return {
        "steps": [round(step) for step in series.steps.tolist()],
        "values": [short(value) if math.isfinite(value) else None for value in series.mean.tolist()],
    }
