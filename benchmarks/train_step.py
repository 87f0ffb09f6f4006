"""Speed of a training step: the plain textbook step and ganvas's own, in one process and in turn.

    python -m benchmarks.train_step --model pix2pix --image-size 256 --batch-size 1,4
    python -m benchmarks.train_step --model cyclegan --image-size 256 [--compile]
    python -m benchmarks.train_step --model cyclegan --objective cut
    python -m benchmarks.train_step --model dcgan

The plain step is written from the paper: float32, contiguous memory, default Adam, torch's own layers. Both work on the
same images. Prints images/s (medians), the ratio of the two with a 95% interval over the pairs, and the share of the
machine's measured matrix-product peak. FLOPs are counted by torch for the forward passes, and three times that where a
pass is trained (forward, and two products backward). For digits the step is also timed with batches from the loader.

With --objective, CycleGAN's own step is in the place of the plain one: how many of CUT's steps take the time of one?
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import tyro

from benchmarks import cyclegan_step, dcgan_step, pix2pix_step
from benchmarks.common import MIN_TURNS, compare, show_ratio, table
from benchmarks.step_tools import Step
from ganvas.console import run_command
from ganvas.device import choose_device, choose_precision
from ganvas.errors import UserError

# Module, pixels and batch sizes.
MODELS = {
    "pix2pix": (pix2pix_step, 256, "1,4"),
    "cyclegan": (cyclegan_step, 256, "1"),
    "dcgan": (dcgan_step, 28, "128"),
}
COLUMNS = ("batch", "plain images/s", "ganvas images/s", "ratio [95%]", "plain of fp32 peak", "ganvas of its peak")


@dataclass(frozen=True)
class Options:
    """Measure the training step."""

    model: Literal["pix2pix", "cyclegan", "dcgan"] = "pix2pix"
    """Which model."""
    objective: Literal["cycle", "cut", "fastcut"] = "cycle"
    """With --model cyclegan: compare the step of CUT or FastCUT with CycleGAN's own, both ours."""
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


def in_turn(options: Options, plain: Callable[[], object], ours: Callable[[], object], device: str) -> Any:
    """Time two functions in turn; return the durations of each without the warm-up."""
    pairs = [(_timed(plain, device), _timed(ours, device)) for _ in range(options.warmup + options.pairs)]
    return zip(*pairs[options.warmup :], strict=True)


def measure(options: Options, image_size: int, batch_size: int, device: str) -> dict[str, Any]:
    """Measure both steps at one batch size."""
    model, _, _ = MODELS[options.model]
    batch = model.make_batch(batch_size, image_size, device)
    plain, ours, flops = _steps(options, image_size, device)
    times = tuple(in_turn(options, lambda: plain(batch), lambda: ours(batch), device))
    plain_seconds, our_seconds = map(statistics.median, times)
    dtype = torch.bfloat16 if choose_precision("auto", device) == "bf16" else torch.float32
    first_work, work = (each * batch_size for each in flops)
    first_dtype = torch.float32 if options.objective == "cycle" else dtype
    return {
        "batch_size": batch_size,
        "plain_images_per_second": batch_size / plain_seconds,
        "our_images_per_second": batch_size / our_seconds,
        **compare(*times),
        "plain_share_of_peak": first_work / plain_seconds / peak_flops(device, first_dtype),
        "our_share_of_peak": work / our_seconds / peak_flops(device, dtype),
        "our_precision": str(dtype).removeprefix("torch."),
    }


def _steps(options: Options, image_size: int, device: str) -> tuple[Step, Step, tuple[float, float]]:
    """Build both steps, and count their work for an image."""
    model, _, _ = MODELS[options.model]
    ours, work = model.our_step(device, image_size, compiled=options.compile), model.flops_per_image(image_size)
    if options.objective == "cycle":
        return model.plain_step(device, image_size), ours, (work, work)
    other = cyclegan_step.contrastive_step(options.objective, device, image_size, compiled=options.compile)
    return ours, other, (work, cyclegan_step.contrastive_flops_per_image(options.objective, image_size))


def measure_loader(options: Options, batch_size: int, device: str) -> dict[str, float]:
    """Measure our step on one fixed batch and, in turn, on batches from the loader, whose time counts."""
    ours, fixed = dcgan_step.our_step(device, 28), dcgan_step.make_batch(batch_size, 28, device)
    loader = dcgan_step.loaded_batches(batch_size, 28, options.warmup + options.pairs)

    def load_and_step() -> object:
        return ours({"image": next(loader)["image"].to(device)})

    without, with_loader = map(statistics.median, in_turn(options, lambda: ours(fixed), load_and_step, device))
    return {"fixed_steps_per_second": 1 / without, "loaded_steps_per_second": 1 / with_loader}


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.train_step", args=arguments)
    if options.pairs < MIN_TURNS:
        raise UserError(f"--pairs is {options.pairs}: at least {MIN_TURNS} are needed on a noisy machine.")
    if options.objective != "cycle" and options.model != "cyclegan":
        raise UserError(f"--objective {options.objective} belongs to --model cyclegan.")
    device = choose_device(options.device)
    _, default_size, default_batches = MODELS[options.model]
    size = options.image_size or default_size
    batch_sizes = [int(n) for n in (options.batch_size or default_batches).split(",")]
    results = [measure(options, size, n, device) for n in batch_sizes]
    loaded = measure_loader(options, batch_sizes[0], device) if options.model == "dcgan" else None
    threads = torch.get_num_threads()
    if options.json:
        print(json.dumps({"device": device, "threads": threads, "results": results, "loader": loaded}))
        return 0
    print(f"{options.model}, {size} pixels, {device}, {threads} threads{', ours compiled' if options.compile else ''}")
    columns = COLUMNS if options.objective == "cycle" else tuple(map(partial(_rename, options.objective), COLUMNS))
    print(table(columns, map(row, results)))
    if loaded is not None:
        fixed, with_loader = loaded["fixed_steps_per_second"], loaded["loaded_steps_per_second"]
        print(f"Steps/s: one fixed batch {fixed:.2f}, loader {with_loader:.2f} ({with_loader / fixed - 1:+.1%}).")
    return 0


def _rename(objective: str, column: str) -> str:
    return (
        column.replace("plain of fp32 peak", "cycle of its peak").replace("plain", "cycle").replace("ganvas", objective)
    )


def row(result: dict[str, Any]) -> tuple[object, ...]:
    """Return a row of the table."""
    rates = (f"{result[f'{whose}_images_per_second']:.2f}" for whose in ("plain", "our"))
    ours = f"{result['our_share_of_peak']:.0%} ({result['our_precision']})"
    return result["batch_size"], *rates, show_ratio(result), f"{result['plain_share_of_peak']:.0%}", ours


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.train_step", main))
