"""A run's report: one page that opens anywhere, made from the files of the run alone.

It holds sample images over time, the evaluation beside the trivial baseline, curves, and all options. Nothing is
loaded from elsewhere, so the page can be mailed, archived, or opened years later.
"""

import base64
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ganvas.data.decode import open_pillow
from ganvas.errors import UserError
from ganvas.evaluation.report.curves import MOST_POINTS, Series, chart, short
from ganvas.evaluation.report.page import page
from ganvas.files import parse_json, read_consistently, read_json, read_regular, write_file
from ganvas.limits import LARGEST
from ganvas.options import from_json

REPORT = "report.html"
SAMPLES_SHOWN = 7  # the latest and six before it
# Seven images of this many pixels stay below 10 MB as base64 even where they are pure noise.
MOST_BYTES = 400_000  # of a PNG that is embedded as it is
MOST_PIXELS = 1_200_000  # of a larger one, which becomes a JPEG

# Which logged values share a drawing: the first that fits takes them. All others get one of their own.
CHARTS = (
    ("Adversarial losses", r"loss_d(_\w+)?|loss_g_(gan|ab|ba)"),
    ("Reconstruction losses", r"loss_g_l1|loss_(cycle|identity)_\w+"),
    ("Loss of the generator, weighted sum", r"loss_g"),
    ("Further losses", r"loss_\w+"),
    ("Validation: L1", r"val_l1\w*"),
    ("Validation: PSNR, dB", r"val_psnr\w*"),
    ("Validation: SSIM", r"val_ssim\w*"),
    ("Validation: sliced Wasserstein distance", r"val_swd\w*"),
    ("Learning rate", r"lr"),
    ("Images per second", r"images_per_second"),
)
NOT_FINITE = re.compile(r": (NaN|-?Infinity)(?=[,}])")  # of other writers: json has no such values
NOT_DRAWN = frozenset({"step", "epoch", "seconds"})

Item = TypeVar("Item")


@dataclass(frozen=True)
class Score:
    """A mean over images, with its interval where there is one."""

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
    l1_minus_baseline: Score | None = None
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)  # "NAME a2b": metrics without direction
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Metric:
    """How a metric is shown."""

    label: str
    better: str
    decimals: int


METRICS = {
    "l1": Metric("L1", "lower", 4),
    "cycle_l1": Metric("L1 of the way there and back", "lower", 4),
    "identity_l1": Metric("L1 of the identity pass", "lower", 4),
    "psnr": Metric("PSNR, dB", "higher", 2),
    "ssim": Metric("SSIM", "higher", 4),
    "sliced_wasserstein": Metric("Sliced Wasserstein distance", "lower", 4),
    "frechet_distance": Metric("Fréchet distance", "lower", 3),
    "kernel_distance": Metric("Kernel distance", "lower", 4),
    "precision": Metric("Precision", "higher", 3),
    "recall": Metric("Recall", "higher", 3),
    # Above 1 a density says that images crowd where real ones are dense.
    "density": Metric("Density", "", 3),
    "coverage": Metric("Coverage", "higher", 3),
    "class_coverage": Metric("Classes drawn", "higher", 0),
    "label_entropy": Metric("Entropy of the classes, bits", "higher", 3),
    "mean_confidence": Metric("Mean confidence of the classifier", "", 3),
    "label_fidelity": Metric("Drawn as asked", "higher", 3),
    "within_class_diversity": Metric("Diversity within a class, of real images'", "", 3),
    "near_copies": Metric("Near-copies of training images", "lower", 3),
    "speckle": Metric("Stray bright pixels, of real images'", "lower", 2),
    "checkerboard_energy": Metric("Checkerboard energy", "", 5),
}


def write_report(run: Path) -> Path:
    """Write RUN/report.html from the files of a run; also of one that is still training.

    Args:
        run: The run's folder.

    Returns:
        The page's path.

    Raises:
        UserError: The folder is no run, one of its files is damaged, or the page cannot be written.
    """
    if not run.is_dir():
        raise UserError(f"{run}: there is no such folder. Give the folder of a run.")
    if not (run / "config.json").is_file():
        raise UserError(f"{run}: is no run, it has no config.json. Give a folder that `train --out` has made.")
    config = read_json(run / "config.json", "a run's config")
    model = read_consistently([run / "model"], partial(_model_config, run / "model" / "config.json"))
    records = _read_records(run / "metrics.jsonl")
    log = _series(records)
    name = run.resolve().name
    parts = [
        _header(name, model, log),
        _warnings(records),
        _pictures(run / "samples"),
        _scores(run / "evaluation.json"),
        _curves(log),
        _options("Options of the run", config),
        _options("Model", model),
    ]
    target = run / REPORT
    write_file(target, page(f"{name}: training report", "\n".join(parts)))
    return target


def _model_config(path: Path) -> dict[str, Any]:
    return read_json(path, "a model's config") if path.is_file() else {}


def _read_records(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Read the log, a step and a record a line; a last line that a killed or running process left torn is skipped."""
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
            raise UserError(f"{path}: line {number} is no record of a step: {line[:60]!r}. Remove that line.") from None
        records.append((step, record))
    return records


def _series(records: Iterable[tuple[int, Mapping[str, Any]]]) -> list[Series]:
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


def _warnings(records: Iterable[tuple[int, Mapping[str, Any]]]) -> str:
    """Show what the watch warned of, if anything."""
    found = [(step, record["warning"]) for step, record in records if isinstance(record.get("warning"), str)]
    items = "".join(f"<li>Step {step:,}: {escape(warning)}</li>" for step, warning in found)
    return f"<section><h2>Warnings in training</h2><ul>{items}</ul></section>" if items else ""


def _translations(model: Mapping[str, Any]) -> list[str]:
    """Return what each network of a model's config translates, where it says so."""
    networks = model.get("networks")
    specs = list(networks.values()) if isinstance(networks, Mapping) else []
    named = [spec for spec in specs if isinstance(spec, Mapping) and {"source", "target"} <= spec.keys()]
    return [f"{spec['source']} → {spec['target']}" for spec in named]


def _header(name: str, model: Mapping[str, Any], log: Sequence[Series]) -> str:
    kind = " · ".join([str(model.get("kind", "training run")), *_translations(model)])
    tiles = "".join(
        f'<div class="card"><dt>{escape(label)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>'
        for label, value, note in _summary(log)
    )
    return f'<header><h1>{escape(name)}</h1><p class="soft">{escape(kind)}</p></header>\n<dl class="tiles">{tiles}</dl>'


def _summary(log: Sequence[Series]) -> Iterable[tuple[str, str, str]]:
    """Give label, value and a remark for each figure at the top."""
    columns = {series.name: series for series in log}
    if "step" not in columns:
        yield "Steps", "0", "nothing is logged yet"
        return
    yield "Steps", f"{columns['step'].values.max():,.0f}", ""
    if "epoch" in columns:
        yield "Epoch", f"{columns['epoch'].values.max() + 1:,.0f}", ""
    if "seconds" in columns:
        yield "Training time", _duration(columns["seconds"].values[-1]), ""
    if "images_per_second" in columns:
        yield "Speed", f"{np.nanmedian(columns['images_per_second'].values):.3g}", "images/s"
    for name, metric, best in (("val_l1", "L1", np.nanargmin), ("val_ssim", "SSIM", np.nanargmax)):
        if name in columns:
            steps, values = columns[name].steps, columns[name].values
            yield f"Validation {metric}", short(values[best(values)]), f"best, at step {steps[best(values)]:,.0f}"


def _duration(seconds: float) -> str:
    """Write seconds as the two units that count: 3 h 5 min, 2 min 50 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _pictures(folder: Path) -> str:
    """Show the latest sample sheet, and below it how the images became so: the first, some between, the latest."""
    named = [(re.fullmatch(r"step-(\d+)\.png", path.name), path) for path in folder.glob("*.png")]
    sheets = sorted((int(name[1]), path) for name, path in named if name)
    if not sheets:
        return '<section><h2>Images</h2><p class="soft">There are no sample images yet.</p></section>'
    *earlier, latest = [(step, _embedded(path)) for step, path in _spread(sheets, SAMPLES_SHOWN)]
    figures = "".join(_thumbnail(step, uri) for step, uri in earlier)
    return f'<section><h2>Pictures</h2>{_latest(*latest)}<div class="samples">{figures}</div></section>'


def _latest(step: int, uri: str | None) -> str:
    return f'<figure class="latest">{_image(step, uri)}<figcaption>step {step:,}, the latest</figcaption></figure>'


def _thumbnail(step: int, uri: str | None) -> str:
    """Show a sheet small; a click on it, or the space bar, shows it large."""
    switch = f'<input type="checkbox" aria-label="Show step {step:,} large">'
    return f"<figure><label>{switch}{_image(step, uri)}</label><figcaption>step {step:,}</figcaption></figure>"


def _image(step: int, uri: str | None) -> str:
    return f'<img src="{uri}" alt="Sample images at step {step:,}">' if uri else "<p>The file cannot be read.</p>"


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """Pick the first, the last, and evenly between: ``count`` of them, or all where there are fewer."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def _embedded(path: Path) -> str | None:
    """Give a image as a data URI; a large one smaller and as JPEG, an unreadable one not at all."""
    try:
        content = read_regular(path)
        with open_pillow(io.BytesIO(content)) as file:
            picture = file.convert("RGB")
    except Exception:  # a damaged file makes its decoder raise anything
        return None
    if len(content) <= MOST_BYTES:
        return f"data:image/png;base64,{base64.b64encode(content).decode()}"
    scale = min(1.0, (MOST_PIXELS / (picture.width * picture.height)) ** 0.5)
    size = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
    encoded = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(encoded, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _scores(path: Path) -> str:
    """Show the evaluation as a table, the trivial baseline beside it."""
    if not path.exists():
        return ""
    evaluation = from_json(Evaluation, read_json(path, "an evaluation"), str(path))
    columns, note = {"model": evaluation.metrics}, ""
    what = f"{evaluation.pictures:,} images of {escape(evaluation.split)} in {escape(evaluation.data)}"
    said = f"{what}; means with 95% bootstrap intervals."
    if evaluation.baseline:
        columns["trivial baseline"] = evaluation.baseline
        note = '<p class="soft">The trivial baseline paints each class of the legend in its median target color.</p>'
    for name, metrics in evaluation.baselines.items():
        what_draws, _, way = name.rpartition(" ")
        scores = {f"{metric}_{way}": Score(mean) for metric, mean in metrics.items()}
        columns[what_draws] = columns.get(what_draws, {}) | scores
    note += "".join(f'<p class="soft">{escape(line)}</p>' for line in evaluation.notes)
    if evaluation.ceiling:
        columns["real test images"] = evaluation.ceiling
        said = f"{evaluation.pictures:,} drawn images beside the real test images of {escape(evaluation.data)}."
    head = "".join(f'<th scope="col">{name}</th>' for name in ("metric", *map(escape, columns)))
    rows = "".join(
        _score_row(name, [scores.get(name) for scores in columns.values()], contest=not evaluation.ceiling)
        for name in evaluation.metrics
    )
    return (
        f'<section><h2>Evaluation</h2><p>{said}</p><div class="card wide">'
        f'<table class="scores"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f"{note}{_verdict(evaluation.l1_minus_baseline)}</section>"
    )


def _score_row(name: str, scores: Sequence[Score | None], *, contest: bool) -> str:
    """Show one metric; in a contest the best score is marked, a ceiling is none."""
    metric = _metric(name)
    means = [score.mean for score in scores if score is not None]
    best = {"lower": min, "higher": max}.get(metric.better) if contest else None
    cells = []
    for score in scores:
        wins = score is not None and best is not None and len(set(means)) > 1 and score.mean == best(means)
        mark = ' class="better"' if wins else ""
        cells.append(f"<td{mark}>{_value(score, metric.decimals) if score is not None else '–'}</td>")
    note = f' <span class="soft">({metric.better} is better)</span>' if metric.better else ""
    return f'<tr><th scope="row">{escape(metric.label)}{note}</th>{"".join(cells)}</tr>'


def _metric(name: str) -> Metric:
    """Find how a metric is shown; at its end a name may say a direction ("l1_a2b") or a domain ("cycle_l1_a")."""
    base, _, of = name.rpartition("_")
    if name not in METRICS and base in METRICS and of in ("a2b", "b2a", "a", "b"):
        metric = METRICS[base]
        return replace(metric, label=f"{metric.label}, {of}")
    return METRICS.get(name, Metric(name, "", 4))


def _value(score: Score, decimals: int) -> str:
    """Write a mean and its interval."""
    values = [value for value in (score.mean, score.low, score.high) if value is not None]
    mean, *edges = [f"{value:.{decimals}f}".replace("-", "−") for value in values]
    return f'{mean} <span class="soft">[{", ".join(edges)}]</span>' if edges else mean


def _verdict(difference: Score | None) -> str:
    """Say what the paired difference in L1 tells."""
    if difference is None or difference.low is None or difference.high is None:
        return ""
    if difference.high < 0:
        verdict = "the model is closer than the baseline"
    elif difference.low > 0:
        verdict = "the baseline is closer than the model"
    else:
        verdict = "the two cannot be told apart"
    return f"<p>L1 minus the baseline's, image by image: {_value(difference, 4)}; {verdict}.</p>"


def _curves(log: Sequence[Series]) -> str:
    drawn = [chart(title, series) for title, series in _grouped(log)]
    if not drawn:
        return '<section><h2>Curves</h2><p class="soft">Nothing is logged yet.</p></section>'
    note = ""
    if any(len(series.steps) > MOST_POINTS for series in log):
        note = '<p class="soft">Lines show means of neighboring values, the bands behind them their range.</p>'
    return f'<section><h2>Curves</h2>{note}<div class="charts">{"".join(drawn)}</div></section>'


def _grouped(log: Sequence[Series]) -> Iterable[tuple[str, list[Series]]]:
    """Put series that belong together under one title, in the order of `CHARTS`."""
    left = {series.name: series for series in log if series.name not in NOT_DRAWN}
    for title, pattern in CHARTS:
        names = [name for name in left if re.fullmatch(pattern, name)]
        if names:
            yield title, [left.pop(name) for name in names]
    yield from ((name, [series]) for name, series in left.items())


def _options(title: str, values: Mapping[str, Any]) -> str:
    """Show nested options as a table for each group, the values without a group first."""
    if not values:
        return ""
    plain = {name: value for name, value in values.items() if not isinstance(value, dict)}
    groups = {"general": plain} | {name: value for name, value in values.items() if isinstance(value, dict)}
    cards = "".join(_option_group(name, group) for name, group in groups.items() if group)
    return f'<section><h2>{escape(title)}</h2><div class="groups">{cards}</div></section>'


def _option_group(name: str, values: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(option)}</th><td>{escape(_written(value))}</td></tr>'
        for option, value in _flat(values)
    )
    return f'<div class="card"><h3>{escape(name)}</h3><table>{rows}</table></div>'


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _written(value: object) -> str:
    """Write a JSON value for people."""
    if value is None or value in ({}, []):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_written(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
