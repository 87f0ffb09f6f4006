"""The command ``dcgan``. Nothing heavy is imported before the options are parsed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dcgan.config import PRESETS, DcganConfig, Preset, preset
from ganvas.cli.program import Command, run_program
from ganvas.cli.push import PushOptions, run_push
from ganvas.cli.report import ReportOptions, run_report
from ganvas.cli.train import TrainCommand, parse_train

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Train:
    """Train a generator of digits or other small images, or continue a training (--resume)."""

    out: Path
    """Folder of the run."""
    options: Annotated[DcganConfig, tyro.conf.arg(name="")]
    resume: bool = False
    """Continue from the newest checkpoint of --out, with that run's options."""
    config: Path | None = None
    """Take defaults from the config.json of a run."""


@dataclass(frozen=True)
class Sample:
    """Draw images: a grid, walks between images (--interpolate), or a run's training as an animation (OUT.gif)."""

    model: tyro.conf.Positional[Path]
    """A run, a checkpoint or a model folder."""
    out: tyro.conf.Positional[Path]
    """The image; OUT.gif or OUT.webp shows how a run's samples changed in training."""
    rows: int = 10
    """Rows of the grid."""
    cols: int = 10
    """Images in a row."""
    seed: int = 0
    """Seed of the noise."""
    labels: str | None = None
    """Classes to draw, a row each, by number or name with commas between; for a conditional model."""
    interpolate: bool = False
    """Each row goes from one image to another."""
    device: Device = "auto"
    """Where to compute."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""


@dataclass(frozen=True)
class Evaluate:
    """Measure what a model draws: Fréchet and kernel distance, class coverage, precision, recall, copies and more."""

    model: tyro.conf.Positional[Path]
    """A run, a checkpoint or a model folder."""
    samples: int = 10_000
    """Images to draw."""
    seed: int = 0
    """Seed of the noise."""
    data: str | None = None
    """The data to compare with; by default what the model learned from, as its run's config.json names it."""
    data_root: Path | None = None
    """Where mnist and fashion-mnist lie, or are downloaded to; by default where the training found them, else
    $GANVAS_DATA, else "datasets"."""
    compare: Path | None = None
    """An evaluation.json of another model, shown beside; both must have been judged by the same classifier."""
    out: Path | None = None
    """Write the drawn images to this folder."""
    device: Device = "auto"
    """Where to compute."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""


@dataclass(frozen=True)
class Export:
    """Write a generator for another runtime: ONNX or a torch.export program. It is compared with the model first."""

    model: tyro.conf.Positional[Path]
    """A run, a checkpoint or a model folder."""
    out: tyro.conf.Positional[Path]
    """OUT.onnx or OUT.pt2."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""


@dataclass(frozen=True)
class ReceptiveField:
    """Show what a preset's discriminator sees, layer by layer, or find the stride-2 layers for a wanted field."""

    preset: Preset | None = None
    """Which networks; without it, a stack of stride-2 4x4 layers."""
    image_size: int | None = None
    """Pixels a side of the preset's images; 28 by default."""
    layers: int | None = None
    """Layers of the stack, 1 to 6; 3 by default."""
    target: int | None = None
    """Wanted field of the stack in pixels: the layers whose field is nearest are taken."""
    image: Path | None = None
    """Image to draw the field of one of the stack's outputs on."""
    out: Path | None = None
    """Where the drawing goes; with --preset it shows how often each pixel is read and written."""
    row: int | None = None
    """Row of the output that is drawn, from 0; the middle one by default."""
    column: int | None = None
    """Column of that output, from 0; the middle one by default."""
    json: bool = False
    """Print one JSON object instead of tables."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    return run_program("dcgan", "Digits and other small images from noise.", COMMANDS, argv)


def _parse_train(arguments: list[str]) -> TrainCommand[DcganConfig]:
    return parse_train("dcgan", Train, DcganConfig, PRESETS, preset, arguments)


def _train(command: TrainCommand[DcganConfig]) -> int:
    from dcgan.trainer import train_dcgan

    return train_dcgan(command.options, command.out, resume=command.resume).exit_code


def _sample(command: Sample) -> int:
    from dcgan.sample import run_sample

    return run_sample(command)


def _evaluate(command: Evaluate) -> int:
    from dcgan.evaluation import run_evaluate

    return run_evaluate(command)


def _report(options: ReportOptions) -> int:
    from dcgan.labels import LABELS

    return run_report(options, LABELS)


def _export(command: Export) -> int:
    from dcgan.export import run_export

    return run_export(command)


def _push(options: PushOptions) -> int:
    from dcgan.model import load_sampler

    return run_push(options, load=load_sampler, task="unconditional-image-generation")


def _receptive_field(command: ReceptiveField) -> int:
    from dcgan.receptive_fields import run_receptive_field

    return run_receptive_field(command)


COMMANDS = {
    "train": Command(Train, _train, _parse_train),
    "sample": Command(Sample, _sample),
    "evaluate": Command(Evaluate, _evaluate),
    "report": Command(ReportOptions, _report),
    "export": Command(Export, _export),
    "push": Command(PushOptions, _push),
    "receptive-field": Command(ReceptiveField, _receptive_field),
}

if __name__ == "__main__":
    sys.exit(main())
