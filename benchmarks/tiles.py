"""Memory, time and seams of a large GeoTIFF that is translated in tiles by a small U-Net with instance norm.

python -m benchmarks.tiles --size 20000
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tifffile
import torch
import tyro

from ganvas.errors import UserError
from ganvas.inference.tiles import Tiling, translate_tiled
from ganvas.inference.translator import Translator
from ganvas.modelfile import ModelConfig, NetworkSpec, Preprocessing
from ganvas.nn.unet import UNetGenerator

BLOCK = 256


@dataclass(frozen=True)
class Options:
    """Measure the translation of a large picture."""

    size: int = 20000
    """Pixels a side."""
    tile: int = 512
    """Pixels a side of a tile."""
    overlap: int = 64
    """Pixels that tiles share."""
    exact: bool = False
    """Gather statistics from all tiles."""


def small_model() -> Translator:
    """Build a U-Net of five levels, its weights at their start."""
    torch.manual_seed(0)
    network = UNetGenerator(base_channels=8, num_levels=5, norm="instance", dropout=0.0)
    spec = NetworkSpec("unet", {}, "A", "B")
    return Translator(ModelConfig("pix2pix", {"a2b": spec}, Preprocessing(3, 3, 256, False)), {"a2b": network})


def draw_picture(path: Path, height: int, width: int) -> Path:
    """Write a tiled TIFF of waves and noise, dark in the west and bright in the east, block by block."""

    def blocks() -> Iterator[np.ndarray]:
        chance = np.random.default_rng(0)
        for top in range(0, height, BLOCK):
            for left in range(0, width, BLOCK):
                y, x = np.mgrid[top : top + BLOCK, left : left + BLOCK]
                values = 100 + 60 * np.sin(x / 40) * np.cos(y / 55) + 60 * (x / width - 0.5)
                noise = chance.normal(0, 6, (BLOCK, BLOCK, 3))
                yield (values[..., None] + noise).clip(0, 255).astype(np.uint8)

    tifffile.imwrite(
        path, blocks(), shape=(height, width, 3), dtype=np.uint8, tile=(BLOCK, BLOCK), photometric="rgb", maxworkers=1
    )
    return path


def peak_bytes() -> int:
    """Give the most memory that this process has held; 0 on Windows, which does not tell it this way."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    """Run the benchmark; print one JSON object."""
    options = tyro.cli(Options, prog="python -m benchmarks.tiles")
    with tempfile.TemporaryDirectory() as folder:
        source = draw_picture(Path(folder) / "source.tif", options.size, options.size)
        began = time.perf_counter()
        try:
            tiling = Tiling(options.tile, options.overlap, options.exact)
            result = translate_tiled(small_model(), source, Path(folder) / "out.tif", tiling)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        seconds = time.perf_counter() - began
    figures = asdict(result) | {"path": None, "seconds": seconds, "peak_mb": peak_bytes() / 1e6}
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
