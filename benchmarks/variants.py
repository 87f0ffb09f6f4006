"""Trainings of pix2pix that differ in a few options, compared on held-out images: shared by recipes and losses.

Each variant is trained alone, on one CPU thread, and finished ones are kept; so a comparison can be stopped and
continued, and two processes can share it (``--only``).
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import ganvas
import pix2pix
from benchmarks.common import has_begun, table
from ganvas.data.augment import Augmentation
from ganvas.data.encode import write_image
from ganvas.data.paired import PairedDataset
from ganvas.data.tensors import to_array
from ganvas.errors import UserError
from ganvas.evaluation.detail import octave_energies
from ganvas.evaluation.distribution import kernel_distance
from ganvas.evaluation.metrics import l1, sliced_wasserstein, ssim
from ganvas.evaluation.sheet import contact_sheet, evenly
from ganvas.json_files import read_json, write_json
from ganvas.nn.init import initialize_weights
from ganvas.training.config import with_options
from ganvas.training.schedule import Progress
from ganvas.training.trainer import GanNetworks
from pix2pix.config import Pix2PixConfig, preset
from pix2pix.networks import build_networks, generator_spec
from pix2pix.step import Pix2PixStep
from pix2pix.trainer import build_step

SHEET_ROWS = 8
FIGURES = {
    "l1": "L1",
    "ssim": "SSIM",
    "swd": "sliced Wasserstein",
    "spectrum": "fine spectrum",
    "kernel": "kernel distance",
}


@dataclass(frozen=True)
class Variant:
    """A training.

    Attributes:
        name: For the table.
        options: As of `pix2pix.train`.
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


def step_times(variants: Sequence[Variant], rounds: int = 7) -> dict[str, np.ndarray]:
    """Measure the CPU time of all variants' steps in turn, over whole cycles of their lazy penalties, on one thread.

    Returns:
        By label, the seconds of a step in each round.
    """
    torch.set_num_threads(1)
    steps = {}
    for variant in variants:
        named = preset(variant.options.get("preset"))
        config = with_options(named, {name: each for name, each in variant.options.items() if name != "preset"})
        steps[variant.label] = (_build_step(config), config.regularization.penalty_every)
        size, count = config.data.image_size, config.data.batch_size
    rng = torch.Generator().manual_seed(0)
    batch = {
        name: (2 * torch.rand(count, 3, size, size, generator=rng) - 1).to(memory_format=torch.channels_last)
        for name in ("source", "target")
    }
    times: dict[str, list[float]] = {label: [] for label in steps}
    for _ in range(rounds + 1):
        for label, (step, cycle) in steps.items():
            began = time.process_time()
            for number in range(cycle):
                step(batch, Progress(number, 1000))
            times[label].append((time.process_time() - began) / cycle)
    return {label: np.array(each[1:]) for label, each in times.items()}  # the first round is the warm-up


def _build_step(config: Pix2PixConfig) -> Pix2PixStep:
    G, D = build_networks(generator_spec(config.data, config.model, "a", "b"), config)
    networks = GanNetworks(
        Fabric(accelerator="cpu", devices=1), {"G": G, "D": D}, {"a2b": "G"}, config.optimizer, config.hardware
    )
    return build_step(config, networks)


def build_generator(variant: Variant) -> nn.Module | None:
    """Build a variant's own generator, with initial weights from its seed; None if its options describe it."""
    if variant.generator is None:
        return None
    generator = variant.generator()
    initialize_weights(generator, generator=torch.Generator().manual_seed(variant.seed))
    return generator


def train(variant: Variant, data: Path, out: Path, *, steps: int) -> Path:
    """Train a variant, or continue its training, and return its run."""
    run, generator = out / variant.label, build_generator(variant)
    if has_begun(run):
        pix2pix.resume(run, generator=generator, losses=variant.options.get("losses"))
    else:
        options: dict[str, Any] = {"sample_every_steps": steps, "save_every_steps": max(1, steps // 2)}
        options |= {"seed": variant.seed, "threads": 1, "steps": steps, "generator": generator}
        pix2pix.train(data, run, **options | variant.options)
    return run


@dataclass(frozen=True)
class TestSet:
    """All held-out pairs, [N, C, H, W] in [-1, 1] each; small sets only."""

    sources: Tensor
    targets: Tensor

    @classmethod
    def open(cls, data: Path, split: str, size: int, direction: Literal["a2b", "b2a"]) -> "TestSet":
        """Read a split at ``size`` pixels a side."""
        pairs = PairedDataset(data, split, augmentation=Augmentation(size, size, flip=False), direction=direction)
        items = [pairs[0, index] for index in range(len(pairs))]
        return cls(torch.stack([item["source"] for item in items]), torch.stack([item["target"] for item in items]))


def translate(run: Path, sources: Tensor, generator: nn.Module | None = None) -> Tensor:
    """Translate all sources with a run's newest checkpoint: variants are compared where they end, not at their best."""
    checkpoint = max((run / "checkpoints").glob("step-*"))
    translator = ganvas.load(checkpoint, generator=generator)
    return torch.stack([translator.translate_exactly(to_array(source, np.uint8)) for source in sources])


def measure(outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Compare outputs with their targets.

    Returns:
        "l1" in [0, 2], "ssim", "swd" (sliced Wasserstein), "spectrum" (energy of the two finest octaves, 1 for the
        targets'), and "kernel" (distance of the `kernel_features`; about 0 for other images of the targets' kind).
    """
    real, fake = kernel_features(targets), kernel_features(outputs)
    mean, deviation = real.mean(0), real.std(0).clamp(min=1e-6)  # so that each feature counts alike
    features = [(each - mean) / deviation for each in (real, fake)]
    count = len(targets)
    return {
        "l1": l1(outputs, targets).mean().item(),
        "ssim": ssim(outputs, targets).mean().item(),
        "swd": sliced_wasserstein(outputs, targets).mean,
        "spectrum": (octave_energies(outputs).sum() / octave_energies(targets).sum()).item(),
        "kernel": kernel_distance(*features, subset_size=min(1000, count)),
    }


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


def write_sheet(path: Path, test: TestSet, outputs: Mapping[str, Tensor]) -> None:
    """Write a sheet: source, each variant's output and the target of `SHEET_ROWS` evenly spread pairs."""
    columns = [("source", test.sources), *outputs.items(), ("target", test.targets)]
    rows = [
        [to_array(images[index], np.uint8) for _, images in columns] for index in evenly(len(test.sources), SHEET_ROWS)
    ]
    write_image(path, contact_sheet(rows, [title for title, _ in columns]))


def compare(variants: Sequence[Variant], data: Path, out: Path, *, split: str, steps: Mapping[str, int]) -> None:
    """Train and measure all variants, and print the table of their figures.

    Args:
        variants: To train.
        data: Dataset of pairs.
        out: Folder of the runs, their outputs and sheet.png.
        split: To measure on.
        steps: By label; a run that was stopped keeps its own number.
    """
    out.mkdir(parents=True, exist_ok=True)
    for variant in variants:
        record = out / f"{variant.label}.json"
        if record.exists():
            continue
        run = train(variant, data, out, steps=steps[variant.label])
        config = read_json(run / "config.json", "the run's config")
        test = TestSet.open(data, split, config["data"]["image_size"], config["data"]["direction"])
        outputs = translate(run, test.sources, build_generator(variant))
        torch.save(outputs.half(), out / f"{variant.label}.pt")
        write_json(record, {"steps": config["schedule"]["steps"]})
    config = read_json(out / variants[0].label / "config.json", "the run's config")["data"]
    test = TestSet.open(data, split, config["image_size"], config["direction"])
    images = {each.label: torch.load(out / f"{each.label}.pt", weights_only=True).float() for each in variants}
    write_sheet(out / "sheet.png", test, images)
    rows = []
    for label, outputs in images.items():
        figures = measure(outputs, test.targets)
        count = read_json(out / f"{label}.json", "the figures")["steps"]
        rows.append([label, count, *(f"{figures[key]:.3f}" for key in FIGURES)])
    print(table(["variant", "steps", *FIGURES.values()], rows))
