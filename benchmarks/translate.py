"""Images a second of a whole folder: a plain loop, translate_folder, and ONNX Runtime, in one process and in turn.

    python -m benchmarks.translate                              200 images of 256x256, U-Net 256 and ResNet 9
    python -m benchmarks.translate --count 20 --repeats 3

The plain loop is what one writes after reading a tutorial: load with Pillow, one image at a time, float32, contiguous
memory, save. All read the same PNG files and write PNG files. Weights are random, so that the images mean nothing and
the time is that of trained ones; batch norms have statistics as if trained. Prints images/s (medians), their ratios
to the plain loop with a 95% interval over the repeats, and how far each is from the plain loop's images.
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
from typing import Literal

import numpy as np
import torch
import tyro
from PIL import Image
from torch import nn

from benchmarks.train_step import ratio_interval
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
Way = Callable[[Path, Path], object]  # from a folder into a folder


@dataclass(frozen=True)
class Options:
    """Measure the translation of a folder."""

    model: Literal["both", "unet", "resnet"] = "both"
    """Which networks, both of their published sizes."""
    count: int = 200
    """Pictures."""
    size: int = 256
    """Pixels a side."""
    repeats: int = 5
    """Measured turns, in each of which all take the whole folder; at least 3. One before them does not count."""
    precision: Precision = "auto"
    """Of translate_folder."""
    json: bool = False
    """Print one JSON object."""


def draw_pictures(folder: Path, count: int, size: int) -> Path:
    """Write PNG files with the detail of photographs: coarse blobs, fine texture, a little noise."""
    folder.mkdir(parents=True)
    chance = np.random.default_rng(0)
    for number in range(count):
        picture = np.zeros((size, size, 3))
        for cells, weight in ((4, 0.5), (16, 0.3), (64, 0.15)):
            coarse = Image.fromarray(chance.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            picture += weight * np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
        picture += chance.normal(0, 4, picture.shape)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04d}.png")
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


def plain_loop(network: nn.Module) -> Way:
    """Give the textbook way."""

    def translate(source: Path, target: Path) -> None:
        target.mkdir()
        for path in sorted(source.iterdir()):
            picture = np.array(Image.open(path).convert("RGB"))
            x = torch.from_numpy(picture).permute(2, 0, 1)[None].float().contiguous() / 127.5 - 1
            with torch.no_grad():
                y = network(x)[0]
            values = ((y + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
            Image.fromarray(values).save(target / path.name)

    return translate


def ours(network: nn.Module, spec: NetworkSpec, size: int, precision: Precision) -> Translator:
    """Make a model of ganvas of a network."""
    config = ModelConfig("pix2pix", {"a2b": spec}, Preprocessing(3, 3, size, resized=False))
    return Translator(config, {"a2b": network}, precision=precision)


def by_onnx(model: Path) -> Way:
    """Give the way of ``python -m ganvas.inference.onnx``."""
    from ganvas.inference.onnx import OnnxTranslator, read, write

    translator = OnnxTranslator(model)

    def translate(source: Path, target: Path) -> None:
        target.mkdir()
        for path in sorted(source.iterdir()):
            write(target / path.name, translator.translate(read(path, 3)))

    return translate


def measure(ways: Mapping[str, Way], source: Path, work: Path, repeats: int) -> dict[str, object]:
    """Measure all ways in turn, each on the whole folder.

    Args:
        ways: By name; the first is what the others are compared with.
        source: The images.
        work: A folder for the results, which are removed.
        repeats: Turns that count; one before them does not.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            shutil.rmtree(work / name, ignore_errors=True)
            began = time.perf_counter()
            way(source, work / name)
            times[name].append(time.perf_counter() - began)
    plain, *_ = ways
    result: dict[str, object] = {}
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(times[plain][1:], seconds[1:], strict=True)]
        low, high = ratio_interval(ratios)
        difference, largest = _apart(work / plain, work / name)
        result[name] = {
            "pictures_per_second": len(list(source.iterdir())) / statistics.median(seconds[1:]),
            "ratio": statistics.median(ratios),
            "ratio_low": low,
            "ratio_high": high,
            "mean_difference": difference,
            "largest_difference": largest,
        }
    return result


def _apart(one: Path, other: Path) -> tuple[float, int]:
    """Give the mean and the largest difference of the images of two folders, in 255ths."""
    apart = [
        np.abs(np.asarray(Image.open(path)).astype(int) - np.asarray(Image.open(other / path.name)))
        for path in sorted(one.iterdir())
    ]
    return float(np.mean(apart)), int(np.max(apart))


def measure_model(name: str, options: Options, work: Path, source: Path) -> dict[str, object]:
    """Measure one network every way; ONNX Runtime only where it is installed."""
    spec = SPECS[name]
    network = make_network(spec)
    translator = ours(copy.deepcopy(network), spec, options.size, options.precision)
    ways: dict[str, Way] = {"plain": plain_loop(network), "translate_folder": translator.translate_folder}
    exported = work / f"{name}.onnx"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            export_translator(translator, exported)
        ways["onnx"] = by_onnx(exported)
    except UserError as error:
        print(error, file=sys.stderr)
    return {"model": name, **measure(ways, source, work, options.repeats)}


def main(arguments: list[str]) -> int:
    """Run the benchmark; give the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.translate", args=arguments)
    if options.repeats < 3 or options.count < 1:
        raise UserError("--repeats: at least 3, fewer say nothing on a noisy machine; --count: at least 1.")
    names = list(SPECS) if options.model == "both" else [options.model]
    with tempfile.TemporaryDirectory() as folder:
        source = draw_pictures(Path(folder) / "source", options.count, options.size)
        results = [measure_model(name, options, Path(folder), source) for name in names]
    record = {"threads": torch.get_num_threads(), "count": options.count, "size": options.size, "results": results}
    print(json.dumps(record) if options.json else describe(record, results))
    return 0


def describe(record: Mapping[str, object], results: list[dict[str, object]]) -> str:
    """Make the table."""
    lines = [
        f"{record['count']} images of {record['size']} pixels, {record['threads']} threads",
        "| model | way | images/s | ratio [95%] | mean difference | largest |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        for way, row in result.items():
            if isinstance(row, dict):
                lines.append(
                    f"| {result['model']} | {way} | {row['pictures_per_second']:.2f} | {row['ratio']:.2f} "
                    f"[{row['ratio_low']:.2f}, {row['ratio_high']:.2f}] | {row['mean_difference']:.3f} "
                    f"| {row['largest_difference']} |"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.translate", main))
