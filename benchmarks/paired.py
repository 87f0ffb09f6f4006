"""How `benchmarks.recipes` and `benchmarks.losses` compare variants of pix2pix."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pix2pix
from benchmarks.variants import HeldOutImages, Variant, random_kernel_distance
from benchmarks.variants import compare as compare_variants
from ganvas.data.augment import Augmentation
from ganvas.data.paired import PairedDataset
from ganvas.evaluation.detail import octave_energies
from ganvas.evaluation.metrics import l1, sliced_wasserstein, ssim


def compare(variants: Sequence[Variant], data: Path, out: Path, *, split: str, steps: Mapping[str, int]) -> None:
    """Train and measure variants, as in `benchmarks.variants.compare`."""

    def open_test(options: Mapping[str, Any]) -> HeldOutImages:
        size, direction = options["image_size"], options["direction"]
        pairs = PairedDataset(data, split, augmentation=Augmentation(size, size, flip=False), direction=direction)
        items = [pairs[0, index] for index in range(len(pairs))]
        sources, targets = (torch.stack([item[side] for item in items]) for side in ("source", "target"))
        return HeldOutImages(sources, targets)

    compare_variants(
        pix2pix, variants, data, out, steps=steps, open_test=open_test, measure=measure, last_column="target"
    )


def measure(test: HeldOutImages, outputs: Tensor) -> dict[str, float]:
    """Compare outputs with their targets.

    Returns:
        L1 in [0, 2], SSIM, sliced Wasserstein distance, energy of the two finest octaves (1 for the targets'), and
        `random_kernel_distance`.
    """
    return {
        "L1": l1(outputs, test.targets).mean().item(),
        "SSIM": ssim(outputs, test.targets).mean().item(),
        "sliced Wasserstein": sliced_wasserstein(outputs, test.targets).mean,
        "fine spectrum": (octave_energies(outputs).sum() / octave_energies(test.targets).sum()).item(),
        "kernel distance": random_kernel_distance(outputs, test.targets),
    }
