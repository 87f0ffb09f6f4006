"""What several benchmarks share: synthetic photographs, ratios with an interval, tables, runs of digits."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import dcgan
from dcgan.config import Preset
from ganvas.training.checkpoint import list_checkpoints

MIN_TURNS = 7  # fewer pairs of measurements mean nothing on a noisy machine


def photo(rng: np.random.Generator, height: int, width: int, cells: Sequence[int] = (4, 16, 64)) -> Image.Image:
    """Draw an image with the detail of a photograph: coarse blobs, fine texture, a little noise."""
    pixels = rng.normal(0, 4, (height, width, 3))
    for count, weight in zip(cells, (0.5, 0.3, 0.15), strict=True):
        blobs = Image.fromarray(rng.integers(0, 256, (count, count * width // height, 3), dtype=np.uint8))
        pixels += weight * np.asarray(blobs.resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def ratio_interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return a 95% bootstrap interval of the median ratio."""
    picks = np.random.default_rng(0).choice(np.asarray(ratios), (5000, len(ratios)))
    low, high = np.quantile(np.median(picks, axis=1), (0.025, 0.975))
    return float(low), float(high)


def compare(plain: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Return the median of the ratios of paired durations, above 1 where ours are shorter, and its 95% interval."""
    ratios = [a / b for a, b in zip(plain, ours, strict=True)]
    low, high = ratio_interval(ratios)
    return {"ratio": statistics.median(ratios), "ratio_low": low, "ratio_high": high}


def show_ratio(result: dict[str, float]) -> str:
    """Format what `compare` returns."""
    return f"{result['ratio']:.2f} [{result['ratio_low']:.2f}, {result['ratio_high']:.2f}]"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def has_begun(run: Path) -> bool:
    """Return whether a training has begun in a folder, so that it has to be resumed."""
    return (run / "config.json").is_file()


def train_or_resume(run: Path, preset: Preset, data: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Train a digit run, or resume it if it has begun.

    Args:
        run: Its folder.
        preset: Its preset.
        data: Options that a resumed run takes from its own config; as in ``settings``, None stands for the preset's.
        settings: Length, logging and hardware options.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if has_begun(run):
        dcgan.resume(run, **given)
    else:
        dcgan.train(out=run, preset=preset, **{k: v for k, v in data.items() if v is not None}, **given)


def steps_done(run: Path) -> int:
    """Return the newest checkpoint's step."""
    return max((int(path.name.removeprefix("step-")) for path in list_checkpoints(run)), default=0)
