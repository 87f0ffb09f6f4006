"""The commands ``export`` and ``import``: models for other runtimes, and other tools' weights for ganvas.

Nothing heavy is imported before the options are parsed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ganvas.errors import UserError
from ganvas.options import optional

if TYPE_CHECKING:
    import numpy as np

    from ganvas.inference.translator import Translator

CARD = """# A translator from pytorch-CycleGAN-and-pix2pix

- {}
- Data, settings and license: as stated by whoever trained it
"""
MAX_SIZE = 8192
DATA_IMAGES = 16  # of --data or of the training split, to compare on and to calibrate int8 with
RUN_IMAGES = 4  # of the run's last split, to compare on if no data are given
Direction = Literal["a2b", "b2a"]


@dataclass(frozen=True)
class ExportOptions:
    """Export a model to ONNX, to a torch.export program, or as weights for pytorch-CycleGAN-and-pix2pix. The result is
    compared with the model before it is written.

    Attributes:
        model: A run, a checkpoint or a model folder.
        output: OUT.onnx or OUT.pt2.
        peer: Write weights for pytorch-CycleGAN-and-pix2pix instead.
        direction: Direction to export; needed for a model of two.
        weights: Weights of an ONNX file: fp16 halves it; int8 quarters it, computes with integers, and needs real
            images.
        data: Source images to compare on and to calibrate int8 with; by default some of the run's dataset, if it
            exists.
        json: Print one JSON object on standard output and nothing else there.
    """

    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    output: tyro.conf.Positional[Annotated[Path | None, optional("OUT")]] = None
    peer: Annotated[Path | None, optional("OUT.pth")] = None
    direction: Annotated[Direction | None, optional("{a2b,b2a}")] = None
    weights: Literal["fp32", "fp16", "int8"] = "fp32"
    data: Annotated[Path | None, optional("FOLDER")] = None
    json: bool = False


@dataclass(frozen=True)
class ImportOptions:
    """Import a generator that pytorch-CycleGAN-and-pix2pix trained, as a model folder.

    Attributes:
        weights: Its file, such as latest_net_G.pth. No code in it is executed.
        output: The model folder to write.
        direction: Its --direction: a2b is AtoB, b2a is BtoA.
        image_size: Pixels a side that images are scaled to before the network: its --load_size at test time.
        statistics: What batch norm normalizes by: picture as that tool by default, running as with its --eval.
    """

    weights: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="WEIGHTS")]]
    output: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUTPUT")]]
    direction: Direction = "a2b"
    image_size: int = 256
    statistics: Literal["picture", "running"] = "picture"

    @property
    def files(self) -> dict[Direction, Path]:
        """The files of the generators by direction."""
        return {self.direction: self.weights}


@dataclass(frozen=True)
class ImportBothOptions:
    """Import both generators of a CycleGAN that pytorch-CycleGAN-and-pix2pix trained, as one model folder.

    Attributes:
        weights_ab: The file of the generator from A to B: latest_net_G_A.pth. No code in it is executed.
        weights_ba: The file of the generator from B to A: latest_net_G_B.pth.
        output: The model folder to write.
        image_size: Pixels a side that images are scaled to before the network: its --load_size at test time.
        statistics: What batch norm normalizes by: picture as that tool by default, running as with its --eval.
    """

    weights_ab: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="WEIGHTS_AB")]]
    weights_ba: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="WEIGHTS_BA")]]
    output: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUTPUT")]]
    image_size: int = 256
    statistics: Literal["picture", "running"] = "picture"

    @property
    def files(self) -> dict[Direction, Path]:
        """The files of the generators by direction."""
        return {"a2b": self.weights_ab, "b2a": self.weights_ba}


def run_export(options: ExportOptions) -> int:
    """Export one direction of a model; return the exit code.

    Raises:
        UserError: The model is missing, not exactly one output is given, its format is unknown, or it differs.
    """
    from ganvas.inference.translator import load

    if (options.output is None) == (options.peer is None):
        raise UserError("export: give one output: OUT.onnx, OUT.pt2, or --peer OUT.pth.")
    translator = load(options.model, direction=options.direction)
    if options.peer is not None:
        result = _export_upstream(translator, options.peer)
    else:
        assert options.output is not None
        result = _export_runtime(translator, options.output, options)
    print_export(result, as_json=options.json)
    return 0


def print_export(result: Mapping[str, str | float], *, as_json: bool) -> None:
    """Print the result of an export, by label."""
    print(json.dumps(result) if as_json else "\n".join(f"{name}: {value}" for name, value in result.items()))


def _export_upstream(translator: "Translator", path: Path) -> dict[str, str | float]:
    from ganvas.inference.upstream.weights import write_upstream
    from ganvas.models.folder import all_arguments

    options = write_upstream(path, translator.network, translator.spec)
    if all_arguments(translator.spec)["norm"] == "batch" and translator.config.statistics == "running":
        options += " --eval"  # otherwise it normalizes each image by the image's own statistics
    return {"written": str(path), "load it with": options}


def _export_runtime(translator: "Translator", path: Path, options: ExportOptions) -> dict[str, str | float]:
    from ganvas.inference.export.program import export_translator, summary

    if path.suffix.lower() == ".pth":
        raise UserError(f"{path}: use --peer {path} to write weights for pytorch-CycleGAN-and-pix2pix.")
    images, origin = _run_images(translator, options) if options.data is None else _images(translator, options.data)
    if options.weights == "int8" and not images:
        raise UserError(f"--weights int8: needs real images for calibration. Give a folder with --data: {origin}.")
    differences = export_translator(translator, path, weights=options.weights, images=images)
    label = "taken from" if images else "no real images since"
    return summary(path, differences) | {"real images": len(images), label: origin}


def _images(translator: "Translator", folder: Path) -> tuple[list["np.ndarray"], str]:
    """Read source images [H, W, C] of a folder; return them and their origin."""
    from ganvas.data.listing import describe_empty, list_folder

    listing = list_folder(folder)
    files = listing.images
    if not files:
        raise UserError(f"{folder}: {describe_empty(listing.unread)}")
    step = max(1, len(files) // DATA_IMAGES)
    return [translator.read(file).array for file in files[::step][:DATA_IMAGES]], str(folder)


def _run_images(translator: "Translator", options: ExportOptions) -> tuple[list["np.ndarray"], str]:
    """Read source images [H, W, C] of the run's dataset; return them and their origin, or why there are none."""
    from ganvas.data.layout import splits
    from ganvas.inference.run_data import data_of_run, sample_sources

    try:
        data = data_of_run(options.model)
        if data is None:
            return [], "the model is not part of a run that names its data; use --data"
        if not (found := splits(data)):
            return [], f"{data}, the run's dataset, does not exist; use --data"
        # Calibration uses the training split: held-out images must not influence the model.
        split, count = (found[0], DATA_IMAGES) if options.weights == "int8" else (found[-1], RUN_IMAGES)
        images = sample_sources(translator.config, translator.direction, data, split, count)
        for image in images:
            translator.require_values(image, data)
    except (UserError, OSError) as error:
        return [], f"the run's data cannot be read: {error}"
    return [_as_trained(translator, image) for image in images], f"{data}, {split}"


def _as_trained(translator: "Translator", image: "np.ndarray") -> "np.ndarray":
    """Crop the center of an image [H, W, C] if training cropped: the full image may be too large to compare on."""
    if translator.resizes:
        return image
    S = translator.preprocessing.image_size
    top, left = (max(0, side - S) // 2 for side in image.shape[:2])
    return image[top : top + S, left : left + S]


def run_import(options: ImportOptions | ImportBothOptions, *, kind: str) -> int:
    """Import generators as a model folder; return the exit code.

    Raises:
        UserError: A file holds no generator, the generators do not match, or the folder cannot be written.
    """
    from ganvas.inference.upstream.weights import model_config, read_generator
    from ganvas.markdown import escape_markdown
    from ganvas.models.folder import require_channels, save_model

    output, files, size = options.output, options.files, options.image_size
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists already. Give the name of a new folder.")
    if not 1 <= size <= MAX_SIZE:
        raise UserError(f"--image-size {size}: give 1 to {MAX_SIZE} pixels.")
    found = {direction: read_generator(path, statistics=options.statistics) for direction, path in files.items()}
    specs = {direction: each.spec for direction, each in found.items()}
    config = model_config(specs, size, options.statistics, kind=kind)
    require_channels(config, ", ".join(map(str, files.values())))
    lines = [f"{direction}: {each.description}, from {files[direction].name}" for direction, each in found.items()]
    card = CARD.format("\n- ".join(map(escape_markdown, lines)))
    save_model(output, config, {direction: each.network for direction, each in found.items()}, card)
    print("\n".join([*lines, f"written: {output}"]))
    return 0
