"""Which recipe translates best without pairs in equal CPU time?

    python -m data_scripts horse2zebra --out datasets/horse2zebra
    python -m benchmarks.unpaired --data datasets/horse2zebra --out runs/unpaired

Each recipe trains the direction a to b at 128 pixels on one thread for as many steps as take equal CPU time, by the
costs of all recipes' steps, which are measured in turn in one process and kept in OUT/costs.json. CycleGAN trains both
directions in that time.

    python -m benchmarks.unpaired --curve runs/zebra --data datasets/horse2zebra --out runs/curve

measures all checkpoints that a run kept (``keep_checkpoints``) instead.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

import cyclegan
from benchmarks.common import table
from benchmarks.cyclegan_step import configured_step
from benchmarks.step_tools import noise_batch
from benchmarks.variants import (
    HeldOutImages,
    Step,
    Variant,
    compare,
    costs_table,
    equal_time,
    known_costs,
    random_kernel_distance,
    selected,
    step_times,
    translate,
    write_sheet,
)
from cyclegan.config import defaults
from ganvas.console import run_command
from ganvas.data.augment import Augmentation
from ganvas.data.unpaired import UnpairedDataset
from ganvas.errors import UserError
from ganvas.evaluation.metrics import l1, sliced_wasserstein
from ganvas.evaluation.sheet import evenly
from ganvas.json_files import read_json
from ganvas.training.checkpoint import list_checkpoints
from ganvas.training.config import with_options

COMMON: dict[str, Any] = {"image_size": 128}
HALF: dict[str, Any] = {"base_channels": 32, "discriminator_channels": 32, "num_blocks": 6}
FAST: dict[str, Any] = {"preset": "fast"}
BLUR = FAST | {"norm": "instance", "lambda_nce": 10.0, "resampling": "blur", "upsampling": "transpose"}

RECIPES: dict[str, dict[str, Any]] = {
    "cycle": {"preset": "paper"},
    "cycle-half": {"preset": "paper"} | HALF,
    "cut": {"preset": "cut"},
    "cut-half": {"preset": "cut"} | HALF,
    "fastcut": {"preset": "fastcut"},
    "fastcut-half": {"preset": "fastcut"} | HALF,
    "blur": BLUR,
    "blur-identity": BLUR | {"objective": "cut", "lambda_nce": 1.0},
    "blur-d-instance": BLUR | {"discriminator_norm": "instance"},
    "fast": FAST,
    "fast-identity": FAST | {"objective": "cut", "lambda_nce": 1.0},
    "fast-instance-norm": FAST | {"norm": "instance"},
    "fast-instance-norm-nce-10": FAST | {"norm": "instance", "lambda_nce": 10.0},
    "fast-instance-norm-patch-34": FAST | {"norm": "instance", "patch_layers": 2},
    "fast-nce-10": FAST | {"lambda_nce": 10.0},
    "fast-nce-1": FAST | {"lambda_nce": 1.0},
    "fast-d-instance": FAST | {"discriminator_norm": "instance"},
    "fast-lsgan": FAST | {"gan_loss": "lsgan"},
    "fast-spectral": FAST | {"discriminator_norm": "spectral", "r1": 0.0},
    "fast-no-penalty": FAST | {"r1": 0.0},
    "fast-r1-0.2": FAST | {"r1": 0.2},
    "fast-no-ema": FAST | {"ema": 0.0},
    "fast-augment": FAST | {"diff_augment": ("color", "translation", "cutout")},
    "fast-4-blocks": FAST | {"num_blocks": 4},
    "fast-16-filters": FAST | {"base_channels": 16},
    "fast-patch-34": FAST | {"patch_layers": 2},
    "fast-lr-d": FAST | {"lr_discriminator": 4e-4},
    "fast-transpose": FAST | {"upsampling": "transpose"},
    "fast-xavier": FAST | {"init": "xavier"},
    "fast-batch-4": FAST | {"batch_size": 4},
}


@dataclass(frozen=True)
class Options:
    """Train recipes for equal time and compare them."""

    data: Path | None = None
    """Dataset of two domains."""
    out: Path | None = None
    """Folder of the runs, the figures and the sheet."""
    minutes: float = 20.0
    """CPU time of each."""
    seeds: int = 2
    """Seeds of each."""
    split: str = "test"
    """Split to measure on."""
    only: str | None = None
    """Recipes and seeds to train, separated by commas: fast-seed0,fast-r1*."""
    step_time: bool = False
    """Measure the time of a step of each recipe instead; needs no data."""
    curve: Path | None = None
    """Measure the checkpoints of this run instead."""


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.unpaired", args=arguments)
    every = {name: COMMON | changes for name, changes in RECIPES.items()}
    chosen = selected(
        [Variant(name, given, seed) for seed in range(options.seeds) for name, given in every.items()], options.only
    )
    if options.step_time:
        print(costs_table(step_costs({each.name: each.options for each in chosen})))
        return 0
    if options.data is None or options.out is None:
        raise UserError("--data and --out are missing: name the dataset, and the folder of the runs.")
    data, out, split = options.data, options.out, options.split
    if options.curve is not None:
        measure_checkpoints(options.curve, data, split, out)
        return 0
    costs = known_costs(out / "costs.json", list(every), lambda: step_costs(every))

    def open_test(given: Mapping[str, Any]) -> HeldOutImages:
        return HeldOutImages(*(_read(data, split, domain, given["image_size"]) for domain in "ab"))

    steps = equal_time(chosen, costs, options.minutes)
    compare(cyclegan, chosen, data, out, steps=steps, open_test=open_test, measure=measure)
    test, size = open_test(chosen[0].options), chosen[0].options["image_size"]
    others = {"sources": test.sources, "training images of b": _read(data, "train", "b", size, len(test.targets))}
    figures = {name: measure(test, images) for name, images in others.items()}
    rows = [[name, *(f"{value:.3f}" for value in each.values())] for name, each in figures.items()]
    print(table(["for comparison", *figures["sources"]], rows))
    return 0


def measure_checkpoints(run: Path, data: Path, split: str, out: Path) -> None:
    """Print the figures of a run's checkpoints, and write a sheet with six of them.

    Raises:
        UserError: There are none.
    """
    config = read_json(run / "config.json", "the run's config")["data"]
    test = HeldOutImages(*(_read(data, split, domain, config["image_size"]) for domain in "ab"))
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    seconds = {record["step"]: record["seconds"] for record in records if "seconds" in record}
    rows, columns, figures = [], {"source": test.sources}, {}
    found = list_checkpoints(run)
    if not found:
        raise UserError(f"--curve {run}: it has no checkpoints.")
    shown = set(evenly(len(found), min(6, len(found))))
    for index, checkpoint in enumerate(found):
        step = int(checkpoint.name.removeprefix("step-"))
        outputs = translate(checkpoint, test.sources, config["direction"])
        figures = measure(test, outputs)
        rows.append([step, f"{seconds[step] / 60:.0f}", *(f"{value:.3f}" for value in figures.values())])
        if index in shown:
            columns[f"{step:,}"] = outputs
    print(table(["step", "minutes", *figures], rows))
    out.mkdir(parents=True, exist_ok=True)
    write_sheet(out / "curve.png", columns)


def step_costs(recipes: Mapping[str, dict[str, Any]], rounds: int = 5) -> dict[str, float]:
    """Return the seconds of a step of each recipe, measured in turn on one thread.

    Steps are measured with one image of each domain; for larger batches the time is multiplied.
    """
    torch.set_num_threads(1)
    steps, batch_sizes = {}, {}
    for name, given in recipes.items():
        options = dict(given)
        config = with_options(defaults(options.pop("preset")), options)
        size, batch_sizes[name] = config.data.image_size, config.data.batch_size
        step: Step = configured_step(config)
        steps[name] = step, config.regularization.penalty_every
    times = step_times(steps, noise_batch(("a", "b"), (1, 3, size, size), "cpu"), rounds)
    return {name: batch_sizes[name] * seconds for name, seconds in times.items()}


def measure(test: HeldOutImages, outputs: Tensor) -> dict[str, float]:
    """Compare outputs with the images of the target domain, and with their sources where they match in number.

    Returns:
        `random_kernel_distance` and sliced Wasserstein distance to the target domain, and the L1 distance to the
        sources in [0, 2], which tells an output that keeps its background.
    """
    count = min(len(outputs), len(test.targets))
    some, others = (images[evenly(len(images), count)] for images in (outputs, test.targets))
    return {
        "kernel distance": random_kernel_distance(outputs, test.targets),
        "sliced Wasserstein": sliced_wasserstein(some, others).mean,
        "L1 to source": l1(outputs, test.sources).mean().item() if len(outputs) == len(test.sources) else float("nan"),
    }


def _read(data: Path, split: str, domain: str, size: int, count: int | None = None) -> Tensor:
    images = UnpairedDataset(data, split, augmentation=Augmentation(size, size, flip=False))
    total = len(images.files[domain])
    return torch.stack([images.tensor(domain, index) for index in evenly(total, count or total)])


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.unpaired", main))
