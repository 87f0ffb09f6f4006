"""Speed of loading pairs: a plain PIL and torchvision loader and ganvas's own, in one process and in turn.

    python -m benchmarks.load                        its own A|B pairs, JPEG of 1200x600 pixels
    python -m benchmarks.load --data DIR             another dataset of A|B images
    python -m benchmarks.load --workers 2            with loading processes, as many for both
    python -m benchmarks.load --listing 1000000      time and memory to open a folder of so many names, A|B and in two

Both scale to 286 pixels, cut 256 at random, mirror half of them and give tensors in [-1, 1], one pair at a time. The
plain loader is what one writes after reading torchvision's documentation. A turn is six passes over the pairs by each
loader, whose processes stay from pass to pass. In the first pass (cold) both start their processes and our cache is
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

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional as F

from benchmarks.train_step import ratio_interval
from ganvas.console import run_command
from ganvas.data.augment import Augmentation
from ganvas.data.decode_cache import DecodeCache, temporary_decode_cache
from ganvas.data.paired import PairedDataset, find_pairs
from ganvas.data.sampling import ResumableBatchSampler
from ganvas.errors import UserError

LOAD_SIZE, CROP_SIZE = 286, 256
WIDTH, HEIGHT = 1200, 600
QUALITY = 90
CACHE_BYTES = 2 * 10**9
PASSES = 6  # of which the first is cold


@dataclass(frozen=True)
class Options:
    """Measure the loading of pairs."""

    data: Path | None = None
    """Dataset with A|B images in DIR/train; by default pairs of noise and shapes are drawn."""
    pairs: int = 60
    """Pairs that a pass loads."""
    turns: int = 7
    """Measured turns; at least 7."""
    workers: int = 0
    """Loading processes."""
    listing: int = 0
    """Measure instead how a folder of so many names is opened."""
    json: bool = False
    """Print one JSON object."""


class PlainPairs(Dataset[dict[str, Tensor]]):
    """A|B images as torchvision's documentation would have them loaded.

    Args:
        files: The images.
    """

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self._resize = transforms.Resize((LOAD_SIZE, LOAD_SIZE), transforms.InterpolationMode.BICUBIC)
        self._normalize = transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Give {"source": [3, 256, 256] in [-1, 1], "target": the same}."""
        both = Image.open(self.files[index]).convert("RGB")
        W, H = both.size
        halves = [both.crop((0, 0, W // 2, H)), both.crop((W // 2, 0, W, H))]
        pictures = [self._resize(half) for half in halves]
        top, left, height, width = transforms.RandomCrop.get_params(pictures[0], (CROP_SIZE, CROP_SIZE))
        mirrored = random.random() < 0.5
        pictures = [F.crop(picture, top, left, height, width) for picture in pictures]
        pictures = [F.hflip(picture) if mirrored else picture for picture in pictures]
        source, target = (self._normalize(F.to_tensor(picture)) for picture in pictures)
        return {"source": source, "target": target}


def plain_batches(files: list[Path], workers: int, passes: int) -> Iterable[dict[str, Tensor]]:
    """Make passes of the plain loader, with the same processes."""
    loader = DataLoader(
        PlainPairs(files), batch_size=1, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return chain.from_iterable(repeat(loader, passes))


def our_batches(root: Path, pairs: int, workers: int, cache: DecodeCache, passes: int) -> Iterable[dict[str, Tensor]]:
    """Make passes of ours, as a training makes them: one loader goes through all."""
    dataset = PairedDataset(root, "train", augmentation=Augmentation(LOAD_SIZE, CROP_SIZE), cache=cache)
    sampler = ResumableBatchSampler(pairs, 1, seed=0, start_step=0, stop_step=passes * pairs)
    return DataLoader(dataset, batch_sampler=sampler, num_workers=workers)


def measure(root: Path, pairs: int, turns: int, workers: int) -> dict[str, object]:
    """Measure both loaders in turn.

    Args:
        root: A dataset of A|B images.
        pairs: How many of them a pass loads.
        turns: Turns that count. One before them, without loading processes, does not: it pays for imports.
        workers: Loading processes.
    """
    files = sorted((root / "train").iterdir())[:pairs]
    plain, ours = [], []
    for turn in range(turns + 1):
        processes = workers if turn else 0
        plain.append(_timed(plain_batches(files, processes, PASSES), len(files)))
        with temporary_decode_cache(CACHE_BYTES) as cache:
            ours.append(_timed(our_batches(root, len(files), processes, cache, PASSES), len(files)))
    result: dict[str, object] = {"pairs": len(files), "turns": turns, "workers": workers}
    for which, name in enumerate(("cold", "warm")):
        theirs, mine = ([seconds[which] for seconds in loader[1:]] for loader in (plain, ours))
        result[f"plain_{name}_pairs_per_second"] = len(files) / statistics.median(theirs)
        result[f"{name}_pairs_per_second"] = len(files) / statistics.median(mine)
        ratios = [one / other for one, other in zip(theirs, mine, strict=True)]
        low, high = ratio_interval(ratios)
        result |= {f"{name}_ratio": statistics.median(ratios), f"{name}_low": low, f"{name}_high": high}
    return result


def _timed(batches: Iterable[dict[str, Tensor]], pairs: int) -> tuple[float, float]:
    """Give the seconds of the first pass, from the first pair asked for to the last received, and the others' mean."""
    times = [time.perf_counter()]
    for number, batch in enumerate(batches, start=1):
        assert batch["source"].shape == (1, 3, CROP_SIZE, CROP_SIZE)
        if number % pairs == 0:
            times.append(time.perf_counter())
    return times[1] - times[0], (times[-1] - times[1]) / (len(times) - 2)


def draw_pairs(root: Path, count: int) -> Path:
    """Write A|B images with the detail of photographs: coarse blobs, fine texture, a little noise."""
    (root / "train").mkdir(parents=True)
    chance = np.random.default_rng(0)
    for number in range(count):
        picture = np.zeros((HEIGHT, WIDTH, 3))
        for cells, weight in ((8, 0.5), (40, 0.3), (200, 0.15)):
            coarse = Image.fromarray(chance.integers(0, 256, (cells, 2 * cells, 3), dtype=np.uint8))
            picture += weight * np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        picture += chance.normal(0, 4, picture.shape)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(root / "train" / f"{number}.jpg", quality=QUALITY)
    return root


def measure_listing(count: int) -> list[dict[str, object]]:
    """Open folders of ``count`` empty files: one of A|B images, and two of equal stems."""
    results = []
    for folders in (["train"], ["trainA", "trainB"]):
        with tempfile.TemporaryDirectory() as root:
            for folder in folders:
                (Path(root) / folder).mkdir()
                for number in range(count):
                    os.close(os.open(Path(root) / folder / f"picture-{number:07d}.jpg", os.O_CREAT | os.O_WRONLY))
            results.append({"layout": " and ".join(folders), **_opened(Path(root))})
    return results


def _opened(root: Path) -> dict[str, object]:
    """Open a dataset twice: for the time, and for the most memory that Python and NumPy hold meanwhile."""
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
    """Run the benchmark; give the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.load", args=arguments)
    if options.listing:
        listings = measure_listing(options.listing)
        print(json.dumps(listings) if options.json else "\n".join(map(_describe_listing, listings)))
        return 0
    if options.turns < 7:
        raise UserError("--turns is below 7: fewer say nothing on a noisy machine.")
    torch.set_num_threads(1)  # one process against one process
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or draw_pairs(Path(folder) / "pairs", options.pairs)
        result = measure(root, options.pairs, options.turns, options.workers)
    print(json.dumps(result) if options.json else _describe(result))
    return 0


def _describe(result: dict[str, object]) -> str:
    head = f"{result['pairs']} pairs a pass, {result['turns']} turns, {result['workers']} loading processes"
    rows = [
        f"| {name} | {result[f'plain_{name}_pairs_per_second']:.1f} | {result[f'{name}_pairs_per_second']:.1f} "
        f"| {result[f'{name}_ratio']:.2f} [{result[f'{name}_low']:.2f}, {result[f'{name}_high']:.2f}] |"
        for name in ("cold", "warm")
    ]
    return "\n".join(
        [head, "| pass | plain, pairs/s | ganvas, pairs/s | ratio [95%] |", "| --- | --- | --- | --- |", *rows]
    )


def _describe_listing(result: dict[str, object]) -> str:
    return (
        f"{result['layout']}: {result['pairs']} pairs in {result['seconds']:.1f} s, {result['peak_mb']:.0f} MB at most"
    )


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.load", main))
