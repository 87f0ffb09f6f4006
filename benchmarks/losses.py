"""What does each loss of pix2pix do? L1, L2, GAN and GAN + L1, skips, and the size of D's patches, from one seed.

    python -m benchmarks.losses --data datasets/earth128 --out runs/losses

The comparison of Isola et al. 2017, Sec. 4.1 to 4.4, on maps and terrain. docs/losses.md has the results.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from benchmarks.paired import compare
from benchmarks.variants import Variant, selected
from ganvas.console import run_command
from ganvas.nn.unet import UNetGenerator

LEVELS, FILTERS = 7, 32  # seven levels reduce 128 pixels to one
COMMON: dict[str, Any] = {
    "image_size": 128,
    "augment": "none",
    "batch_size": 4,
    "levels": LEVELS,
    "base_channels": FILTERS,
    "discriminator_channels": FILTERS,
}


class UNetWithoutSkips(UNetGenerator):
    """The U-Net whose skip connections carry zeros: an encoder and decoder with the same number of weights."""

    def forward(self, source: Tensor) -> Tensor:
        """Translate [N, C_in, H, W] in [-1, 1] to [N, C_out, H, W] in [-1, 1]; 2 ** num_levels divides H and W."""
        x, widths = source, []
        for down in self.down:
            x = down(x)
            widths.append(x.shape[1])
        for index, up in enumerate(self.up):
            zeros = x.new_zeros(x.shape[0], widths[-1 - index], *x.shape[2:])
            x = up(torch.cat([zeros, x], dim=1) if index else x)
        return torch.tanh(x)


def l2_loss(source: Tensor, output: Tensor, target: Tensor) -> Tensor:
    """Compute the mean squared difference of output and target, [N, C, H, W] each."""
    return F.mse_loss(output, target)


def without_skips() -> UNetGenerator:
    """Build the U-Net without skips in the size of the others."""
    return UNetWithoutSkips(base_channels=FILTERS, num_levels=LEVELS)


VARIANTS = [
    Variant("L1", COMMON | {"lambda_gan": 0.0}),
    Variant("L2", COMMON | {"lambda_gan": 0.0, "lambda_l1": 0.0, "losses": {"l2": (100.0, l2_loss)}}),
    Variant("GAN", COMMON | {"lambda_l1": 0.0}),
    Variant("GAN + L1", COMMON),
    Variant("no skips", COMMON, generator=without_skips),
    Variant("patch 1", COMMON | {"patch_layers": 0}),
    Variant("patch 16", COMMON | {"patch_layers": 1}),
    Variant("patch 142", COMMON | {"patch_layers": 4}),
    Variant("whole image", COMMON | {"patch_layers": 5}),
]


@dataclass(frozen=True)
class Options:
    """Train with each loss for equal steps and compare the results."""

    data: Path
    """Dataset of pairs, 128 pixels."""
    out: Path
    """Folder of the runs, the figures and the sheet."""
    steps: int = 2500
    """Steps of each."""
    split: str = "test"
    """Split to measure on."""
    only: str | None = None
    """Variants to train, separated by commas: L1-seed0,patch*."""


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.losses", args=arguments)
    variants = selected(VARIANTS, options.only)
    steps = {each.label: options.steps for each in variants}
    compare(variants, options.data, options.out, split=options.split, steps=steps)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.losses", main))
