"""All presets compared: the same number of images seen, the same classifier, one table.

    python -m benchmarks.digits --out runs/digits

Trains each preset (with its own batch size, rates and a schedule of that length), evaluates it with 10,000 samples and
draws a grid. Finished runs are kept, stopped ones resumed. About an hour on two cores.
"""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

import dcgan
from benchmarks.common import steps_done, table, train_or_resume
from dcgan.config import PRESETS, Preset, preset
from dcgan.sample import draw_grid
from ganvas.console import run_command
from ganvas.json_files import write_json

COLUMNS = {
    "frechet_distance": "Fréchet",
    "kernel_distance": "kernel",
    "class_coverage": "classes",
    "label_entropy": "entropy, bits",
    "mean_confidence": "confidence",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "within_class_diversity": "diversity",
    "near_copies": "copies",
    "speckle": "speckle",
    "checkerboard_energy": "checkerboard",
    "label_fidelity": "fidelity",
}


@dataclass(frozen=True)
class Options:
    """Train and evaluate all presets."""

    out: Path
    """Folder of the runs and images."""
    data: str = "mnist"
    """Dataset with labels."""
    data_root: Path | None = None
    """As for dcgan train."""
    pictures: int = 120_000
    """Images that each preset sees."""
    samples: int = 10_000
    """Images that each draws for its evaluation."""
    precision: str | None = None
    """Precision of all; the preset's by default."""
    threads: int | None = None
    """CPU threads."""


def evaluate(name: Preset, options: Options) -> dict[str, Any]:
    """Train a preset, draw from it, evaluate it."""
    run = options.out / name
    steps = math.ceil(options.pictures / preset(name).data.batch_size)
    if steps_done(run) < steps:
        data = {"data": options.data, "data_root": options.data_root}
        settings: dict[str, Any] = {"steps": steps, "save_every_steps": max(1, steps // 4)}
        settings |= {"precision": options.precision, "threads": options.threads}
        train_or_resume(run, name, data, settings)
    draw_grid(run, options.out / f"{name}.png", rows=5)
    record = dcgan.evaluate(run, data_root=options.data_root, samples=options.samples)
    last = (run / "metrics.jsonl").read_text().splitlines()
    seconds = [json.loads(line)["seconds"] for line in last if "seconds" in line]
    return {**record, "minutes": seconds[-1] / 60}


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.digits", args=arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    records = {name: evaluate(name, options) for name in PRESETS}
    rows = [[name, f"{record['minutes']:.1f}", *_cells(record["metrics"])] for name, record in records.items()]
    rows.append(["real test images", "", *_cells(records[PRESETS[0]]["ceiling"])])
    print(table(("preset", "minutes", *COLUMNS.values()), rows))
    write_json(options.out / "digits.json", records)
    return 0


def _cells(metrics: Mapping[str, Any]) -> list[str]:
    return [f"{metrics[key]['mean']:.4g}" if key in metrics else "" for key in COLUMNS]


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.digits", main))
