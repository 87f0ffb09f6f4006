"""The command ``cyclegan``. Nothing heavy is imported before the options are parsed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from cyclegan.config import CycleGanConfig, Preset, data_folder, preset
from ganvas.cli.convert import ExportOptions, ImportBothOptions, run_export, run_import
from ganvas.cli.evaluate import EvaluateOptions, run_evaluate
from ganvas.cli.push import PushOptions, run_push
from ganvas.cli.receptive_field import ReceptiveFieldOptions
from ganvas.cli.receptive_field import run as run_receptive_field
from ganvas.cli.serve import ServeOptions, run_serve
from ganvas.cli.train import parse_train
from ganvas.cli.translate import TranslateOptions, run_translate
from ganvas.console import find_command, first_paragraph, parse_command, run_command

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Train:
    """Train translators between two domains of images without pairs, or go on training them (--resume)."""

    out: Path
    """Folder of the run: options, records, samples, checkpoints and the model."""
    options: CycleGanConfig
    resume: bool = False
    """Go on from the newest checkpoint of --out, with that run's own options."""
    preset: Preset | None = None
    """Defaults of a named use: horse2zebra (the paper's, 256 pixels) or earth64 (64 pixels, for a CPU)."""
    config: Path | None = None
    """Take defaults from a run's config.json; other options override them."""


@dataclass(frozen=True)
class Translate:
    """Translate an image, or all images of a folder and its subfolders, with the same names and sizes."""

    options: Annotated[TranslateOptions, tyro.conf.arg(name="")]
    direction: Literal["a2b", "b2a"]
    """a2b translates images of domain A to domain B."""


@dataclass(frozen=True)
class Evaluate:
    """Score both directions: cycle and identity L1, patch statistics, and, where there are pairs, L1, PSNR, SSIM."""

    options: Annotated[EvaluateOptions, tyro.conf.arg(name="")]
    limit: int | None = None
    """At most so many images of each domain, evenly over it."""


@dataclass(frozen=True)
class Report:
    """Write RUN/report.html: curves, metrics and samples of a run on one page."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""


ABOUT = "Image translation learned without pairs."
COMMANDS: dict[str, type[Any]] = {
    "translate": Translate,
    "evaluate": Evaluate,
    "report": Report,
    "export": ExportOptions,
    "import": ImportBothOptions,
    "push": PushOptions,
    "serve": ServeOptions,
    "receptive-field": ReceptiveFieldOptions,
    "train": Train,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; give its exit code."""
    return run_command("cyclegan", _run, argv)


def _run(arguments: list[str]) -> int:
    listing = {name: first_paragraph(options) for name, options in COMMANDS.items()}
    if find_command("cyclegan", ABOUT, listing, arguments) == "train":
        return _train(arguments[1:])
    command = parse_command("cyclegan", COMMANDS, arguments)
    if isinstance(command, Report):
        from ganvas.evaluation.labels import PAIRED_LABELS, MetricLabel
        from ganvas.evaluation.report.writer import write_report

        labels = {"cycle_l1": MetricLabel("Cycle L1", "lower"), "identity_l1": MetricLabel("Identity L1", "lower")}
        print(write_report(command.run, PAIRED_LABELS | labels))
        return 0
    if isinstance(command, Translate):
        return run_translate(command.options, kind="cyclegan", direction=command.direction)
    if isinstance(command, Evaluate):
        from cyclegan.evaluate import evaluate

        return run_evaluate(command.options, partial(evaluate, limit=command.limit), sheet_rows=4)
    if isinstance(command, ExportOptions):
        return run_export(command)
    if isinstance(command, ImportBothOptions):
        return run_import(command, kind="cyclegan")
    if isinstance(command, PushOptions):
        return run_push(command)
    if isinstance(command, ServeOptions):
        return run_serve(command)
    if isinstance(command, ReceptiveFieldOptions):
        from cyclegan.networks import receptive_field_networks

        run_receptive_field(command, receptive_field_networks)
        return 0
    raise AssertionError(f"{type(command).__name__} has no function that runs it")


def _train(arguments: list[str]) -> int:
    command = parse_train("cyclegan", Train, CycleGanConfig, get_args(Preset), preset, arguments)
    data_folder(command.options.data)  # missing: say so before the heavy imports
    from cyclegan.train import train_cyclegan

    return train_cyclegan(command.options, command.out, resume=command.resume)


if __name__ == "__main__":
    sys.exit(main())
