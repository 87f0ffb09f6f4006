"""Speed of loading pairs: a plain PIL and torchvision loader and ganvas's own, in one process and in turn.

    python -m benchmarks.load                        its own A|B pairs, JPEG of 1200x600 pixels
    python -m benchmarks.load --data DIR             another dataset of A|B images
    python -m benchmarks.load --workers 2            with two loading processes each
    python -m benchmarks.load --listing 1000000      time and memory to open a folder of so many names, A|B and in two

Both scale to 286 pixels, crop 256 at random, mirror half of them and return tensors in [-1, 1], one pair at a time. A
turn is six passes over the pairs by each loader. In the first pass (cold) both start their processes and our cache is
empty; the other five are warm. Prints pairs/s (medians) of either kind of pass, and the ratios of ours to the plain
loader's with a 95% interval over the turns.
"""

import json
import os
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional as F

from benchmarks.common import MIN_TURNS, compare, photo, show_ratio, table
from ganvas.console import run_command
from ganvas.data.augment import Augmentation
from ganvas.data.decode_cache import DecodeCache, temporary_decode_cache
from ganvas.data.paired import PairedDataset
from ganvas.data.pairs import find_pairs
from ganvas.data.sampling import ResumableBatchSampler
from ganvas.errors import UserError

LOAD_SIZE, CROP_SIZE = 286, 256
CACHE_BYTES = 2 * 10**9
PASSES = 6  # of which the first is cold


@dataclass(frozen=True)
class Options:
    """Measure the loading of pairs."""

    data: Path | None = None
    """Dataset with A|B images in DIR/train; by default synthetic pairs."""
    pairs: int = 60
    """Pairs in a pass."""
    turns: int = 7
    """Measured turns; at least 7."""
    workers: int = 0
    """Loading processes."""
    listing: int = 0
    """Measure instead how long a folder of so many names takes to open."""
    json: bool = False
    """Print one JSON object."""


class PlainPairs(Dataset[dict[str, Tensor]]):
    """A|B images, loaded as torchvision's documentation does."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self._resize = transforms.Resize((LOAD_SIZE, LOAD_SIZE), transforms.InterpolationMode.BICUBIC)
        self._normalize = transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return {"source": [3, 256, 256] in [-1, 1], "target": the same}."""
        both = Image.open(self.files[index]).convert("RGB")
        W, H = both.size
        images = [self._resize(half) for half in (both.crop((0, 0, W // 2, H)), both.crop((W // 2, 0, W, H)))]
        crop = transforms.RandomCrop.get_params(images[0], (CROP_SIZE, CROP_SIZE))
        images = [F.crop(image, *crop) for image in images]
        if random.random() < 0.5:
            images = [F.hflip(image) for image in images]
        source, target = (self._normalize(F.to_tensor(image)) for image in images)
        return {"source": source, "target": target}


def plain_batches(files: list[Path], workers: int, passes: int) -> Iterable[dict[str, Tensor]]:
    """Make passes with the plain loader, in the same processes."""
    data = PlainPairs(files)
    loader = DataLoader(data, batch_size=1, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    return chain.from_iterable(repeat(loader, passes))


def our_batches(root: Path, pairs: int, workers: int, cache: DecodeCache, passes: int) -> Iterable[dict[str, Tensor]]:
    """Make passes with ours, as a training does: one loader goes through all."""
    dataset = PairedDataset(root, "train", augmentation=Augmentation(LOAD_SIZE, CROP_SIZE), cache=cache)
    sampler = ResumableBatchSampler(pairs, 1, seed=0, start_step=0, stop_step=passes * pairs)
    return DataLoader(dataset, batch_sampler=sampler, num_workers=workers)


def measure(root: Path, pairs: int, turns: int, workers: int) -> dict[str, Any]:
    """Measure both loaders in turn.

    Args:
        root: A dataset of A|B images.
        pairs: Pairs in a pass.
        turns: Turns that count, after one without loading processes that pays for imports.
        workers: Loading processes.
    """
    files = sorted((root / "train").iterdir())[:pairs]
    plain, ours = [], []
    for turn in range(turns + 1):
        processes = workers if turn else 0
        plain.append(time_passes(plain_batches(files, processes, PASSES), len(files)))
        with temporary_decode_cache(CACHE_BYTES) as cache:
            ours.append(time_passes(our_batches(root, len(files), processes, cache, PASSES), len(files)))
    return {"pairs": len(files), "turns": turns, "workers": workers, **summarize(plain[1:], ours[1:], len(files))}


def summarize(
    plain: list[tuple[float, float]], ours: list[tuple[float, float]], pairs: int
) -> dict[str, dict[str, float]]:
    """Return rates and ratios of cold and of warm passes, from the seconds of each turn."""
    results = {}
    for name, theirs, mine in zip(("cold", "warm"), zip(*plain, strict=True), zip(*ours, strict=True), strict=True):
        rates = {"plain": pairs / statistics.median(theirs), "ganvas": pairs / statistics.median(mine)}
        results[name] = rates | compare(theirs, mine)
    return results


def time_passes(batches: Iterable[dict[str, Tensor]], pairs: int) -> tuple[float, float]:
    """Return the seconds of the first pass, up to its last pair, and the mean of the others."""
    began = time.perf_counter()
    ends = []
    for number, batch in enumerate(batches, start=1):
        assert batch["source"].shape == (1, 3, CROP_SIZE, CROP_SIZE)
        if number % pairs == 0:
            ends.append(time.perf_counter())
    return ends[0] - began, (ends[-1] - ends[0]) / (len(ends) - 1)


def draw_pairs(root: Path, count: int) -> Path:
    """Write A|B images of the size and weight of published maps."""
    (root / "train").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        photo(rng, 600, 1200, (8, 40, 200)).save(root / "train" / f"{number}.jpg", quality=90)
    return root


def measure_listing(count: int) -> list[dict[str, Any]]:
    """Open folders of ``count`` empty files: one of A|B images, and two of equal stems."""
    results = []
    for folders in (["train"], ["trainA", "trainB"]):
        with tempfile.TemporaryDirectory() as root:
            for folder in folders:
                (Path(root) / folder).mkdir()
                for number in range(count):
                    os.close(os.open(Path(root) / folder / f"image-{number:07d}.jpg", os.O_CREAT | os.O_WRONLY))
            results.append({"layout": " and ".join(folders), **_opened(Path(root))})
    return results


def _opened(root: Path) -> dict[str, Any]:
    """Open a dataset twice: for the time, and for the peak memory of Python and NumPy."""
    began = time.perf_counter()
    pairs = len(find_pairs(root, "train"))
    seconds = time.perf_counter() - began
    tracemalloc.start()
    try:
        find_pairs(root, "train")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return {"pairs": pairs, "seconds": seconds, "peak_mb": peak / 1e6}


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.load", args=arguments)
    if options.listing:
        listings = measure_listing(options.listing)
        rows = [
            (each["layout"], each["pairs"], f"{each['seconds']:.1f}", f"{each['peak_mb']:.0f}") for each in listings
        ]
        print(json.dumps(listings) if options.json else table(("layout", "pairs", "seconds", "peak, MB"), rows))
        return 0
    if options.turns < MIN_TURNS:
        raise UserError(f"--turns is {options.turns}: at least {MIN_TURNS} are needed on a noisy machine.")
    torch.set_num_threads(1)  # one process against one process
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or draw_pairs(Path(folder) / "pairs", options.pairs)
        result = measure(root, options.pairs, options.turns, options.workers)
    if options.json:
        print(json.dumps(result))
        return 0
    print(f"{result['pairs']} pairs a pass, {result['turns']} turns, {result['workers']} loading processes")
    passes = {name: result[name] for name in ("cold", "warm")}
    rows = [(name, f"{r['plain']:.1f}", f"{r['ganvas']:.1f}", show_ratio(r)) for name, r in passes.items()]
    print(table(("pass", "plain, pairs/s", "ganvas, pairs/s", "ratio [95%]"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.load", main))
