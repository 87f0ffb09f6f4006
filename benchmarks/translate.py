"""Images a second of a folder: a plain loop, translate_folder, and ONNX Runtime, in one process and in turn.

    python -m benchmarks.translate                              200 images of 256x256, U-Net 256 and ResNet 9
    python -m benchmarks.translate --count 20 --repeats 3

The plain loop is a tutorial's: load with Pillow, one image at a time, float32, contiguous memory, save. All read the
same PNG files and write PNG files. Weights are random; batch norms have statistics as if trained. Prints images/s
(medians), their ratios to the plain loop with a 95% interval over the repeats, and the difference from the plain loop's
images.
"""

import copy
import json
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image
from torch import nn

from benchmarks.common import compare, photo, show_ratio, table
from ganvas.console import run_command
from ganvas.device import Precision
from ganvas.errors import UserError
from ganvas.inference.export.program import export_translator
from ganvas.inference.translator import Translator
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing, build_generator
from ganvas.nn.init import initialize_weights

SPECS: Mapping[str, NetworkSpec] = {
    "unet": NetworkSpec("unet", {}, "A", "B"),
    "resnet": NetworkSpec("resnet", {}, "A", "B"),
}
Method = Callable[[Path, Path], object]  # from a folder into a folder


@dataclass(frozen=True)
class Options:
    """Measure the translation of a folder."""

    model: Literal["both", "unet", "resnet"] = "both"
    """Networks, of their published sizes."""
    count: int = 200
    """Images."""
    size: int = 256
    """Pixels a side."""
    repeats: int = 5
    """Measured turns, after one that does not count; at least 3."""
    precision: Precision = "auto"
    """Precision of translate_folder."""
    json: bool = False
    """Print one JSON object."""


def draw_images(folder: Path, count: int, size: int) -> Path:
    """Write PNG files."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        photo(rng, size, size).save(folder / f"{number:04d}.png")
    return folder


def make_network(spec: NetworkSpec) -> nn.Module:
    """Build a network with random weights, and batch norms with the statistics of random images."""
    torch.manual_seed(0)
    network = build_generator(spec)
    initialize_weights(network, "kaiming")
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 3, 64, 64) * 2 - 1)
    return network.eval()


def plain_loop(network: nn.Module) -> Method:
    """Return the textbook method."""

    def translate(source: Path, target: Path) -> None:
        target.mkdir()
        for path in sorted(source.iterdir()):
            image = np.array(Image.open(path).convert("RGB"))
            x = torch.from_numpy(image).permute(2, 0, 1)[None].float().contiguous() / 127.5 - 1  # [1, 3, H, W]
            with torch.no_grad():
                y = network(x)[0]
            values = ((y + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
            Image.fromarray(values).save(target / path.name)

    return translate


def our_translator(network: nn.Module, spec: NetworkSpec, size: int, precision: Precision) -> Translator:
    """Build ganvas's translator for a network."""
    config = ModelConfig("pix2pix", {"a2b": spec}, Preprocessing(3, 3, size, resized=False))
    return Translator(config, {"a2b": network}, precision=precision)


def onnx_loop(model: Path) -> Method:
    """Return the method of ``python -m ganvas.inference.onnx``."""
    from ganvas.inference.onnx import OnnxTranslator, read, write

    translator = OnnxTranslator(model)

    def translate(source: Path, target: Path) -> None:
        target.mkdir()
        for path in sorted(source.iterdir()):
            write(target / path.name, translator.translate(read(path, 3)))

    return translate


def measure(methods: Mapping[str, Method], source: Path, work: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Measure all methods in turn.

    Args:
        methods: Methods by name; the others are compared with the first.
        source: The images.
        work: A folder for the results.
        repeats: Turns that count, after one that does not.
    """
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(repeats + 1):
        for name, method in methods.items():
            shutil.rmtree(work / name, ignore_errors=True)
            began = time.perf_counter()
            method(source, work / name)
            times[name].append(time.perf_counter() - began)
    plain, *_ = methods
    result = {}
    for name, seconds in times.items():
        rate = len(list(source.iterdir())) / statistics.median(seconds[1:])
        mean, largest = _difference(work / plain, work / name)
        result[name] = {"images_per_second": rate, "mean_difference": mean, "largest_difference": largest}
        result[name] |= compare(times[plain][1:], seconds[1:])
    return result


def _difference(one: Path, other: Path) -> tuple[float, int]:
    """Return the mean and the largest difference of the images of two folders, in 255ths."""
    differences = [
        np.abs(np.asarray(Image.open(path)).astype(int) - np.asarray(Image.open(other / path.name)))
        for path in sorted(one.iterdir())
    ]
    return float(np.mean(differences)), int(np.max(differences))


def measure_model(name: str, options: Options, work: Path, source: Path) -> dict[str, dict[str, float]]:
    """Measure one network with every method; ONNX Runtime only where it is installed."""
    spec = SPECS[name]
    network = make_network(spec)
    translator = our_translator(copy.deepcopy(network), spec, options.size, options.precision)
    methods: dict[str, Method] = {"plain": plain_loop(network), "translate_folder": translator.translate_folder}
    exported = work / f"{name}.onnx"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            export_translator(translator, exported)
        methods["onnx"] = onnx_loop(exported)
    except UserError as error:
        print(error, file=sys.stderr)
    return measure(methods, source, work, options.repeats)


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.translate", args=arguments)
    if options.repeats < 3 or options.count < 1:
        raise UserError("--repeats has to be at least 3, and --count at least 1.")
    names = list(SPECS) if options.model == "both" else [options.model]
    with tempfile.TemporaryDirectory() as folder:
        source = draw_images(Path(folder) / "source", options.count, options.size)
        results = {name: measure_model(name, options, Path(folder), source) for name in names}
    about = {"threads": torch.get_num_threads(), "count": options.count, "size": options.size}
    if options.json:
        print(json.dumps(about | {"results": results}))
        return 0
    print(f"{options.count} images of {options.size} pixels, {about['threads']} threads")
    print(describe(results))
    return 0


def describe(results: Mapping[str, Mapping[str, dict[str, Any]]]) -> str:
    """Format the table."""
    rows = [
        (model, name, f"{row['images_per_second']:.2f}", show_ratio(row), f"{row['mean_difference']:.3f}",
         row["largest_difference"])
        for model, methods in results.items() for name, row in methods.items()
    ]  # fmt: skip
    return table(("model", "method", "images/s", "ratio [95%]", "mean difference", "largest"), rows)


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.translate", main))
