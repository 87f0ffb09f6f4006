"""The command ``cyclegan``. Nothing heavy is imported before the options are parsed."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from cyclegan.config import CycleGanConfig, Preset, data_folder, defaults
from ganvas.cli.convert import ExportOptions, ImportBothOptions, run_export, run_import
from ganvas.cli.evaluate import EvaluateOptions, run_evaluate
from ganvas.cli.program import Command, run_program
from ganvas.cli.push import PushOptions, run_push
from ganvas.cli.receptive_field import ReceptiveFieldOptions
from ganvas.cli.receptive_field import run as run_receptive_field
from ganvas.cli.report import ReportOptions, run_report
from ganvas.cli.serve import ServeOptions, run_serve
from ganvas.cli.train import TrainCommand, parse_train
from ganvas.cli.translate import TranslateOptions, run_translate
from ganvas.options import optional

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Train:
    """Train translators between two domains of images without pairs, or continue a training (--resume).

    Attributes:
        out: Folder of the run.
        resume: Continue from the newest checkpoint of --out, with that run's options.
        preset: Defaults of a named use: paper (CycleGAN as published), cut and fastcut (one direction, as published),
            fast (one direction at 128 pixels, for a CPU) or earth64 (both at 64 pixels, for a CPU).
        config: Take defaults from the config.json of a run.
    """

    out: Path
    options: Annotated[CycleGanConfig, tyro.conf.arg(name="")]
    resume: bool = False
    preset: Annotated[Preset | None, optional("{paper,cut,fastcut,fast,earth64}")] = None
    config: Annotated[Path | None, optional("FILE")] = None


@dataclass(frozen=True)
class Translate:
    """Translate an image, or all images of a folder and its subfolders, with the same names and sizes.

    Attributes:
        direction: a2b translates images of domain A to domain B; needed for a model of both directions.
    """

    options: Annotated[TranslateOptions, tyro.conf.arg(name="")]
    direction: Annotated[Literal["a2b", "b2a"] | None, optional("{a2b,b2a}")] = None


@dataclass(frozen=True)
class Evaluate:
    """Score the model's directions: cycle and identity L1, patch statistics and, of pairs, L1, PSNR and SSIM.

    Attributes:
        limit: Use at most this many images of each domain, evenly spread.
    """

    options: Annotated[EvaluateOptions, tyro.conf.arg(name="")]
    limit: Annotated[int | None, optional("INT")] = None


@dataclass(frozen=True)
class ReceptiveField:
    """Show what an output of the discriminator sees, layer by layer, as a table and drawn on an image.

    Attributes:
        resampling: Of both networks: strided, as with --objective cycle, or blur, as with cut and fastcut.
    """

    options: Annotated[ReceptiveFieldOptions, tyro.conf.arg(name="")]
    resampling: Literal["strided", "blur"] = "strided"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    return run_program("cyclegan", "Image translation learned without pairs.", COMMANDS, argv)


def _parse_train(arguments: list[str]) -> TrainCommand[CycleGanConfig]:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--objective", nargs="?")
    given = vars(first.parse_known_args(arguments)[0])
    command = parse_train("cyclegan", Train, CycleGanConfig, get_args(Preset), partial(defaults, **given), arguments)
    data_folder(command.options.data)  # if it is missing, say so before the heavy imports
    return command


def _train(command: TrainCommand[CycleGanConfig]) -> int:
    from cyclegan.trainer import train_cyclegan

    return train_cyclegan(command.options, command.out, resume=command.resume).exit_code


def _translate(command: Translate) -> int:
    return run_translate(command.options, kind="cyclegan", direction=command.direction)


def _evaluate(command: Evaluate) -> int:
    from cyclegan.evaluation import evaluate

    return run_evaluate(command.options, partial(evaluate, limit=command.limit), sheet_rows=4)


def _report(options: ReportOptions) -> int:
    from ganvas.evaluation.labels import PAIRED_LABELS, MetricLabel

    labels = {"cycle_l1": MetricLabel("Cycle L1", "lower"), "identity_l1": MetricLabel("Identity L1", "lower")}
    return run_report(options, PAIRED_LABELS | labels)


def _receptive_field(command: ReceptiveField) -> int:
    from cyclegan.networks import receptive_field_networks

    run_receptive_field(command.options, partial(receptive_field_networks, resampling=command.resampling))
    return 0


COMMANDS = {
    "train": Command(Train, _train, _parse_train),
    "translate": Command(Translate, _translate),
    "evaluate": Command(Evaluate, _evaluate),
    "report": Command(ReportOptions, _report),
    "export": Command(ExportOptions, run_export),
    "import": Command(ImportBothOptions, partial(run_import, kind="cyclegan")),
    "push": Command(PushOptions, run_push),
    "serve": Command(ServeOptions, run_serve),
    "receptive-field": Command(ReceptiveField, _receptive_field),
}

if __name__ == "__main__":
    sys.exit(main())
