"""Train the model that comes with ganvas, and pack it.

    python -m data_scripts earth --out datasets/earth256 --size 256
    python -m benchmarks.shipped train --data datasets/earth256 --out runs/shipped
    python -m benchmarks.shipped pack runs/shipped

Crops of 128 pixels are taken from tiles of 256 at their own scale: more places than tiles, and nothing is resampled.
docs/earth.md has the figures.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

import pix2pix
from benchmarks.common import has_begun
from ganvas.console import run_command
from ganvas.data.decode import read_image
from ganvas.models.folder import CARD, SAMPLE, load_model, save_model
from ganvas.models.shipped import SHIPPED


@dataclass(frozen=True)
class Train:
    """Train, or continue a training."""

    data: Path
    """The Earth dataset of 256 pixels."""
    out: Path
    """Folder of the run."""
    steps: int = 25_000
    """Steps of 4 crops."""
    seed: int = 0
    """Seed of the training."""
    threads: int | None = None
    """CPU threads."""


@dataclass(frozen=True)
class Pack:
    """Write the run's best model into the package, in bfloat16."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    name: str = "earth"
    """Name of the model."""


def train(options: Train) -> None:
    """Train the model."""
    if has_begun(options.out):
        pix2pix.resume(options.out)
        return
    pix2pix.train(
        options.data,
        options.out,
        preset="demo",
        augment="paper",
        flip=False,
        load_size=0,
        ema=0.999,
        gan_loss="relativistic",
        r2=0.02,
        lambda_l1_end=15.0,
        steps=options.steps,
        seed=options.seed,
        threads=options.threads,
        save_every_steps=1000,
        sample_every_steps=1000,
    )


def pack(options: Pack) -> None:
    """Convert the weights to half the bytes and write the model folder."""
    folder = options.run / "model"
    config, networks = load_model(folder)
    card, sample = (folder / CARD).read_text(encoding="utf-8"), read_image(folder / SAMPLE, 3)
    for text, own in (
        ("not stated. Choose one before you share them (`push --license`)", "MIT, that of ganvas"),
        ('ganvas.load("this folder")', f'ganvas.load("{options.name}")'),
    ):
        assert text in card, "the card has other words"
        card = card.replace(text, own)
    halves = {name: network.to(torch.bfloat16) for name, network in networks.items()}
    save_model(SHIPPED / options.name, config, halves, card, sample)
    size = sum(file.stat().st_size for file in (SHIPPED / options.name).iterdir())
    print(f"{SHIPPED / options.name}: {size / 2**20:.1f} MB")


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code."""
    options = tyro.extras.subcommand_cli_from_dict(
        {"train": Train, "pack": Pack}, prog="python -m benchmarks.shipped", args=arguments
    )
    train(options) if isinstance(options, Train) else pack(options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.shipped", main))
