"""The command ``pix2pix``. Nothing heavy is imported before the options are parsed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from ganvas.cli.convert import ExportOptions, ImportOptions, run_export, run_import
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
from pix2pix.config import Pix2PixConfig, Preset, data_folder, preset

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Train:
    """Train a translator from pairs of images, or continue a training (--resume).

    Attributes:
        out: Folder of the run.
        resume: Continue from the newest checkpoint of --out, with that run's options.
        preset: Defaults of a named use: paper (256 pixels, 200 epochs), best (recommended) or demo (minutes on a CPU).
        config: Take defaults from the config.json of a run.
    """

    out: Path
    options: Annotated[Pix2PixConfig, tyro.conf.arg(name="")]
    resume: bool = False
    preset: Annotated[Preset | None, optional("{paper,best,demo}")] = None
    config: Annotated[Path | None, optional("FILE")] = None


@dataclass(frozen=True)
class Translate:
    """Translate an image, or all images of a folder and its subfolders, with the same names and sizes.

    Attributes:
        paper: As the paper tests: dropout on, each image's own batch-norm statistics.
        seed: Seed of the dropout of --paper.
    """

    options: Annotated[TranslateOptions, tyro.conf.arg(name="")]
    paper: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Evaluate:
    """Score a model on held-out pairs: L1, PSNR and SSIM with 95% intervals, and the distance of patch statistics.

    Attributes:
        out: Write every translated image to this folder.
    """

    options: Annotated[EvaluateOptions, tyro.conf.arg(name="")]
    out: Annotated[Path | None, optional("DIR")] = None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    return run_program("pix2pix", "Image translation learned from pairs.", COMMANDS, argv)


def _parse_train(arguments: list[str]) -> TrainCommand[Pix2PixConfig]:
    command = parse_train("pix2pix", Train, Pix2PixConfig, get_args(Preset), preset, arguments)
    data_folder(command.options.data)  # if it is missing, say so before the heavy imports
    return command


def _train(command: TrainCommand[Pix2PixConfig]) -> int:
    from pix2pix.trainer import train_pix2pix

    return train_pix2pix(command.options, command.out, resume=command.resume).exit_code


def _translate(command: Translate) -> int:
    return run_translate(command.options, kind="pix2pix", paper=command.paper, seed=command.seed)


def _evaluate(command: Evaluate) -> int:
    from pix2pix.evaluation import evaluate

    return run_evaluate(command.options, evaluate, sheet_rows=8, out=command.out)


def _report(options: ReportOptions) -> int:
    from ganvas.evaluation.labels import PAIRED_LABELS

    return run_report(options, PAIRED_LABELS)


def _receptive_field(options: ReceptiveFieldOptions) -> int:
    from pix2pix.networks import receptive_field_networks

    run_receptive_field(options, receptive_field_networks)
    return 0


COMMANDS = {
    "train": Command(Train, _train, _parse_train),
    "translate": Command(Translate, _translate),
    "evaluate": Command(Evaluate, _evaluate),
    "report": Command(ReportOptions, _report),
    "export": Command(ExportOptions, run_export),
    "import": Command(ImportOptions, partial(run_import, kind="pix2pix")),
    "push": Command(PushOptions, run_push),
    "serve": Command(ServeOptions, run_serve),
    "receptive-field": Command(ReceptiveFieldOptions, _receptive_field),
}

if __name__ == "__main__":
    sys.exit(main())
