"""Elevation read from the colors of etopo1.jpg against published elevations; contours of shapes of known geometry."""

import numpy as np
import pytest

from data_scripts.sets import earth_elevation, earth_world
from data_scripts.sets.earth_elevation import CONTOURS, INDEX_LEVELS, LEVELS, contour_lines, read_elevation

DEGREE = 15  # pixels a degree of etopo1.jpg
WIDTH = 256


@pytest.fixture(scope="module")
def elevation() -> np.ndarray:
    return read_elevation(earth_world.basemap_folder() / "etopo1.jpg")


def around(elevation: np.ndarray, latitude: float, longitude: float) -> float:
    """Return the mean elevation of 5x5 pixels, a third of a degree, around a place."""
    row, column = int((90 - latitude) * DEGREE), int((longitude + 180) * DEGREE)
    return float(elevation[row - 2 : row + 3, column - 2 : column + 3].mean())


@pytest.mark.parametrize(
    ("place", "latitude", "longitude", "meters"),
    [
        ("El Alto, Bolivia", -16.50, -68.17, 4060),
        ("Salar de Uyuni, Bolivia", -20.13, -67.49, 3656),
        ("Lhasa", 29.65, 91.10, 3650),
        ("south dome of Greenland's ice", 63.50, -44.50, 2700),
        ("Addis Ababa", 9.03, 38.74, 2355),
        ("Mexico City", 19.43, -99.13, 2240),
        ("Johannesburg", -26.20, 28.05, 1753),
        ("Denver", 39.74, -104.99, 1609),
        ("Brasília", -15.79, -47.88, 1172),
        ("Madrid", 40.42, -3.70, 657),
        ("Alice Springs", -23.70, 133.88, 545),
        ("Moscow", 55.75, 37.62, 156),
        ("Manaus", -3.10, -60.02, 92),
        ("Paris", 48.86, 2.35, 35),
        ("Buenos Aires", -34.60, -58.40, 25),
        ("Amsterdam", 52.37, 4.90, -2),
        ("Lake Superior", 47.70, -87.50, 183),
        ("Lake Baikal", 53.50, 108.00, 456),
    ],
)
def test_places_of_known_elevation(
    elevation: np.ndarray, place: str, latitude: float, longitude: float, meters: float
) -> None:
    # Twice the mean error that the table has in most bands: 19 m below 200 m, 148 m from 1 to 2 km.
    assert around(elevation, latitude, longitude) == pytest.approx(meters, abs=60 + 0.2 * meters), place


@pytest.mark.parametrize(("latitude", "longitude"), [(0, -30), (0, -150), (43, 34), (36, 18), (58.5, 20), (72, 38)])
def test_seas_are_at_zero(elevation: np.ndarray, latitude: float, longitude: float) -> None:
    assert around(elevation, latitude, longitude) == 0


def test_elevation_of_the_world(elevation: np.ndarray) -> None:
    assert elevation.shape == (180 * DEGREE, 360 * DEGREE) and elevation.dtype == np.float32
    assert -150 < elevation.min() < 0 and 4500 < elevation.max() < 6000
    # ETOPO1's mean elevation of land is 797 m; without Antarctica, a tenth of it at 2,300 m, that leaves 630 m.
    rows = slice(25 * DEGREE, 150 * DEGREE)
    weights = np.cos(np.deg2rad(90 - (np.arange(180 * DEGREE) + 0.5) / DEGREE))[rows, None]
    land = elevation[rows] != 0
    assert np.average(elevation[rows], weights=weights * land) == pytest.approx(630, rel=0.15)


def cone(peak: float, slope: float) -> np.ndarray:
    """Return a cone in the middle of a plain, which falls by ``slope`` meters a pixel."""
    y, x = np.mgrid[: WIDTH // 2, :WIDTH] - np.array([WIDTH // 4, WIDTH // 2])[:, None, None]
    return np.maximum(0, peak - slope * np.hypot(y, x)).astype(np.float32)


def test_contours_of_a_cone_are_rings_at_their_levels() -> None:
    lines = contour_lines(cone(1800, 30), WIDTH)  # pixels within 60 pixels of the peak are above 0
    assert lines.shape == (WIDTH // 2, WIDTH) and lines.dtype == np.uint8
    eastward = lines[WIDTH // 4, WIDTH // 2 :]
    reached = [level for level in LEVELS if level < 1800]
    found = [LEVELS[number - 1] for number in dict.fromkeys(eastward[eastward > 0])]
    assert found == reached[::-1]  # from the peak outwards
    for number, level in enumerate(reached, start=1):
        columns = np.flatnonzero(eastward == number)
        assert abs(columns[0] - (1800 - level) / 30) <= 1  # where the slope passes the level
        assert len(columns) == (2 if level in INDEX_LEVELS else 1)


def test_a_line_runs_around_its_level_without_gaps() -> None:
    lines = contour_lines(cone(1800, 30), WIDTH)
    y, x = np.nonzero(lines == LEVELS.index(750) + 1)
    angles = np.sort(np.arctan2(y - WIDTH // 4, x - WIDTH // 2))
    assert np.diff(angles).max() < 2 / 35  # radians: neighbors on a ring of 35 pixels


def test_plains_have_no_contours() -> None:
    assert not contour_lines(np.full((WIDTH // 2, WIDTH), 1234, dtype=np.float32), WIDTH).any()


def test_where_lines_coincide_the_highest_is_kept() -> None:
    cliff = np.zeros((WIDTH // 2, WIDTH), dtype=np.float32)
    cliff[:, WIDTH // 2 :] = 6000  # blurred, it passes all levels within a few pixels
    lines = contour_lines(cliff, WIDTH)[10]
    drawn = lines[lines > 0]
    assert 3 <= len(drawn) <= 8  # fewer than there are levels
    assert drawn.max() == len(LEVELS)
    assert (np.diff(drawn.astype(int)) >= 0).all()


@pytest.mark.parametrize("width", [WIDTH // 2, 2 * WIDTH])
def test_contours_scale_with_the_world(width: int) -> None:
    lines, same = contour_lines(cone(1800, 30), width), contour_lines(cone(1800, 30), WIDTH)
    inside = [np.mean(found[found.shape[0] // 2] > 0) for found in (lines, same)]
    assert set(np.unique(lines)) == set(np.unique(same))
    assert inside[0] == pytest.approx(inside[1] * WIDTH / width, rel=0.3)  # lines keep their width in pixels


def test_a_block_of_wrong_color_is_replaced_but_a_mountain_front_stays() -> None:
    front = np.interp(np.arange(200), [90, 110], [200, 4800]).astype(np.float32)  # as steep as the Himalayas'
    land = np.tile(front, (200, 1))
    stained = land.copy()
    stained[60:68, 150:166] = 900
    repaired = earth_elevation.replace_outliers(stained)
    np.testing.assert_allclose(repaired, land, atol=1)
    np.testing.assert_array_equal(earth_elevation.replace_outliers(land), land)


def test_contours_of_the_world_follow_the_elevation(elevation: np.ndarray) -> None:
    lines = contour_lines(elevation, 2 * elevation.shape[1])[::2, ::2]
    means = [float(elevation[lines == number].mean()) for number in range(1, len(LEVELS) + 1)]
    assert means == pytest.approx(LEVELS, rel=0.15)
    share = np.mean(lines[elevation > 0] > 0)
    assert 0.04 < share < 0.12  # lines, not areas


def test_contours_are_brown_and_darker_with_elevation() -> None:
    assert [f"{level} m" for level in LEVELS] == list(CONTOURS)
    assert set(INDEX_LEVELS) < set(LEVELS)
    colors = np.array(list(CONTOURS.values()))
    assert (np.diff(colors, axis=0) <= -8).all()  # each one distinct
    assert (colors[:, 0] > colors[:, 1]).all() and (colors[:, 1] > colors[:, 2]).all()
