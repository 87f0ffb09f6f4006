"""Trainings that differ in a few options, compared on held-out images.

Each variant is trained alone, on one CPU thread, and finished ones are kept; so a comparison can be stopped and
continued, and two processes can share it (``--only``).
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import ganvas
from benchmarks.common import has_begun, table
from ganvas.data.encode import write_image
from ganvas.data.tensors import to_array
from ganvas.errors import UserError
from ganvas.evaluation.distribution import kernel_distance
from ganvas.evaluation.sheet import contact_sheet, evenly
from ganvas.json_files import read_json, write_json
from ganvas.nn.init import initialize_weights
from ganvas.training.checkpoint import list_checkpoints
from ganvas.training.schedule import Progress

SHEET_ROWS = 8
Step = Callable[[Mapping[str, Tensor], Progress], object]


@dataclass(frozen=True)
class Variant:
    """A training.

    Attributes:
        name: For the table.
        options: As of the module's ``train``.
        seed: Of the training.
        generator: Builds another generator than the options describe.
    """

    name: str
    options: dict[str, Any]
    seed: int = 0
    generator: Callable[[], nn.Module] | None = None

    @property
    def label(self) -> str:
        """Name and seed, which name the folder."""
        return f"{self.name}-seed{self.seed}"


@dataclass(frozen=True)
class HeldOutImages:
    """Held-out sources, and targets that the outputs are compared with: [N, C, H, W] in [-1, 1]; small sets only."""

    sources: Tensor
    targets: Tensor


def selected(variants: Sequence[Variant], patterns: str | None) -> list[Variant]:
    """Return the variants whose name or label matches one of the patterns, which commas separate; all for None.

    Raises:
        UserError: There are none.
    """
    if patterns is None:
        return list(variants)
    wanted = patterns.split(",")
    chosen = [
        each for each in variants if any(fnmatchcase(name, one) for name in (each.name, each.label) for one in wanted)
    ]
    if not chosen:
        names = ", ".join(dict.fromkeys(each.name for each in variants))
        raise UserError(f"--only {patterns}: there is no such variant. There are {names}.")
    return chosen


def step_times(steps: Mapping[str, tuple[Step, int]], batch: Mapping[str, Tensor], rounds: int) -> dict[str, float]:
    """Measure the CPU time of several training steps in turn.

    Args:
        steps: By name, the step and after how many calls its lazy penalties repeat.
        batch: What they are called with, [N, C, H, W] each.
        rounds: Of all steps, after one for warming up.

    Returns:
        By name, the median over the rounds, in seconds.
    """
    batch = {name: images.to(memory_format=torch.channels_last) for name, images in batch.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, (step, cycle) in steps.items():
            began = time.process_time()
            for number in range(cycle):
                step(batch, Progress(number, 1000))
            times[name].append((time.process_time() - began) / cycle)
    return {name: float(np.median(each[1:])) for name, each in times.items()}


def known_costs(path: Path, names: Sequence[str], measured: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return the seconds of a step by name, from ``path``; measure and write all if one of them is not there yet."""
    if not path.exists() or set(names) - read_json(path, "the costs of a step").keys():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, measured())
    return read_json(path, "the costs of a step")


def equal_time(variants: Sequence[Variant], costs: Mapping[str, float], minutes: float) -> dict[str, int]:
    """Return by label how many steps take ``minutes``."""
    return {each.label: max(1, round(60 * minutes / costs[each.name])) for each in variants}


def costs_table(costs: Mapping[str, float]) -> str:
    """Format the costs of steps."""
    first = next(iter(costs.values()))
    rows = [(name, f"{1000 * cost:.0f}", f"{cost / first:.2f}") for name, cost in costs.items()]
    return table(["recipe", "ms a step", "ratio to the first"], rows)


def build_generator(variant: Variant) -> nn.Module | None:
    """Build a variant's own generator, with initial weights from its seed; None if its options describe it."""
    if variant.generator is None:
        return None
    generator = variant.generator()
    initialize_weights(generator, generator=torch.Generator().manual_seed(variant.seed))
    return generator


def train(module: ModuleType, variant: Variant, data: Path, out: Path, *, steps: int) -> Path:
    """Train a variant, or continue its training, and return its run.

    Args:
        module: pix2pix or cyclegan.
        variant: To train.
        data: Dataset.
        out: Folder of the runs.
        steps: Length; a run that was stopped keeps its own.

    Raises:
        UserError: A signal stopped the training.
    """
    run, generator = out / variant.label, build_generator(variant)
    if has_begun(run):
        result = module.resume(run, generator=generator, losses=variant.options.get("losses"))
    else:
        options: dict[str, Any] = {"sample_every_steps": steps, "save_every_steps": max(1, steps // 2)}
        options |= {"seed": variant.seed, "threads": 1, "steps": steps, "generator": generator}
        result = module.train(data, run, **options | variant.options)
    if not result.complete:
        raise UserError(f"{run}: stopped at step {result.step:,}. Run the same command again to continue.")
    return run


def translate(checkpoint: Path, sources: Tensor, direction: str | None, generator: nn.Module | None = None) -> Tensor:
    """Translate all sources with a checkpoint."""
    translator = ganvas.load(checkpoint, direction=direction, generator=generator)
    return torch.stack([translator.translate_exactly(to_array(source, np.uint8)) for source in sources])


def random_kernel_distance(outputs: Tensor, targets: Tensor) -> float:
    """Compute the unbiased kernel distance of two sets of images in a fixed network of random weights.

    It is about 0 for other images of the targets' kind, and for the targets themselves a little below.

    Args:
        outputs: [N, C, H, W] in [-1, 1].
        targets: [M, C, H, W]; their features are scaled to deviation 1, so that each counts alike.
    """
    real, fake = kernel_features(targets), kernel_features(outputs)
    mean, deviation = real.mean(0), real.std(0).clamp(min=1e-6)
    features = [(each - mean) / deviation for each in (real, fake)]
    return kernel_distance(*features, subset_size=min(1000, len(outputs), len(targets)))


@torch.no_grad()
def kernel_features(images: Tensor) -> Tensor:
    """Return means and deviations of each layer of a fixed network of random weights: [N, 2 * (32 + 64 + 128 + 256)].

    Random features tell textures apart without having seen any images, and without a download.
    """
    rng = torch.Generator().manual_seed(0)
    x, found = images.float(), []
    for width in (32, 64, 128, 256):
        weight = torch.randn(width, x.shape[1], 4, 4, generator=rng) / math.sqrt(8 * x.shape[1])
        x = nn.functional.leaky_relu(nn.functional.conv2d(x, weight, stride=2, padding=1), 0.2)
        found += [x.mean((2, 3)), x.std((2, 3))]
    return torch.cat(found, dim=1)


def compare(
    module: ModuleType,
    variants: Sequence[Variant],
    data: Path,
    out: Path,
    *,
    steps: Mapping[str, int],
    open_test: Callable[[Mapping[str, Any]], HeldOutImages],
    measure: Callable[[HeldOutImages, Tensor], Mapping[str, float]],
    last_column: str | None = None,
) -> None:
    """Train and measure all variants, print the table of their figures and write a sheet.

    The sheet has a row for each of `SHEET_ROWS` evenly spread sources.

    Args:
        module: pix2pix or cyclegan.
        variants: To train.
        data: Dataset.
        out: Folder of the runs, their outputs and sheet.png.
        steps: By label.
        open_test: Opens the held-out images for a run's data options.
        measure: Returns the figures of outputs by their title.
        last_column: Title of the targets on the sheet; None leaves them out.
    """
    out.mkdir(parents=True, exist_ok=True)
    for variant in variants:
        record = out / f"{variant.label}.json"
        if record.exists():
            continue
        run = train(module, variant, data, out, steps=steps[variant.label])
        config = read_json(run / "config.json", "the run's config")
        sources = open_test(config["data"]).sources
        newest = list_checkpoints(run)[-1]  # variants are compared where they end, not at their best
        outputs = translate(newest, sources, config["data"]["direction"], build_generator(variant))
        torch.save(outputs.half(), out / f"{variant.label}.pt")
        write_json(record, {"steps": config["schedule"]["steps"]})
    test = open_test(read_json(out / variants[0].label / "config.json", "the run's config")["data"])
    rows, columns = [], {"source": test.sources}
    for label in (each.label for each in variants):
        columns[label] = torch.load(out / f"{label}.pt", weights_only=True).float()
        figures = measure(test, columns[label])
        count = read_json(out / f"{label}.json", "the figures")["steps"]
        rows.append([label, count, *(f"{value:.3f}" for value in figures.values())])
    print(table(["variant", "steps", *figures], rows))
    if last_column is not None:
        columns[last_column] = test.targets
    write_sheet(out / "sheet.png", columns)


def write_sheet(path: Path, columns: Mapping[str, Tensor]) -> None:
    """Write a sheet with a column for each set of images and a row for each of `SHEET_ROWS` evenly spread ones."""
    count = min(map(len, columns.values()))
    cells = [[to_array(images[index], np.uint8) for images in columns.values()] for index in evenly(count, SHEET_ROWS)]
    write_image(path, contact_sheet(cells, list(columns)))
