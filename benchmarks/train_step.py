"""Speed of a training step: the plain textbook step and ganvas's own, in one process and in turn.

    python -m benchmarks.train_step --model pix2pix --image-size 256 --batch-size 1,4
    python -m benchmarks.train_step --model cyclegan --image-size 256 [--compile]
    python -m benchmarks.train_step --model dcgan

The plain step is what one writes after reading the paper: float32, contiguous memory, default Adam, torch's own layers.
Both work on the same images. Prints images/s (medians), the ratio of the two with a 95% interval over the pairs,
and the share of the machine's measured matrix-product peak. FLOPs are counted by torch for the forward passes and
three times that where a pass is trained (forward, and two products backward). For digits the same step is also timed
with batches from the loader: they must not starve it.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import tyro

from benchmarks import cyclegan_step, dcgan_step, pix2pix_step
from ganvas.console import run_command
from ganvas.device import choose_device, choose_precision
from ganvas.errors import UserError

MODELS = {"pix2pix": pix2pix_step, "cyclegan": cyclegan_step, "dcgan": dcgan_step}
SIZES = {"pix2pix": 256, "cyclegan": 256, "dcgan": 28}
BATCH_SIZES = {"pix2pix": "1,4", "cyclegan": "1", "dcgan": "128"}


@dataclass(frozen=True)
class Options:
    """Measure the training step."""

    model: Literal["pix2pix", "cyclegan", "dcgan"] = "pix2pix"
    """Which model."""
    image_size: int | None = None
    """Pixels a side; by default 256, for dcgan 28."""
    batch_size: str | None = None
    """Batch sizes, with commas between; by default 1,4 for pix2pix, 1 for cyclegan, 128 for dcgan."""
    pairs: int = 9
    """Measured pairs of steps, plain and ours in turn; at least 7."""
    warmup: int = 3
    """Pairs before those."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    compile: bool = False
    """Compile our networks, as --compile of the trainings does."""
    json: bool = False
    """Print one JSON object."""


def peak_flops(device: str, dtype: torch.dtype) -> float:
    """Measure the fastest matrix product of a few tries, in FLOP/s."""
    n = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / min(_timed(lambda: a @ b, device) for _ in range(8))


def _timed(function: Callable[[], object], device: str) -> float:
    _wait(device)
    began = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def ratio_interval(ratios: list[float]) -> tuple[float, float]:
    """Give a 95% bootstrap interval of the median ratio."""
    values = torch.tensor(ratios)
    picks = torch.randint(len(ratios), (5000, len(ratios)), generator=torch.Generator().manual_seed(0))
    low, high = torch.quantile(values[picks].median(dim=1).values, torch.tensor([0.025, 0.975]))
    return float(low), float(high)


def measure(options: Options, image_size: int, batch_size: int, device: str) -> dict[str, object]:
    """Measure both steps in turn at one batch size."""
    model = MODELS[options.model]
    batch = model.make_batch(batch_size, image_size, device)
    plain, ours = model.plain_step(device, image_size), model.our_step(device, image_size, compiled=options.compile)
    times: list[tuple[float, float]] = []
    for _ in range(options.warmup + options.pairs):
        times.append((_timed(lambda: plain(batch), device), _timed(lambda: ours(batch), device)))
    times = times[options.warmup :]
    seconds = [statistics.median(column) for column in zip(*times, strict=True)]
    ratios = [a / b for a, b in times]
    dtype = torch.bfloat16 if choose_precision("auto", device) == "bf16" else torch.float32
    work = model.flops_per_image(image_size) * batch_size
    low, high = ratio_interval(ratios)
    return {
        "batch_size": batch_size,
        "plain_images_per_second": batch_size / seconds[0],
        "our_images_per_second": batch_size / seconds[1],
        "ratio": statistics.median(ratios),
        "ratio_low": low,
        "ratio_high": high,
        "plain_share_of_peak": work / seconds[0] / peak_flops(device, torch.float32),
        "our_share_of_peak": work / seconds[1] / peak_flops(device, dtype),
        "our_precision": str(dtype).removeprefix("torch."),
    }


def measure_loader(options: Options, batch_size: int, device: str) -> dict[str, float]:
    """Measure our step on one fixed batch and, in turn, on batches from the loader, whose time counts."""
    steps = options.warmup + options.pairs
    ours, fixed = dcgan_step.our_step(device, 28), dcgan_step.make_batch(batch_size, 28, device)
    loader = dcgan_step.loaded_batches(batch_size, 28, steps)

    def load_and_step() -> object:
        return ours({"picture": next(loader)["picture"].to(device)})

    times = [(_timed(lambda: ours(fixed), device), _timed(load_and_step, device)) for _ in range(steps)]
    without, with_loader = (statistics.median(column) for column in zip(*times[options.warmup :], strict=True))
    return {"fixed_steps_per_second": 1 / without, "loaded_steps_per_second": 1 / with_loader}


def main(arguments: list[str]) -> int:
    """Run the benchmark; give the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.train_step", args=arguments)
    if options.pairs < 7:
        raise UserError("--pairs is below 7: fewer say nothing on a noisy machine.")
    device = choose_device(options.device)
    size = options.image_size or SIZES[options.model]
    batch_sizes = [int(n) for n in (options.batch_size or BATCH_SIZES[options.model]).split(",")]
    results = [measure(options, size, n, device) for n in batch_sizes]
    loaded = measure_loader(options, batch_sizes[0], device) if options.model == "dcgan" else None
    if options.json:
        record = {"device": device, "threads": torch.get_num_threads(), "results": results, "loader": loaded}
        print(json.dumps(record))
        return 0
    how = ", ours compiled" if options.compile else ""
    print(f"{options.model}, {size} pixels, {device}, {torch.get_num_threads()} threads{how}")
    print("| batch | plain images/s | ganvas images/s | ratio [95%] | plain of fp32 peak | ganvas of its peak |")
    print("| --- | --- | --- | --- | --- | --- |")
    for r in results:
        print(
            f"| {r['batch_size']} | {r['plain_images_per_second']:.2f} | {r['our_images_per_second']:.2f} "
            f"| {r['ratio']:.2f} [{r['ratio_low']:.2f}, {r['ratio_high']:.2f}] | {r['plain_share_of_peak']:.0%} "
            f"| {r['our_share_of_peak']:.0%} ({r['our_precision']}) |"
        )
    if loaded is not None:
        fixed, with_loader = loaded["fixed_steps_per_second"], loaded["loaded_steps_per_second"]
        print(
            f"Steps/s with one fixed batch {fixed:.2f}, with batches from the loader {with_loader:.2f} "
            f"({with_loader / fixed - 1:+.1%})."
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.train_step", main))
