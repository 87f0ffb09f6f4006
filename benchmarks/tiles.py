"""Memory, time and seams of a large GeoTIFF that is translated in tiles, and what sharing the norms' statistics gives.

python -m benchmarks.tiles --size 20000
python -m benchmarks.tiles --size 20000 --model runs/demo
python -m benchmarks.tiles --size 2000 --compare

The networks are small and at their random start, but for the second form's: a model trained on Earth's maps translates
the map of the world, side by side as often as it fits. The third form translates the same image whole as well: a
network of stride has steps of its own at the places of tile borders, so the whole image's measure there is what to
reach.
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
from ganvas.data.images import read_image
from ganvas.errors import UserError
from ganvas.inference.tiling.plan import Plan, Tiling
from ganvas.inference.tiling.seams import seam_measure
from ganvas.inference.tiling.tiles import translate_tiled
from ganvas.inference.translator import Translator, load
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing
from ganvas.nn.layers import Statistics
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.unet import UNetGenerator

Block = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of rows and columns, colors

BLOCK = 256
GEOGRAPHY = [  # 10 m a pixel in UTM zone 33 north, and 0 for no data, as GeoTIFF 1.1 and GDAL write them
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
    """Gather statistics from all tiles."""
    model: Path | None = None
    """A run or model trained on Earth's maps, which translates the world's."""
    compare: bool = False
    """Translate with several networks, by shared statistics and by each tile's own, and whole, which takes memory."""


def small_networks() -> dict[str, tuple[nn.Module, Statistics]]:
    """Build small networks of each kind of norm, their weights at their random start."""
    torch.manual_seed(0)

    def unet(norm: str) -> nn.Module:
        return UNetGenerator(base_channels=8, num_levels=5, norm=norm, dropout=0.0)  # type: ignore[arg-type]

    return {
        "U-Net, instance norm": (unet("instance"), "running"),
        "U-Net, batch norm, running statistics": (unet("batch"), "running"),
        "U-Net, batch norm, the image's statistics": (unet("batch"), "picture"),
        "ResNet, instance norm": (ResNetGenerator(base_channels=8, num_blocks=3), "running"),
    }


def model(network: nn.Module, statistics: Statistics) -> Translator:
    """Make a network a model that scales no image."""
    config = ModelConfig(
        "pix2pix", {"a2b": NetworkSpec("unet", {}, "A", "B")}, Preprocessing(3, 3, 256, False), statistics
    )
    return Translator(config, {"a2b": network}, size="native", precision="fp32")


def draw_picture(path: Path, height: int, width: int) -> Path:
    """Write a tiled GeoTIFF of waves and noise, dark in the west and bright in the east, block by block."""
    chance = np.random.default_rng(0)

    def block(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        values = 100 + 60 * np.sin(x / 40) * np.cos(y / 55) + 60 * (x / width - 0.5)
        return (values[..., None] + chance.normal(0, 6, (BLOCK, BLOCK, 3))).clip(1, 255).astype(np.uint8)

    return write_raster(path, height, width, block)


def draw_worlds(path: Path, height: int, width: int, world_width: int = WORLD_WIDTH) -> Path:
    """Write a tiled GeoTIFF of the world's map, again and again down and across."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:  # whose memory is not to be counted
        world = other.submit(draw_world, world_width).result()
    return write_raster(path, height, width, lambda y, x: world[y % len(world), x % world_width])


def draw_world(width: int) -> np.ndarray:
    """Draw the world as the sources of the Earth dataset show it: uint8 [width / 2, width, 3]."""
    return draw_map(width, with_lines=True)[0]


def write_raster(path: Path, height: int, width: int, block: Block) -> Path:
    """Write a tiled GeoTIFF block by block.

    Args:
        path: The file.
        height: Pixels, which need not be whole blocks.
        width: Pixels.
        block: Makes rows [256, 256] and columns [256, 256] colors [256, 256, 3], uint8.
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
    """Give the most memory that this process has held; 0 on Windows, which does not tell it this way."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def compare(source: Path, size: Tiling) -> Iterator[dict[str, Any]]:
    """Translate with each network whole, by statistics of some tiles, of all, and of each on its own; yield figures."""
    picture = read_image(source)
    ways = {"some": size, "all": replace(size, exact=True), "each its own": replace(size, shared=False)}
    for name, (network, statistics) in small_networks().items():
        translator = model(network, statistics)
        plan = Plan.of(picture.shape[0], picture.shape[1], size, network)
        whole = translator.translate_batch([picture])[0]
        seam = seam_measure(whole, plan.rows.borders, plan.columns.borders)
        yield {"network": name, "statistics": "no tiles", "seam": seam}
        for way, tiling in ways.items():
            result = translate_tiled(translator, source, source.with_name("out.tif"), tiling)
            apart = np.abs(read_image(result.path).astype(float) - whole)
            yield {
                "network": name,
                "statistics": way,
                "seam": result.seam,
                "passes": result.passes,
                "sampled": result.sampled,
                "difference": float(apart.mean()),
                "largest_difference": float(apart.max()),
            }


def main(arguments: list[str]) -> int:
    """Run the benchmark; print one JSON object, or one for each row of the comparison."""
    options = tyro.cli(Options, prog="python -m benchmarks.tiles", args=arguments)
    if options.compare and options.model:
        raise UserError("--compare: takes small networks of its own. Leave --model out.")
    tiling = Tiling(options.tile, options.overlap, options.exact)
    with tempfile.TemporaryDirectory() as folder:
        small = small_networks()["U-Net, instance norm"]
        translator = load(options.model, size="native", precision="fp32") if options.model else model(*small)
        draw = draw_worlds if options.model else draw_picture
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
