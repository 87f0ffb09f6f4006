"""A run's report: one page that opens anywhere, made from the files of the run alone.

It shows sample images over time, the evaluation and its baselines, curves, and all options. Nothing is loaded from
elsewhere, so the page can be mailed, archived, or opened years later.
"""

import base64
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image

from ganvas.data.decode_basic import open_pillow
from ganvas.errors import UserError
from ganvas.evaluation.labels import MetricLabel
from ganvas.evaluation.report.curves import MAX_POINTS, Chart, Series, chart, short
from ganvas.files import read_consistently, read_regular, write_file
from ganvas.json_files import parse_json, read_json
from ganvas.limits import LARGEST
from ganvas.options import from_json

REPORT = "report.html"
SAMPLES_SHOWN = 7  # the latest and six before it
# Seven images of this many pixels stay below 10 MB as base64 even where they are pure noise.
MAX_BYTES = 400_000  # of a PNG that is embedded as it is
MAX_PIXELS = 1_200_000  # of a larger one, which becomes a JPEG
TEMPLATES = Environment(
    loader=PackageLoader("ganvas.evaluation.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)

# Which logged values share a chart: the first match takes them. All others get a chart of their own.
CHARTS = (
    ("Adversarial losses", r"loss_d(_\w+)?|loss_g_(gan|ab|ba)"),
    ("Reconstruction losses", r"loss_g_l1|loss_(cycle|identity)_\w+"),
    ("Loss of the generator, weighted sum", r"loss_g"),
    ("Further losses", r"loss_\w+"),
    ("Validation: L1", r"val_l1\w*"),
    ("Validation: PSNR, dB", r"val_psnr\w*"),
    ("Validation: SSIM", r"val_ssim\w*"),
    ("Validation: sliced Wasserstein distance", r"val_swd\w*"),
    ("Validation: detail of the truth", r"val_(sharpness|spectrum)\w*"),
    ("Learning rate", r"lr"),
    ("Images per second", r"images_per_second"),
)
NOT_FINITE = re.compile(r": (NaN|-?Infinity)(?=[,}])")  # of other writers: JSON has no such values
NOT_DRAWN = frozenset({"step", "epoch", "seconds"})

Records = Sequence[tuple[int, Mapping[str, Any]]]


@dataclass(frozen=True)
class Score:
    """A mean over images, with its interval if there is one."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """What the page shows of evaluation.json."""

    data: str
    split: str
    pictures: int
    metrics: dict[str, Score]
    baseline: dict[str, Score] | None = None
    ceiling: dict[str, Score] | None = None
    real: dict[str, Score] = field(default_factory=dict)
    l1_minus_baseline: Score | None = None
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)  # "NAME a2b": metrics without direction
    notes: list[str] = field(default_factory=list)


def write_report(run: Path, labels: Mapping[str, MetricLabel]) -> Path:
    """Write RUN/report.html from the files of a run, also of one that is still training.

    Args:
        run: The run's folder.
        labels: How the metrics of the evaluation are shown; a name may end in a direction ("_a2b") or domain ("_a").

    Returns:
        The page's path.

    Raises:
        UserError: The folder is not a run, one of its files is damaged, or the page cannot be written.
    """
    if not run.is_dir():
        raise UserError(f"{run}: there is no such folder. Name the folder of a run.")
    if not (run / "config.json").is_file():
        raise UserError(f"{run}: is not a run, it has no config.json. Name a folder that `train --out` has made.")
    config = read_json(run / "config.json", "a run's config")
    model = read_consistently([run / "model"], partial(_model_config, run / "model" / "config.json"))
    records = _read_records(run / "metrics.jsonl")
    log = _series(records)
    html = TEMPLATES.get_template("report.html").render(
        name=run.resolve().name,
        kind=" · ".join([str(model.get("kind", "training run")), *_translations(model)]),
        summary=list(_summary(log)),
        warnings=[(f"{step:,}", record["warning"]) for step, record in records if _has_warning(record)],
        samples=[(f"{step:,}", _embed(path)) for step, path in _samples(run / "samples")],
        evaluation=_evaluation(run / "evaluation.json", labels),
        charts=list(_charts(log)),
        has_ranges=any(len(series.steps) > MAX_POINTS for series in log),
        options={"Options of the run": _option_groups(config), "Model": _option_groups(model)},
    )
    write_file(run / REPORT, html)
    return run / REPORT


def _model_config(path: Path) -> dict[str, Any]:
    return read_json(path, "a model's config") if path.is_file() else {}


def _read_records(path: Path) -> Records:
    """Read the log, a step and a record per line; a torn last line of a killed or running process is skipped."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_json(NOT_FINITE.sub(": null", line))
            step = record["step"]
            if type(step) is not int or not 0 <= step < 2**53:
                raise ValueError("no step")
        except (LookupError, TypeError, ValueError):
            if number == len(lines):
                break
            raise UserError(
                f"{path}: line {number} is not a record of a step: {line[:60]!r}. Remove that line."
            ) from None
        records.append((step, record))
    return records


def _series(records: Records) -> list[Series]:
    """Return the values of a log as one series a name; what cannot be drawn leaves a gap."""
    columns: dict[str, list[tuple[float, float]]] = {}
    for step, record in records:
        for name, value in record.items():
            if isinstance(value, int | float):
                columns.setdefault(name, []).append((step, _drawable(value)))
    series = [Series(name, *np.array(column, dtype=np.float64).T) for name, column in columns.items()]
    return [each for each in series if np.isfinite(each.values).any()]


def _drawable(value: float) -> float:
    """Return a value as an axis can show it: NaN for a huge one, 0 for a tiny one."""
    if abs(value) * LARGEST < 1:
        return 0.0
    return value if abs(value) <= LARGEST else math.nan


def _has_warning(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("warning"), str)


def _translations(model: Mapping[str, Any]) -> list[str]:
    """Return what each network of a model's config translates, where it says so."""
    networks = model.get("networks")
    specs = list(networks.values()) if isinstance(networks, Mapping) else []
    named = [spec for spec in specs if isinstance(spec, Mapping) and {"source", "target"} <= spec.keys()]
    return [f"{spec['source']} → {spec['target']}" for spec in named]


def _summary(log: Sequence[Series]) -> Iterator[tuple[str, str, str]]:
    """Return label, value and a remark for each figure at the top."""
    columns = {series.name: series for series in log}
    if "step" not in columns:
        yield "Steps", "0", "nothing is logged yet"
        return
    yield "Steps", f"{columns['step'].values.max():,.0f}", ""
    if "epoch" in columns:
        yield "Epoch", f"{np.nanmax(columns['epoch'].values) + 1:,.0f}", ""
    if "seconds" in columns:
        seconds = columns["seconds"].values
        yield "Training time", _duration(seconds[np.isfinite(seconds)][-1]), ""
    if "images_per_second" in columns:
        yield "Speed", f"{np.nanmedian(columns['images_per_second'].values):.3g}", "images/s"
    for name, metric, best in (("val_l1", "L1", np.nanargmin), ("val_ssim", "SSIM", np.nanargmax)):
        if name in columns:
            steps, values = columns[name].steps, columns[name].values
            yield f"Validation {metric}", short(values[best(values)]), f"best, at step {steps[best(values)]:,.0f}"


def _duration(seconds: float) -> str:
    """Format seconds in the two largest units: 3 h 5 min, 2 min 50 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _samples(folder: Path) -> list[tuple[int, Path]]:
    """Return the sample sheets to show and their steps: the first, some between, the latest."""
    named = [(re.fullmatch(r"step-(\d+)\.png", path.name), path) for path in folder.glob("*.png")]
    sheets = sorted((int(name[1]), path) for name, path in named if name)
    places = np.linspace(0, len(sheets) - 1, min(SAMPLES_SHOWN, len(sheets))).round().astype(int)
    return [sheets[place] for place in places]


def _embed(path: Path) -> str | None:
    """Return an image as a data URI: a large one as a smaller JPEG, None for one that cannot be read."""
    try:
        content = read_regular(path)
        with open_pillow(io.BytesIO(content)) as file:
            image = file.convert("RGB")
    except Exception:  # a damaged file makes its decoder raise anything
        return None
    if len(content) <= MAX_BYTES:
        return f"data:image/png;base64,{base64.b64encode(content).decode()}"
    scale = min(1.0, (MAX_PIXELS / (image.width * image.height)) ** 0.5)
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    encoded = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(encoded, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _evaluation(path: Path, labels: Mapping[str, MetricLabel]) -> dict[str, Any] | None:
    """Return the table of the evaluation, baselines alongside the model; None where there is none."""
    if not path.exists():
        return None
    found = from_json(Evaluation, read_json(path, "an evaluation"), str(path))
    introduction = f"{found.pictures:,} images of {found.split} in {found.data}; means with 95% bootstrap intervals."
    columns, notes = {"model": found.metrics}, []
    if found.baseline:
        columns["trivial baseline"] = found.baseline
        notes.append("The trivial baseline paints each class of the legend in its median target color.")
    for name, metrics in found.baselines.items():
        predictor, _, direction = name.rpartition(" ")
        scores = {f"{metric}_{direction}": Score(mean) for metric, mean in metrics.items()}
        columns[predictor] = columns.get(predictor, {}) | scores
    if found.ceiling:
        columns["real test images"] = found.ceiling
        introduction = f"{found.pictures:,} drawn images alongside the real test images of {found.data}."
    marked = 0 if found.ceiling else len(columns)
    if found.real:
        columns["real against real"] = found.real
        notes.append("Real against real: the metrics of sets between real images, as a perfect model would have them.")
    return {
        "introduction": introduction,
        "columns": ["metric", *columns],
        "rows": [
            _row(_label(name, labels), [scores.get(name) for scores in columns.values()], marked)
            for name in found.metrics
        ],
        "notes": notes + found.notes,
        "difference": found.l1_minus_baseline and _cell(found.l1_minus_baseline, 4),
        "verdict": _verdict(found.l1_minus_baseline),
    }


def _row(label: MetricLabel, scores: Sequence[Score | None], marked: int) -> dict[str, Any]:
    """Return one metric's cells; of the first ``marked``, the best score is marked."""
    means = {score.mean for score in scores[:marked] if score is not None}
    best = None
    if label.better and len(means) > 1:
        best = min(means) if label.better == "lower" else max(means)
    cells = [
        score and _cell(score, label.decimals) | {"is_best": i < marked and score.mean == best}
        for i, score in enumerate(scores)
    ]
    return {"label": label.text, "better": label.better, "cells": cells}


def _cell(score: Score, decimals: int) -> dict[str, Any]:
    mean, *edges = [
        f"{value:.{decimals}f}".replace("-", "−") for value in (score.mean, score.low, score.high) if value is not None
    ]
    return {"mean": mean, "interval": ", ".join(edges)}


def _label(name: str, labels: Mapping[str, MetricLabel]) -> MetricLabel:
    """Return how a metric is shown; a name may end in a direction ("l1_a2b") or a domain ("cycle_l1_a")."""
    base, _, of = name.rpartition("_")
    if name not in labels and base in labels and of in ("a2b", "b2a", "a", "b"):
        return replace(labels[base], text=f"{labels[base].text}, {of}")
    return labels.get(name, MetricLabel(name))


def _verdict(difference: Score | None) -> str:
    """Describe the paired difference in L1 between model and baseline."""
    if difference is None or difference.low is None or difference.high is None:
        return ""
    if difference.high < 0:
        return "the model is closer than the baseline"
    if difference.low > 0:
        return "the baseline is closer than the model"
    return "there is no significant difference"


def _charts(log: Sequence[Series]) -> Iterator[Chart]:
    """Draw the series that belong together in one chart, in the order of `CHARTS`."""
    left = {series.name: series for series in log if series.name not in NOT_DRAWN}
    for title, pattern in CHARTS:
        names = [name for name in left if re.fullmatch(pattern, name)]
        if names:
            yield chart(title, [left.pop(name) for name in names])
    yield from (chart(name, [series]) for name, series in left.items())


def _option_groups(values: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Return nested options as a list of names and values for each group, the values without a group first."""
    plain = {name: value for name, value in values.items() if not isinstance(value, dict)}
    groups = {"general": plain} | {name: value for name, value in values.items() if isinstance(value, dict)}
    return {name: list(_flatten(group)) for name, group in groups.items() if group}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _format(value)


def _format(value: object) -> str:
    """Format a JSON value for people."""
    if value is None or value in ({}, []):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_format(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
