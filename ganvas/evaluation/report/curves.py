"""Curves over training steps as inline SVG: no script, no network, readable on a phone and on a dark page.

Colors and fonts come from the page's style sheet (`ganvas.evaluation.report.page`) through class names.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 440, 240  # of the drawing in its own units: a font of 12 stays readable at 350 pixels
TOP, RIGHT, BOTTOM = 10, 14, 38  # margins in the same units; the left one follows the labels
MOST_POINTS = 240  # a curve of more is drawn as means of neighbors, with their range behind
COLOURS = 6  # of the style sheet; the next series starts again with the first


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        name: As the log calls it.
        steps: [T] rising.
        values: [T]; a value that is not finite leaves a gap.
    """

    name: str
    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class _Axis:
    """A range of values and the stretch of the drawing that it covers."""

    low: float
    high: float
    start: float
    end: float

    def place(self, values: np.ndarray) -> np.ndarray:
        """Map values to the drawing."""
        return self.start + (values - self.low) / (self.high - self.low) * (self.end - self.start)


def chart(title: str, series: Sequence[Series]) -> str:
    """Draw a figure with title, legend with the latest values, axes and curves.

    Args:
        title: What is drawn, with its unit.
        series: At least one curve; each with a finite value.

    Returns:
        An HTML ``figure``, all text escaped. Its ``data-curves`` holds the numbers for a script that shows them.
    """
    curves = [_thinned(each) for each in series]
    steps = np.concatenate([each.steps for each in curves])
    values = np.concatenate([edge[np.isfinite(edge)] for each in curves for edge in (each.low, each.high)])
    y_ticks = ticks(*_y_range(values))
    y_labels = labels(y_ticks)
    left = 14 + 7 * max(len(label) for label in y_labels)
    x = _Axis(*_x_range(steps), left, WIDTH - RIGHT)
    y = _Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)

    drawing = [
        *_grid(x, y, y_ticks, y_labels),
        *(part for i, each in enumerate(curves) for part in _curve(i, each, x, y)),
    ]
    legend = "".join(
        f'<li><span class="swatch s{i % COLOURS}"></span>{escape(each.name)} <b>{short(_last(each.mean))}</b></li>'
        for i, each in enumerate(curves)
    )
    return (
        f'<figure class="chart" data-curves="{escape(json.dumps(_numbers(curves, x)))}">'
        f'<figcaption>{escape(title)}</figcaption><ul class="legend">{legend}</ul>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}, by step">{"".join(drawing)}'
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></svg></figure>'
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Give round numbers, 1, 2 or 5 times a power of ten apart, the first <= ``low`` and the last >= ``high``.

    Args:
        low: Finite.
        high: Finite and greater than ``low``.
        about: Spaces between them that are aimed at.
    """
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def labels(values: Sequence[float]) -> list[str]:
    """Write evenly spaced numbers with as many digits as tell them apart: 0.05, 10k, 1.5e-4."""
    largest, step = max(abs(value) for value in values), values[1] - values[0]
    for least, size, suffix in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if largest >= least:
            return [f"{value / size:.{_decimals(step / size)}f}{suffix}" if value else "0" for value in values]
    if _decimals(step) <= 4:
        return [f"{value:,.{_decimals(step)}f}" for value in values]
    power = math.floor(math.log10(largest) + 1e-9)
    return [f"{round(value / 10.0**power, 6):g}e{power}" if value else "0" for value in values]


def short(value: float) -> str:
    """Write one number with four digits that count."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}".replace("e-0", "e-")


def _decimals(step: float) -> int:
    """Count the decimals that a step of 1, 2 or 5 times a power of ten needs."""
    return max(0, -math.floor(math.log10(step) + 1e-9))


@dataclass(frozen=True)
class _Thinned:
    """A curve of few points: each the mean and the range of as many neighbors."""

    name: str
    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _thinned(series: Series) -> _Thinned:
    """Put neighbors together where there are more points than a drawing can show."""
    count = min(MOST_POINTS, len(series.steps))
    buckets = [values[np.isfinite(values)] for values in np.array_split(series.values, count)]
    mean, low, high = np.array(
        [(values.mean(), values.min(), values.max()) if values.size else (np.nan,) * 3 for values in buckets]
    ).T
    return _Thinned(series.name, np.array([s.mean() for s in np.array_split(series.steps, count)]), mean, low, high)


def _x_range(steps: np.ndarray) -> tuple[float, float]:
    low, high = float(steps.min()), float(steps.max())
    if low == high or low <= 0.2 * high:
        low = 0.0  # a run from the start begins at 0
    return low, max(high, low + 4)  # four steps at least, for whole numbers on the axis


def _y_range(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-4 * max(abs(low), abs(high)):  # equal as far as digits are shown
        reach = abs(high) * 0.1 or 1.0
        return low - reach, high + reach
    if 0 <= low < 0.4 * high:
        return 0.0, high  # zero is near: show it
    return low, high


def _grid(x: _Axis, y: _Axis, y_ticks: Sequence[float], y_labels: Sequence[str]) -> Iterable[str]:
    """Draw grid lines, ticks and labels."""
    bottom = HEIGHT - BOTTOM
    for at, label in zip(y.place(np.array(y_ticks)), y_labels, strict=True):
        yield f'<line class="grid" x1="{x.start:.1f}" x2="{x.end:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield f'<text x="{x.start - 7:.1f}" y="{at + 4:.1f}" text-anchor="end">{label}</text>'
    x_ticks = ticks(x.low, x.high, about=4)
    for at, tick, label in zip(x.place(np.array(x_ticks)), x_ticks, labels(x_ticks), strict=True):
        if x.low <= tick <= x.high:  # steps are not stretched to round numbers: the curve fills the width
            yield f'<line class="tick" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
            yield f'<text x="{at:.1f}" y="{bottom + 17}" text-anchor="middle">{label}</text>'
    yield f'<line class="axis" x1="{x.start:.1f}" x2="{x.end:.1f}" y1="{bottom}" y2="{bottom}"/>'
    yield f'<text x="{(x.start + x.end) / 2:.1f}" y="{HEIGHT - 5}" text-anchor="middle">step</text>'


def _curve(index: int, series: _Thinned, x: _Axis, y: _Axis) -> Iterable[str]:
    """Draw the range behind, the line, and a dot at its end; a line for each stretch without a gap."""
    colour = f"s{index % COLOURS}"
    at, mean, low, high = x.place(series.steps), y.place(series.mean), y.place(series.low), y.place(series.high)
    finite = np.flatnonzero(np.isfinite(series.mean))
    for stretch in np.split(finite, np.flatnonzero(np.diff(finite) > 1) + 1):
        if (low[stretch] - high[stretch] > 0.5).any():
            there_and_back = [
                *zip(at[stretch], high[stretch], strict=True),
                *zip(at[stretch][::-1], low[stretch][::-1], strict=True),
            ]
            yield f'<path class="range {colour}" d="M{_points(there_and_back)}Z"/>'
        yield f'<path class="curve {colour}" d="M{_points(zip(at[stretch], mean[stretch], strict=True))}"/>'
    yield f'<circle class="end {colour}" cx="{at[finite[-1]]:.1f}" cy="{mean[finite[-1]]:.1f}" r="3"/>'


def _points(pairs: Iterable[tuple[float, float]]) -> str:
    return "L".join(f"{a:.1f} {b:.1f}" for a, b in pairs)


def _last(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)][-1])


def _numbers(curves: Sequence[_Thinned], x: _Axis) -> dict[str, object]:
    """Give what a script needs to show values under the pointer; JSON has no NaN, so a gap is null."""
    return {
        "x": [x.low, x.high, round(x.start, 1), x.end],
        "series": [
            {
                "steps": [round(step) for step in each.steps.tolist()],
                "values": [short(value) if math.isfinite(value) else None for value in each.mean.tolist()],
            }
            for each in curves
        ],
    }
