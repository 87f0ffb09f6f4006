"""Memory, time and seams of a large GeoTIFF that is translated in tiles, and what sharing the norms' statistics gives.

python -m benchmarks.tiles --size 20000
python -m benchmarks.tiles --size 2000 --compare

The networks are small and at their random start. The second form translates the same picture whole as well: a network
of stride has steps of its own at the places of tile borders, so the whole picture's measure there is what to reach.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
import tyro
from torch import nn

from ganvas.data.images import read_image
from ganvas.errors import UserError
from ganvas.inference.seams import seam_measure
from ganvas.inference.tile_plan import Plan, Tiling
from ganvas.inference.tiles import translate_tiled
from ganvas.inference.translator import Translator
from ganvas.modelfile import ModelConfig, NetworkSpec, Preprocessing
from ganvas.nn.layers import Statistics
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.unet import UNetGenerator

BLOCK = 256
GEOGRAPHY = [  # 10 m a pixel in UTM zone 33 north, and 0 for no data, as GeoTIFF 1.1 and GDAL write them
    (33550, 12, 3, (10.0, 10.0, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 500_000.0, 5_000_000.0, 0.0), True),
    (34735, 3, 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633), True),
    (42113, 2, 2, "0", True),
]


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
        "U-Net, batch norm, the picture's statistics": (unet("batch"), "picture"),
        "ResNet, instance norm": (ResNetGenerator(base_channels=8, num_blocks=3), "running"),
    }


def model(network: nn.Module, statistics: Statistics) -> Translator:
    """Make a network a model that scales no picture."""
    config = ModelConfig(
        "pix2pix", {"a2b": NetworkSpec("unet", {}, "A", "B")}, Preprocessing(3, 3, 256, False), statistics
    )
    return Translator(config, {"a2b": network}, size="native", precision="fp32")


def draw_picture(path: Path, height: int, width: int) -> Path:
    """Write a tiled GeoTIFF of waves and noise, dark in the west and bright in the east, block by block."""

    def blocks() -> Iterator[np.ndarray]:
        chance = np.random.default_rng(0)
        for top in range(0, height, BLOCK):
            for left in range(0, width, BLOCK):
                y, x = np.mgrid[top : top + BLOCK, left : left + BLOCK]
                values = 100 + 60 * np.sin(x / 40) * np.cos(y / 55) + 60 * (x / width - 0.5)
                noise = chance.normal(0, 6, (BLOCK, BLOCK, 3))
                yield (values[..., None] + noise).clip(1, 255).astype(np.uint8)

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
    """Translate with each network whole, by statistics of some tiles, of all, and of each by itself; yield figures."""
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


def main() -> int:
    """Run the benchmark; print one JSON object, or one for each row of the comparison."""
    options = tyro.cli(Options, prog="python -m benchmarks.tiles")
    tiling = Tiling(options.tile, options.overlap, options.exact)
    with tempfile.TemporaryDirectory() as folder:
        source = draw_picture(Path(folder) / "source.tif", options.size, options.size)
        try:
            if options.compare:
                for row in compare(source, tiling):
                    print(json.dumps(row), flush=True)
                return 0
            began = time.perf_counter()
            translator = model(*small_networks()["U-Net, instance norm"])
            result = translate_tiled(translator, source, Path(folder) / "out.tif", tiling)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        seconds = time.perf_counter() - began
    print(json.dumps(asdict(result) | {"path": None, "seconds": seconds, "peak_mb": peak_bytes() / 1e6}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
