"""Why does tutorial 004's DCGAN draw only ones? Train it, ours, and it with one change at a time; count classes.

    python -m benchmarks.collapse --out runs/collapse

Runs are trained one after the other (finished ones are kept, stopped ones resumed). Then the
generator of every checkpoint draws 2,000 images, a classifier of real digits labels them, and the figure shows class
coverage and the entropy of the labels over the steps. It takes a day on two cores; ``--only`` selects runs.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import tyro

from benchmarks.common import train_or_resume
from dcgan.classifier import FeatureClassifier, cached_classifier
from dcgan.config import Preset
from dcgan.data import load_images
from dcgan.evaluation import coverage_and_entropy
from dcgan.model import load_sampler
from ganvas.console import run_command
from ganvas.json_files import read_json, write_json
from ganvas.training.checkpoint import list_checkpoints

SAMPLES = 2000


@dataclass(frozen=True)
class Options:
    """Train, measure and plot."""

    out: Path
    """Folder of the runs, collapse.json and collapse.png."""
    data: str = "mnist"
    """Dataset with labels."""
    data_root: Path | None = None
    """As for dcgan train."""
    steps: int = 20_000
    """Steps of the document's system."""
    ours_steps: int = 12_500
    """Steps of ours; they take about as long as the document's 20,000."""
    ablation_steps: int = 6_000
    """Steps of the runs with one change."""
    seeds: int = 3
    """Seeds of the document's system and ours."""
    precision: str | None = None
    """Precision of all runs; the preset's by default."""
    threads: int | None = None
    """CPU threads of each run."""
    only: str | None = None
    """Runs to train, separated by commas: document-*,signed."""
    draw_only: bool = False
    """Train nothing; measure and plot the existing runs."""


@dataclass(frozen=True)
class Plan:
    """One run: its name, preset, changed options and length."""

    name: str
    preset: Preset
    changes: Mapping[str, Any]
    steps: int
    seed: int = 0


# Changes to the document's system, one each, and finally three of ours at once.
ABLATIONS: dict[str, dict[str, Any]] = {
    "signed": {"pixel_range": "signed"},
    "init-normal": {"init": "normal"},
    "norm": {"norm": "batch"},
    "momentum": {"beta1": 0.5},
    "layers": {"extra_layers": 2},
    "channels-double": {"base_channels": 128},
    "channels-half": {"base_channels": 32},
    "signed-normal-norm": {"pixel_range": "signed", "init": "normal", "norm": "batch"},
}
OTHERS: dict[str, tuple[Preset, dict[str, Any]]] = {
    # A change that cures the document's system has to harm ours when it is reverted.
    "momentum-ours": ("dcgan", {"beta1": 0.9}),
    # Tutorial 002's slide: without batch norm only 0 and 1 are written.
    "mlp": ("mlp", {}),
    "mlp-no-norm": ("mlp", {"norm": "none"}),
}
COLORS = {"document": "firebrick", "ours": "navy"}
CHANGE_COLORS = ("C0", "C1", "C2", "C4", "C5", "C6", "C7", "C8", "C9")  # C3 is red too


def plans(options: Options) -> list[Plan]:
    """List all runs: the document's, ours, and the changes."""
    seeds = range(options.seeds)
    found = [Plan(f"document-{seed}", "dcgan-5x5", {}, options.steps, seed) for seed in seeds]
    found += [Plan(f"ours-{seed}", "dcgan", {}, options.ours_steps, seed) for seed in seeds]
    found += [Plan(name, "dcgan-5x5", changes, options.ablation_steps) for name, changes in ABLATIONS.items()]
    return [*found, *(Plan(name, *other, options.ablation_steps) for name, other in OTHERS.items())]


def train(plan: Plan, options: Options) -> None:
    """Train or resume a run, with 40 checkpoints."""
    settings: dict[str, Any] = {
        "steps": plan.steps,
        "save_every_steps": max(1, plan.steps // 40),
        "keep_checkpoints": 1000,
    }
    settings |= {"precision": options.precision, "threads": options.threads}
    data = {"data": options.data, "data_root": options.data_root, "seed": plan.seed, **plan.changes}
    train_or_resume(options.out / plan.name, plan.preset, data, settings)


def measure(run: Path, judge: FeatureClassifier, known: list[dict[str, float]]) -> list[dict[str, float]]:
    """Count the classes that each checkpoint's generator draws; ``known`` ones are not measured again."""
    done = {record["step"]: record for record in known}
    for folder in list_checkpoints(run):
        step = int(folder.name.removeprefix("step-"))
        if step in done:
            continue
        coverage, entropy = coverage_and_entropy(load_sampler(folder).sample(SAMPLES, seed=0), judge)
        done[step] = {"step": step, "coverage": coverage, "entropy": entropy}
    return [done[step] for step in sorted(done)]


def plot(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Plot coverage and entropy over steps: the document's system and ours, the changes, and the others."""
    from matplotlib.figure import Figure

    seeds = [name for name in curves if name.rpartition("-")[0] in COLORS]
    groups = {
        "the tutorial's system and ours, each seed": seeds,
        "the tutorial's system (red), changed": [name for name in curves if name in (*ABLATIONS, "document-0")],
        "other comparisons": [name for name in curves if name in OTHERS],
    }
    figure = Figure(figsize=(15, 7), layout="constrained")
    axes = figure.subplots(2, len(groups), sharex="col", squeeze=False)
    for (top, bottom), (title, names) in zip(axes.T, groups.items(), strict=True):
        # The changed systems are trained for fewer steps: their column ends there.
        end = max((c["step"] for n in names if n not in seeds for c in curves[n]), default=math.inf)
        for i, name in enumerate(names):
            records = [c for c in curves[name] if c["step"] <= end]
            group, _, seed = name.rpartition("-")
            label = name if name not in seeds else group if seed == "0" else None  # one for all seeds
            color = COLORS[group] if name in seeds else CHANGE_COLORS[i % len(CHANGE_COLORS)]
            for axis, key in ((top, "coverage"), (bottom, "entropy")):
                axis.plot([c["step"] for c in records], [c[key] for c in records], label=label, color=color)
        top.set(title=title, ylim=(0, 10.5), ylabel="classes with 2% or more")
        top.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.03))
        bottom.set(xlabel="steps", ylim=(0, 3.5), ylabel="entropy of the classes, bits")
        bottom.axhline(math.log2(10), color="gray", linewidth=0.8)
    figure.savefig(path, dpi=90)


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.collapse", args=arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    only = None if options.only is None else options.only.split(",")
    wanted = [p for p in plans(options) if only is None or any(fnmatchcase(p.name, each) for each in only)]
    for plan in [] if options.draw_only else wanted:
        train(plan, options)
    training_set, test_set = (load_images(options.data, split, root=options.data_root) for split in ("train", "test"))
    judge = cached_classifier(training_set, test_set)
    record = options.out / "collapse.json"
    known = read_json(record, "the measurements") if record.exists() else {}
    if known.get("judge") != judge.digest:  # measured by another classifier
        known = {}
    trained = [plan.name for plan in plans(options) if (options.out / plan.name / "model").is_dir()]
    curves = {name: measure(options.out / name, judge, known.get("curves", {}).get(name, [])) for name in trained}
    write_json(record, {"judge": judge.digest, "curves": curves})
    plot(curves, options.out / "collapse.png")
    for name, records in curves.items():
        last, least = records[-1], min(r["coverage"] for r in records)
        figures = f"coverage {last['coverage']:2} (least {least}), entropy {last['entropy']:.2f}"
        print(f"{name:18} step {last['step']:6}  {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.collapse", main))
