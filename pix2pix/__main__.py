"""The command ``pix2pix``. Nothing heavy is imported before the options are parsed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from ganvas.cli.convert import ExportOptions, ImportOptions, run_export, run_import
from ganvas.cli.evaluate import EvaluateOptions, run_evaluate
from ganvas.cli.push import PushOptions, run_push
from ganvas.cli.receptive_field import ReceptiveFieldOptions
from ganvas.cli.receptive_field import run as run_receptive_field
from ganvas.cli.serve import ServeOptions, run_serve
from ganvas.cli.train import parse_train
from ganvas.cli.translate import TranslateOptions, run_translate
from ganvas.console import find_command, first_paragraph, parse_command, run_command
from pix2pix.config import Pix2PixConfig, Preset, data_folder, preset

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Train:
    """Train a translator from pairs of images, or go on training one (--resume)."""

    out: Path
    """Folder of the run: options, records, samples, checkpoints and the model."""
    options: Pix2PixConfig
    resume: bool = False
    """Go on from the newest checkpoint of --out, with that run's own options."""
    preset: Preset | None = None
    """Defaults of a named use: maps (the paper's, 256 pixels, 200 epochs) or demo (minutes on a CPU)."""
    config: Path | None = None
    """Take defaults from a run's config.json; other options override them."""


@dataclass(frozen=True)
class Translate:
    """Translate an image, or all images of a folder and its subfolders, with the same names and sizes."""

    options: Annotated[TranslateOptions, tyro.conf.arg(name="")]
    paper: bool = False
    """As the paper tests: dropout on, each image's own batch-norm statistics."""
    seed: int = 0
    """Seed of the dropout of --paper."""


@dataclass(frozen=True)
class Evaluate:
    """Score a model on held-out pairs: L1, PSNR and SSIM with 95% intervals, and the distance of patch statistics."""

    options: Annotated[EvaluateOptions, tyro.conf.arg(name="")]
    out: Path | None = None
    """Write every translated image to this folder."""


@dataclass(frozen=True)
class Report:
    """Write RUN/report.html: curves, metrics and samples of a run on one page."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""


ABOUT = "Image translation learned from pairs."
COMMANDS: dict[str, type[Any]] = {
    "translate": Translate,
    "evaluate": Evaluate,
    "report": Report,
    "export": ExportOptions,
    "import": ImportOptions,
    "push": PushOptions,
    "serve": ServeOptions,
    "receptive-field": ReceptiveFieldOptions,
    "train": Train,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; give its exit code."""
    return run_command("pix2pix", _run, argv)


def _run(arguments: list[str]) -> int:
    listing = {name: first_paragraph(options) for name, options in COMMANDS.items()}
    if find_command("pix2pix", ABOUT, listing, arguments) == "train":
        return _train(arguments[1:])
    command = parse_command("pix2pix", COMMANDS, arguments)
    if isinstance(command, Report):
        from ganvas.evaluation.labels import PAIRED_LABELS
        from ganvas.evaluation.report.writer import write_report

        print(write_report(command.run, PAIRED_LABELS))
        return 0
    if isinstance(command, Translate):
        return run_translate(command.options, kind="pix2pix", paper=command.paper, seed=command.seed)
    if isinstance(command, Evaluate):
        from pix2pix.evaluate import evaluate

        return run_evaluate(command.options, evaluate, sheet_rows=8, out=command.out)
    if isinstance(command, ExportOptions):
        return run_export(command)
    if isinstance(command, ImportOptions):
        return run_import(command, kind="pix2pix")
    if isinstance(command, PushOptions):
        return run_push(command)
    if isinstance(command, ServeOptions):
        return run_serve(command)
    if isinstance(command, ReceptiveFieldOptions):
        from pix2pix.networks import receptive_field_networks

        run_receptive_field(command, receptive_field_networks)
        return 0
    raise AssertionError(f"{type(command).__name__} has no function that runs it")


def _train(arguments: list[str]) -> int:
    command = parse_train("pix2pix", Train, Pix2PixConfig, get_args(Preset), preset, arguments)
    data_folder(command.options.data)  # missing: say so before the heavy imports
    from pix2pix.train import train_pix2pix

    return train_pix2pix(command.options, command.out, resume=command.resume)


if __name__ == "__main__":
    sys.exit(main())
