"""The command ``dcgan``. Nothing heavy is imported before the options are parsed."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dcgan.config import PRESETS, DcganConfig, Preset, preset
from ganvas.cli.convert import print_export
from ganvas.cli.program import Command, run_program
from ganvas.cli.push import PushOptions, run_push
from ganvas.cli.receptive_field import ReceptiveFieldOptions, print_table, table_as_json
from ganvas.cli.receptive_field import run as run_receptive_field
from ganvas.cli.report import ReportOptions, run_report
from ganvas.cli.train import TrainCommand, parse_train
from ganvas.errors import UserError
from ganvas.evaluation.names import further_metrics
from ganvas.options import optional

if TYPE_CHECKING:
    from torch import Tensor

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
    """Folder of mnist and fashion-mnist, which are downloaded if missing; by default that of the training, else
    $GANVAS_DATA, else "datasets"."""
    compare: Path | None = None
    """An evaluation.json of another model, shown alongside; both must have been measured with the same classifier."""
    metrics: Annotated[str | None, optional("NAMES")] = None
    """Further metrics with commas between them: swd, fid, kid, sharpness, spectrum (docs/metrics.md)."""
    feature_weights: Annotated[Path | None, optional("FILE")] = None
    """Feature network for fid and kid instead of Inception v3: a TorchScript file, uint8 images [N, 3, 299, 299] to
    [N, D]. TorchScript can run code: name only files that you trust."""
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
    from dcgan.sample import ANIMATIONS, animate, draw_grid
    from ganvas.log import logger

    grid_options = ("rows", "cols", "seed", "labels", "interpolate")
    if command.out.suffix.lower() in ANIMATIONS:
        unused = [f"--{name}" for name in grid_options if getattr(command, name) != getattr(Sample, name)]
        if unused:
            raise UserError(
                f"{command.out}: {command.out.suffix} is for the animation of a training, whose images exist already; "
                f"it takes no {', '.join(unused)}. For a grid of images, give a name that ends with .png."
            )
        result = animate(command.model, command.out)
        count = f"{result['frames']} frames"
    else:
        options = {name: getattr(command, name) for name in grid_options}
        result = draw_grid(command.model, command.out, **options, device=command.device)
        count = f"{result['rows'] * result['cols']} images"
    if command.json:
        print(json.dumps({"written": str(command.out), **result}))
    else:
        logger.info(f"{count} written to {command.out}")
    return 0


def _evaluate(command: Evaluate) -> int:
    from dcgan.evaluation import evaluate
    from ganvas.data.encode import write_image
    from ganvas.data.formats import require_output_folder
    from ganvas.evaluation.results import keep_with_run

    if command.out is not None:
        require_output_folder(command.out)
    drawn = list["Tensor"]()
    result = evaluate(
        command.model,
        command.data,
        data_root=command.data_root,
        samples=command.samples,
        seed=command.seed,
        device=command.device,
        compare=command.compare,
        metrics=further_metrics(command.metrics, command.feature_weights),
        on_images=drawn.append if command.out is not None else None,
    )
    if command.json:
        print(json.dumps(result))
    else:
        _print_metrics(result)

    # Write files last: a full disk then loses no metrics.
    for images in drawn:
        assert command.out is not None
        suffix = "png" if images.shape[1] in (1, 3) else "tif"
        for number, image in enumerate(images):
            write_image(command.out / f"{number:05d}.{suffix}", image.permute(1, 2, 0).numpy())  # [S, S, C]
    keep_with_run(command.model, {name: value for name, value in result.items() if name != "compared_with"})
    return 0


def _print_metrics(result: Mapping[str, Any]) -> None:
    from dcgan.labels import LABELS
    from ganvas.cli.evaluate import print_table

    columns = {"model": result["metrics"]}
    if other := result.get("compared_with"):
        columns[other["model"]] = other["metrics"]
    columns["real test images"] = result["ceiling"]
    console = print_table(f"{result['pictures']:,} images drawn after {result['data']}", columns, LABELS)
    classifier = result["classifier"]
    console.print(
        f"Distances, precision, recall, density, coverage and diversity: {result['compared']:,} images of each set.\n"
        f"Classifier {classifier['digest'][:12]}, accuracy {classifier['accuracy']:.2%} on the real test images.",
        *result.get("notes", []),
        sep="\n",
        soft_wrap=True,
    )


def _report(options: ReportOptions) -> int:
    from dcgan.labels import LABELS

    return run_report(options, LABELS)


def _export(command: Export) -> int:
    from dcgan.export import exportable
    from dcgan.model import load_sampler
    from ganvas.inference.export.program import export, summary

    differences = export(exportable(load_sampler(command.model)), command.out)
    print_export(summary(command.out, differences), as_json=command.json)
    return 0


def _push(options: PushOptions) -> int:
    from dcgan.model import load_sampler

    return run_push(options, load=load_sampler, task="unconditional-image-generation")


def _receptive_field(command: ReceptiveField) -> int:
    if command.preset is not None:
        return _preset_receptive_field(command, command.preset)
    from dcgan.receptive_fields import strided_stack

    if command.image_size is not None:
        raise UserError("--image-size: is for a preset's images. Give --preset, too, or leave it out.")
    layers = 3 if command.layers is None else command.layers
    stack = ReceptiveFieldOptions(
        layers, command.target, command.json, command.image, command.out, command.row, command.column
    )
    run_receptive_field(stack, strided_stack, strided_only=True)
    return 0


def _preset_receptive_field(command: ReceptiveField, preset: Preset) -> int:
    from rich.console import Console

    from dcgan.networks import TUTORIAL_SIZE
    from dcgan.receptive_fields import draw_contributions, preset_fields
    from ganvas.data.encode import write_image

    given = ("layers", "target", "image", "row", "column")
    if wrong := [f"--{name}" for name in given if getattr(command, name) is not None]:
        raise UserError(f"{', '.join(wrong)}: a preset's layers are its own. Leave it out, or leave out --preset.")
    size = TUTORIAL_SIZE if command.image_size is None else command.image_size
    fields = preset_fields(preset, size)
    if command.out is not None:
        write_image(command.out, draw_contributions(fields.generator, fields.discriminator, size))
    if command.json:
        record = {
            "preset": preset,
            "picture_size": [size, size],
            "discriminator": table_as_json(fields.layers) if fields.layers else None,
            "uneven": [vars(layer) for layer in fields.uneven],
            "drawing": str(command.out) if command.out is not None else None,
        }
        print(json.dumps(record, indent=2))
        return 0
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if fields.layers:
        print_table(console, f"{preset}: discriminator", fields.layers, (size, size))
        seen = fields.layers[-1].receptive_field.size
        console.print(
            f"Each output of the last convolution sees {seen} x {seen} pixels; the dense layer after it sees the whole "
            f"image, {size} x {size}."
        )
    else:
        console.print(f"Dense layers only: from the first one on, every unit sees all {size} x {size} pixels.")
    for layer in fields.uneven:
        console.print(f"Warning: {layer}")
    if command.out is not None:
        console.print(f"drawn: {command.out}")
    return 0


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
