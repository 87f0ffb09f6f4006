"""The commands ``export`` and ``import`` of the modules: a model for other runtimes, other tools' weights for this one.

Nothing heavy is imported before the options are parsed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from ganvas.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from ganvas.inference.translator import Translator
    from ganvas.nn.layers import Statistics

CARD = """# A translator from pytorch-CycleGAN-and-pix2pix

- {}
- Data, settings and license: as whoever trained it says
"""
MAX_SIZE = 8192
REAL_PICTURES = 16  # to compare on and, for int8, to choose scales by
SOME_PICTURES = 4  # of the run's dataset, which nobody asked for: to compare on


@dataclass(frozen=True)
class ExportOptions:
    """Write a model for another runtime: ONNX, a torch.export program, or weights that pytorch-CycleGAN-and-pix2pix
    loads. What was written is compared with the model first."""

    model: tyro.conf.Positional[Path]
    """A run, a checkpoint or a model folder."""
    output: tyro.conf.Positional[Path | None] = None
    """OUT.onnx or OUT.pt2."""
    peer: Path | None = None
    """Write OUT.pth for pytorch-CycleGAN-and-pix2pix instead."""
    direction: Literal["a2b", "b2a"] | None = None
    """Which way, of a model that translates both."""
    weights: Literal["fp32", "fp16", "int8"] = "fp32"
    """Of an ONNX file: fp16 halves it; int8 quarters it, computes in whole numbers, and needs real images."""
    data: Path | None = None
    """A folder of source images to compare on; by default a few of the run's dataset, if it is there. int8 chooses
    its scales by them."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""


@dataclass(frozen=True)
class ImportOptions:
    """Make a model folder of a generator that pytorch-CycleGAN-and-pix2pix trained."""

    weights: tyro.conf.Positional[Path]
    """Its file, such as latest_net_G.pth. Nothing in it is run."""
    output: tyro.conf.Positional[Path]
    """The model folder to write."""
    direction: Literal["a2b", "b2a"] = "a2b"
    """Its --direction: a2b is AtoB, b2a is BtoA."""
    image_size: int = 256
    """Pixels a side that images are scaled to before the network: its --load_size when testing."""
    statistics: Literal["picture", "running"] = "picture"
    """What batch norm normalizes by: image as that tool does, running as it does with --eval."""


@dataclass(frozen=True)
class ImportBothOptions:
    """Make a model folder of both generators of a CycleGAN that pytorch-CycleGAN-and-pix2pix trained."""

    weights_ab: tyro.conf.Positional[Path]
    """The file of the generator from A to B: latest_net_G_A.pth. Nothing in it is run."""
    weights_ba: tyro.conf.Positional[Path]
    """The file of the generator from B to A: latest_net_G_B.pth."""
    output: tyro.conf.Positional[Path]
    """The model folder to write."""
    image_size: int = 256
    """Pixels a side that images are scaled to before the network: its --load_size when testing."""
    statistics: Literal["picture", "running"] = "picture"
    """What batch norm normalizes by: image as that tool does, running as it does with --eval."""


def run_export(options: ExportOptions) -> int:
    """Export one direction of a model; give the exit code.

    Raises:
        UserError: No model, no or two outputs, a format that is not known, or what is written differs.
    """
    from ganvas.inference.translator import load

    if (options.output is None) == (options.peer is None):
        raise UserError("export: give one output: OUT.onnx, OUT.pt2, or --peer OUT.pth.")
    translator = load(options.model, direction=options.direction)
    if options.peer is not None:
        said = _export_upstream(translator, options.peer)
    else:
        assert options.output is not None
        said = _export_runtime(translator, options.output, options)
    print_export(said, as_json=options.json)
    return 0


def print_export(said: Mapping[str, str | float], *, as_json: bool) -> None:
    """Tell people, or a program, what an export wrote."""
    print(json.dumps(said) if as_json else "\n".join(f"{name}: {value}" for name, value in said.items()))


def _export_upstream(translator: "Translator", path: Path) -> dict[str, str | float]:
    from ganvas.inference.upstream.weights import write_upstream
    from ganvas.models.folder import all_arguments

    options = write_upstream(path, translator.network, translator.spec)
    if all_arguments(translator.spec)["norm"] == "batch" and translator.config.statistics == "running":
        options += " --eval"  # else it normalizes each image by the image's own statistics
    return {"written": str(path), "load it with": options}


def _export_runtime(translator: "Translator", path: Path, options: ExportOptions) -> dict[str, str | float]:
    from ganvas.inference.export.program import export_translator, summary

    if path.suffix.lower() == ".pth":
        raise UserError(f"{path}: weights for pytorch-CycleGAN-and-pix2pix are written by --peer {path}.")
    real = _pictures_of_run(translator, options) if options.data is None else _pictures(translator, options.data)
    if options.weights == "int8" and not real.arrays:
        raise UserError(f"--weights int8: its scales are chosen by real images. Give a folder of them: {real.origin}.")
    found = export_translator(translator, path, weights=options.weights, pictures=real.arrays)
    told: dict[str, str | float] = {"real images": len(real.arrays)}
    told["taken from" if real.arrays else "no real images since"] = real.origin
    return summary(path, found) | told


@dataclass(frozen=True)
class _RealPictures:
    """Source images to compare on, [H, W, C] each, and where they are from, or why there are none."""

    arrays: "list[np.ndarray]"
    origin: str


def _pictures(translator: "Translator", folder: Path) -> _RealPictures:
    from ganvas.data.listing import describe_empty, list_folder

    listing = list_folder(folder)
    files = listing.images
    if not files:
        raise UserError(f"{folder}: {describe_empty(listing.unread)}")
    every = max(1, len(files) // REAL_PICTURES)
    return _RealPictures([translator.read(file).array for file in files[::every][:REAL_PICTURES]], str(folder))


def _pictures_of_run(translator: "Translator", options: ExportOptions) -> _RealPictures:
    """Read sources of the dataset that the run names; where that fails, the export goes on without them."""
    from ganvas.data.layout import splits
    from ganvas.inference.run_data import data_of_run, some_sources

    try:
        data = data_of_run(options.model)
        if data is None:
            return _RealPictures([], "the model lies in no run that names its data; --data gives some")
        if not (there := splits(data)):
            return _RealPictures([], f"{data}, the run's dataset, is not there; --data gives some")
        # Scales are chosen by what was trained on: held-out images have no part in the model.
        split, count = (there[0], REAL_PICTURES) if options.weights == "int8" else (there[-1], SOME_PICTURES)
        arrays = some_sources(translator.config, translator.direction, data, split, count)
        for array in arrays:
            translator.require_values(array, data)
    except (UserError, OSError) as error:
        return _RealPictures([], f"the run's data cannot be read: {error}")
    return _RealPictures([_as_trained(translator, array) for array in arrays], f"{data}, {split}")


def _as_trained(translator: "Translator", picture: "np.ndarray") -> "np.ndarray":
    """Give the middle of a image of which the training saw pieces: the whole may be too large to be compared on."""
    if translator.resizes:
        return picture
    S = translator.preprocessing.image_size
    top, left = (max(0, side - S) // 2 for side in picture.shape[:2])
    return picture[top : top + S, left : left + S]


def run_import(options: ImportOptions) -> int:
    """Import one generator; give the exit code.

    Raises:
        UserError: The file holds no generator, or the folder cannot be written.
    """
    return _write({options.direction: options.weights}, options.output, options.image_size, options.statistics)


def run_import_both(options: ImportBothOptions) -> int:
    """Import both generators of a CycleGAN; give the exit code.

    Raises:
        UserError: A file holds no generator, they do not translate there and back, or the folder cannot be written.
    """
    files: Mapping[Literal["a2b", "b2a"], Path] = {"a2b": options.weights_ab, "b2a": options.weights_ba}
    return _write(files, options.output, options.image_size, options.statistics)


def _write(files: Mapping[Literal["a2b", "b2a"], Path], output: Path, image_size: int, statistics: "Statistics") -> int:
    from ganvas.inference.upstream.weights import describe, read_generator
    from ganvas.markdown import escape_markdown
    from ganvas.models.folder import require_channels, save_model

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: is there already. Give the name of a new folder.")
    if not 1 <= image_size <= MAX_SIZE:
        raise UserError(f"--image-size {image_size}: give 1 to {MAX_SIZE} pixels.")
    found = {way: read_generator(path, statistics=statistics) for way, path in files.items()}
    lines = [f"{way}: {one.description}, from {files[way].name}" for way, one in found.items()]
    config = describe({way: one.spec for way, one in found.items()}, image_size, statistics)
    require_channels(config, ", ".join(map(str, files.values())))
    save_model(
        output,
        config,
        {way: one.network for way, one in found.items()},
        CARD.format("\n- ".join(map(escape_markdown, lines))),
    )
    print("\n".join([*lines, f"written: {output}"]))
    return 0
