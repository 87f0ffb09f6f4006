"""Memory, time and seams of a large GeoTIFF that is translated in tiles, and the effect of sharing norm statistics.

    python -m benchmarks.tiles --size 20000
    python -m benchmarks.tiles --size 20000 --model runs/demo
    python -m benchmarks.tiles --size 2000 --compare

The networks are small and untrained, but for the second form's: a model trained on Earth's maps translates the map of
the world, repeated to fill the image. The third form also translates the image in one pass: a network with strides has
steps of its own where tiles end, so that pass shows the least seam that can be reached.
"""

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
import tyro
from torch import nn

from data_scripts.sets.earth_world import WORLD_WIDTH, draw_map
from ganvas.console import run_command
from ganvas.data.decode import read_image
from ganvas.errors import UserError
from ganvas.inference.tiling.plan import Plan, Tiling
from ganvas.inference.tiling.seams import seam_measure
from ganvas.inference.tiling.tiles import translate_tiled
from ganvas.inference.translator import Translator, load
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing
from ganvas.nn.layers import Statistics
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.unet import UNetGenerator

Block = Callable[[np.ndarray, np.ndarray], np.ndarray]  # rows and columns to colors

BLOCK = 256
GEOGRAPHY = [  # 10 m a pixel in UTM zone 33 north, nodata 0, as GeoTIFF 1.1 and GDAL write them
    (33550, 12, 3, (10.0, 10.0, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 500_000.0, 5_000_000.0, 0.0), True),
    (34735, 3, 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633), True),
    (42113, 2, 2, "0", True),
]


@dataclass(frozen=True)
class Options:
    """Measure the translation of a large image."""

    size: int = 20000
    """Pixels a side."""
    tile: int = 512
    """Pixels a side of a tile."""
    overlap: int = 64
    """Pixels that tiles share."""
    exact: bool = False
    """Collect norm statistics from all tiles."""
    model: Path | None = None
    """A run or model trained on Earth's maps."""
    compare: bool = False
    """Compare several networks with shared statistics, each tile's own, and one pass."""


def small_networks() -> dict[str, tuple[nn.Module, Statistics]]:
    """Build small untrained networks with each kind of norm."""
    torch.manual_seed(0)

    def unet(norm: str) -> nn.Module:
        return UNetGenerator(base_channels=8, num_levels=5, norm=norm, dropout=0.0)  # type: ignore[arg-type]

    return {
        "U-Net, instance norm": (unet("instance"), "running"),
        "U-Net, batch norm, running statistics": (unet("batch"), "running"),
        "U-Net, batch norm, the image's statistics": (unet("batch"), "picture"),
        "ResNet, instance norm": (ResNetGenerator(base_channels=8, num_blocks=3), "running"),
    }


def make_translator(network: nn.Module, statistics: Statistics) -> Translator:
    """Build a translator that does not scale images."""
    config = ModelConfig(
        "pix2pix", {"a2b": NetworkSpec("unet", {}, "A", "B")}, Preprocessing(3, 3, 256, False), statistics
    )
    return Translator(config, {"a2b": network}, size="native", precision="fp32")


def draw_waves(path: Path, height: int, width: int) -> Path:
    """Write a tiled GeoTIFF of waves and noise, dark in the west and bright in the east, block by block."""
    rng = np.random.default_rng(0)

    def block(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        values = 100 + 60 * np.sin(x / 40) * np.cos(y / 55) + 60 * (x / width - 0.5)
        return (values[..., None] + rng.normal(0, 6, (BLOCK, BLOCK, 3))).clip(1, 255).astype(np.uint8)

    return write_geotiff(path, height, width, block)


def draw_worlds(path: Path, height: int, width: int, world_width: int = WORLD_WIDTH) -> Path:
    """Write a tiled GeoTIFF of the world's map, repeated down and across."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # its memory does not count
        world = pool.submit(draw_world, world_width).result()
    return write_geotiff(path, height, width, lambda y, x: world[y % len(world), x % world_width])


def draw_world(width: int) -> np.ndarray:
    """Draw the world as in the sources of the Earth dataset: uint8 [width / 2, width, 3]."""
    return draw_map(width, with_lines=True)[0]


def write_geotiff(path: Path, height: int, width: int, block: Block) -> Path:
    """Write a tiled GeoTIFF block by block.

    Args:
        path: The file.
        height: Pixels; need not be a multiple of the block.
        width: Pixels.
        block: Returns uint8 [256, 256, 3] for rows [256, 256] and columns [256, 256].
    """

    def blocks() -> Iterator[np.ndarray]:
        for top in range(0, height, BLOCK):
            for left in range(0, width, BLOCK):
                yield block(*np.mgrid[top : top + BLOCK, left : left + BLOCK])

    tifffile.imwrite(
        path,
        blocks(),
        shape=(height, width, 3),
        dtype=np.uint8,
        tile=(BLOCK, BLOCK),
        photometric="rgb",
        metadata=None,
        maxworkers=1,
        extratags=GEOGRAPHY,
    )
    return path


def peak_bytes() -> int:
    """Return the peak memory of this process; 0 on Windows, which has no such figure."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def compare(source: Path, tiling: Tiling) -> Iterator[dict[str, Any]]:
    """Translate with each network in one pass, and with statistics of some tiles, of all, and of each on its own."""
    image = read_image(source)
    modes = {"some": tiling, "all": replace(tiling, exact=True), "each its own": replace(tiling, shared=False)}
    for name, (network, statistics) in small_networks().items():
        translator = make_translator(network, statistics)
        plan = Plan.of(image.shape[0], image.shape[1], tiling, network)
        expected = translator.translate_batch([image])[0]
        seam = seam_measure(expected, plan.rows.borders, plan.columns.borders)
        yield {"network": name, "statistics": "no tiles", "seam": seam}
        for mode, options in modes.items():
            result = translate_tiled(translator, source, source.with_name("out.tif"), options)
            difference = np.abs(read_image(result.path).astype(float) - expected)
            figures = {"seam": result.seam, "passes": result.passes, "sampled": result.sampled}
            figures |= {"difference": float(difference.mean()), "largest_difference": float(difference.max())}
            yield {"network": name, "statistics": mode, **figures}


def main(arguments: list[str]) -> int:
    """Print one JSON object, or one for each row of the comparison; return the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.tiles", args=arguments)
    if options.compare and options.model:
        raise UserError("--compare uses its own small networks. Remove --model.")
    tiling = Tiling(options.tile, options.overlap, options.exact)
    with tempfile.TemporaryDirectory() as folder:
        small = small_networks()["U-Net, instance norm"]
        translator = load(options.model, size="native", precision="fp32") if options.model else make_translator(*small)
        draw = draw_worlds if options.model else draw_waves
        source = draw(Path(folder) / "source.tif", options.size, options.size)
        if options.compare:
            for row in compare(source, tiling):
                print(json.dumps(row), flush=True)
            return 0
        began = time.perf_counter()
        result = translate_tiled(translator, source, Path(folder) / "out.tif", tiling)
        seconds = time.perf_counter() - began
    print(json.dumps(asdict(result) | {"path": None, "seconds": seconds, "peak_mb": peak_bytes() / 1e6}))
    return 0


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.tiles", main))
