"""The Earth dataset on a world of 1440 pixels: 4 pixels a degree, so 32-pixel tiles cover 8 degrees."""

import errno
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_scripts.sets import earth, earth_elevation, earth_places, earth_world
from data_scripts.sets.earth import EarthConfig, make_earth
from data_scripts.sets.earth_world import Square, World
from ganvas.errors import UserError

WIDTH = 1440
SIZE = 32
DEGREE = WIDTH // 360

SplitWorld = Callable[[World, int, int], tuple[dict[Square, str], dict[str, list[Square]]]]
Box = tuple[float, float, float, float]  # south, north, west, east in degrees


@pytest.fixture(scope="module")
def world() -> World:
    maps = earth_world.read_world(("topo", "terrain"), WIDTH)
    plain, land = earth_world.draw_map(WIDTH, with_lines=True)
    np.testing.assert_array_equal(land, maps.land)
    satellite = earth_world.read_raster(earth_world.basemap_folder() / "bmng.jpg", WIDTH)
    return World({**maps.layers, "map": plain, "satellite": satellite}, maps.land)


@pytest.fixture(scope="module")
def drawn_before(world: World) -> Iterator[None]:
    """Draw the world once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(earth, "read_world", lambda domains, width: world)
        yield


@pytest.fixture(scope="module")
def paired(drawn_before: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("paired")  # exists, and is empty
    make_earth(EarthConfig(out, size=SIZE), WIDTH)
    return out


@pytest.fixture(scope="module")
def unpaired(drawn_before: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unpaired") / "new" / "earth"
    make_earth(EarthConfig(out, size=SIZE, unpaired=True), WIDTH)
    return out


def box_of(path: Path, size: int = SIZE) -> Box:
    """Read a tile's box from its file name alone."""
    match = re.fullmatch(r"(\d\d)-(\d\d)([NS])_(\d\d\d)-(\d\d)([EW])", path.stem)
    assert match, path
    latitude = (int(match[1]) + int(match[2]) / 60) * (1 if match[3] == "N" else -1)
    longitude = (int(match[4]) + int(match[5]) / 60) * (1 if match[6] == "E" else -1)
    half = size / DEGREE / 2
    return latitude - half, latitude + half, longitude - half, longitude + half


def boxes_in(folder: Path) -> list[Box]:
    return [box_of(path) for path in sorted(folder.glob("*.png"))]


def gap(first: Box, second: Box) -> float:
    """Degrees between two boxes along the axis that parts them most; negative when they overlap."""
    apart = max(first[0] - second[1], second[0] - first[1])
    across = min(max(first[2] + t - second[3], second[2] - first[3] - t) for t in (-360, 0, 360))
    return max(apart, across)


def climate_of(box: Box) -> earth_world.Climate:
    return earth_world.climate_at((box[0] + box[1]) / 2, (box[2] + box[3]) / 2)


def halves(path: Path) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.asarray(Image.open(path))
    assert pixels.shape == (SIZE, 2 * SIZE, 3)
    return pixels[:, :SIZE], pixels[:, SIZE:]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def sub_pixel_shift(mask: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Find how far to move ``mask`` down and right so that it fits ``other`` best, by parabolas through the peak."""
    shifts = (-1, 0, 1)
    inner = other[1:-1, 1:-1].ravel()
    fit = np.array(
        [
            [np.corrcoef(np.roll(mask, (down, right), (0, 1))[1:-1, 1:-1].ravel(), inner)[0, 1] for right in shifts]
            for down in shifts
        ]
    )
    assert fit.argmax() == 4, fit  # the best whole-pixel shift is none

    def vertex(low: float, middle: float, high: float) -> float:
        return (low - high) / (low - 2 * middle + high) / 2

    return vertex(*fit[:, 1]), vertex(*fit[1])


@pytest.mark.parametrize(
    "place",
    [(-60, 60, -180, 180), (24, 48, -10, 40), (-45, -10, 110, 155)],
    ids=["world", "mediterranean", "australia"],
)
@pytest.mark.slow
def test_coasts_of_map_and_relief_coincide(world: World, place: tuple[int, int, int, int]) -> None:
    south, north, west, east = place
    window = np.s_[(90 - north) * DEGREE : (90 - south) * DEGREE, (west + 180) * DEGREE : (east + 180) * DEGREE]
    relief = world.layers["terrain"][window].astype(int)
    sea_in_relief = relief[..., 2] - relief[..., 0] > 30  # seas are the only blue in it
    sea_in_map = ~world.land[window]
    down, right = sub_pixel_shift(sea_in_map.astype(float), sea_in_relief.astype(float))
    assert abs(down) < 0.15 and abs(right) < 0.15  # a pixel's corner taken for its middle would be 0.5
    assert np.mean(sea_in_map == sea_in_relief) > 0.97


@pytest.mark.slow
def test_satellite_coincides_with_the_map(world: World) -> None:
    window = np.s_[40 * DEGREE : 130 * DEGREE]
    satellite = world.layers["satellite"][window].astype(int)
    sea = satellite[..., 2] > 1.4 * satellite[..., 0] + 10
    down, right = sub_pixel_shift((~world.land[window]).astype(float), sea.astype(float))
    assert abs(down) < 0.1 and abs(right) < 0.1


@pytest.mark.parametrize(
    ("name", "latitude", "longitude"),
    [
        ("water", 0, -30),
        ("water", 42.0, 50.5),  # the Caspian, a lake in the vectors, a sea in the relief
        ("lake", 47.7, -87.5),  # Superior
        ("lake", -1.2, 32.8),  # Victoria
        ("land", 23, 5),  # Sahara
        ("land", 51.0, -100.5),
        ("land", 66.5, 179.0),  # both sides of the 180th meridian
        ("land", 66.5, -179.0),
    ],
)
def test_colors_of_known_places(world: World, name: str, latitude: float, longitude: float) -> None:
    row, column = round((90 - latitude) * DEGREE), round((longitude + 180) * DEGREE)
    around = world.layers["map"][row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3)
    nearest = [
        min(earth_world.PALETTE, key=lambda key: sum((pixel - np.array(earth_world.PALETTE[key])) ** 2))
        for pixel in around
    ]
    assert Counter(nearest).most_common(1)[0][0] == name
    assert bool(world.land[row, column]) == (name == "land")


def test_share_of_land(world: World) -> None:
    # 29% of the globe is land; weight rows by their area.
    weights = np.cos(np.deg2rad(90 - (np.arange(WIDTH // 2) + 0.5) / DEGREE))
    assert 0.28 < np.average(world.land.mean(axis=1), weights=weights) < 0.30


def test_fills_are_exact(paired: Path) -> None:
    described = json.loads((paired / "dataset.json").read_text())
    assert described["flip"] is False  # lit from the northwest
    palette = described["legend"]
    contours = {name: palette[name] for name in palette if name.endswith(" m")}
    assert [int(name.removesuffix(" m")) for name in contours] == list(earth_elevation.LEVELS)
    assert described["lines"] == {"rivers": [95, 150, 220], **contours}
    assert set(palette) - set(contours) == {"land", "water", "lake"}
    counts: Counter[tuple[int, ...]] = Counter()
    for path in (paired / "test").glob("*.png"):
        pixels, times = np.unique(halves(path)[0].reshape(-1, 3), axis=0, return_counts=True)
        counts.update({tuple(map(int, pixel)): int(number) for pixel, number in zip(pixels, times, strict=True)})
    shares = {name: counts[tuple(color)] / counts.total() for name, color in palette.items()}
    assert 0.2 < shares["land"] < 0.95 and 0.05 < shares["water"] < 0.6 and 0 < shares["lake"] < 0.1
    assert 0.05 < sum(shares[name] for name in contours) < 0.3
    assert sum(shares.values()) > 0.4  # the rest are other lines


def test_contours_are_all_that_topo_adds_to_the_map(world: World) -> None:
    differs = (world.layers["topo"] != world.layers["map"]).any(axis=2)
    assert not differs[~world.land].any()
    is_contour = np.zeros(differs.shape, dtype=bool)
    for color in earth_elevation.CONTOURS.values():
        is_contour |= (world.layers["topo"] == color).all(axis=2)
    assert 0.1 < np.mean(is_contour[world.land]) < 0.4  # on this coarse world
    # Where the map draws no line, a pixel of topo is the map's or a contour's. (They show through the edges of lines.)
    is_plain = (world.layers["map"] == earth_world.PALETTE["land"]).all(axis=2)
    assert (is_contour | ~differs)[is_plain].all()


@pytest.mark.usefixtures("drawn_before")
def test_the_map_without_contours_shows_the_same_places(paired: Path, tmp_path: Path, world: World) -> None:
    out = tmp_path / "map"
    make_earth(EarthConfig(out, size=SIZE, layers="map:terrain"), WIDTH)
    assert contents(out).keys() == contents(paired).keys()
    described = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    assert described["domains"] == {"a": "map", "b": "terrain"}
    assert set(described["legend"]) == {"land", "water", "lake"} and set(described["lines"]) == {"rivers"}
    path = sorted(out.glob("test/*.png"))[0]
    _, north, west, _ = box_of(path)
    window = np.s_[round((90 - north) * DEGREE) :, round((west + 180) * DEGREE) :]
    np.testing.assert_array_equal(halves(path)[0], world.layers["map"][window][:SIZE, :SIZE])
    with pytest.raises(UserError, match="layers 'map:terrain' instead of 'topo:terrain'"):
        make_earth(EarthConfig(out, size=SIZE), WIDTH)


def test_layout(paired: Path) -> None:
    described = json.loads((paired / "dataset.json").read_text(encoding="utf-8"))
    found = {folder.name: len(list(folder.glob("*.png"))) for folder in paired.iterdir() if folder.is_dir()}
    assert described["pictures"] == found
    assert set(found) == {"train", "val", "test"}
    assert found["train"] > 15 * found["test"] > 15 * found["val"] > 0
    assert described["domains"] == {"a": "topo", "b": "terrain"}
    assert "GSHHG" in described["source"] and "LGPL" in described["license"]
    assert sorted(path.name for path in paired.iterdir() if path.is_file()) == ["dataset.json", "splits.png"]


def test_pairs_show_the_place_of_their_name(paired: Path, world: World) -> None:
    for path in sorted(paired.glob("*/*.png"))[::25]:
        _, north, west, _ = box_of(path)
        window = np.s_[round((90 - north) * DEGREE) :, round((west + 180) * DEGREE) :]
        a, b = halves(path)
        np.testing.assert_array_equal(a, world.layers["topo"][window][:SIZE, :SIZE])
        np.testing.assert_array_equal(b, world.layers["terrain"][window][:SIZE, :SIZE])


def test_held_out_places_are_far_from_training(paired: Path) -> None:
    train, val, test = (boxes_in(paired / split) for split in ("train", "val", "test"))
    nearest = min(gap(one, other) for one in train for other in val + test)
    assert 1 <= nearest < 1 + 4  # degrees: a buffer, and no desert: tiles start every 4 degrees
    assert min(gap(one, other) for one in val for other in test) >= 1
    for split in (val, test):
        assert min(gap(one, other) for one in split for other in split if one != other) >= 0
    assert min(gap(one, other) for one in train for other in train if one != other) == -4  # half a tile stays


def test_held_out_tiles_lie_in_the_described_blocks(paired: Path) -> None:
    blocks = json.loads((paired / "dataset.json").read_text(encoding="utf-8"))["blocks"]
    assert Counter(block["split"] for block in blocks) == {"test": 8, "val": 4}
    for split in ("val", "test"):
        for south, north, west, east in boxes_in(paired / split):
            assert any(
                block["south"] <= south < north <= block["north"] and block["west"] <= west < east <= block["east"]
                for block in blocks
                if block["split"] == split
            )
    for block in blocks:
        assert block["north"] - block["south"] == block["east"] - block["west"] == 18


def test_splits_are_spread_and_training_has_every_climate(paired: Path) -> None:
    train, val, test = ([climate_of(box) for box in boxes_in(paired / split)] for split in ("train", "val", "test"))
    assert set(val) | set(test) <= set(train)
    assert {continent for continent, _ in train} == {name for name, *_ in earth_world.CONTINENTS}
    assert len({continent for continent, _ in test}) >= 5
    latitudes = [(box[0] + box[1]) / 2 for box in boxes_in(paired / "test")]
    assert min(latitudes) < -23 and max(latitudes) > 45 and any(abs(latitude) < 15 for latitude in latitudes)


def test_tiles_have_land_and_avoid_the_poles(paired: Path, world: World) -> None:
    shares = []
    for path in paired.glob("*/*.png"):
        south, north, west, east = box_of(path)
        assert -65 <= south < north <= 65 and -180 <= west < east <= 180
        rows = slice(round((90 - north) * DEGREE), round((90 - south) * DEGREE))
        columns = slice(round((west + 180) * DEGREE), round((east + 180) * DEGREE))
        shares.append(world.land[rows, columns].mean())
    assert 0.25 <= min(shares) < 0.30 and max(shares) == 1


@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.slow
def test_other_seeds_hold_out_other_places(world: World, seed: int) -> None:
    blocks, splits = earth_places.split_paired(world, SIZE, seed)
    assert set(blocks) != set(earth_places.split_paired(world, SIZE, 0)[0])
    climates = {split: {world.climate(tile) for tile in tiles} for split, tiles in splits.items()}
    assert climates["val"] | climates["test"] <= climates["train"]
    assert len({continent for continent, _ in climates["test"]}) >= 5
    assert min(one.gap(other, WIDTH) for one in blocks for other in blocks if one != other) >= DEGREE


@pytest.mark.parametrize("size", [16, 44, 68])
@pytest.mark.slow
def test_all_sizes_hold_out_the_same_places(world: World, size: int) -> None:
    blocks, splits = earth_places.split_paired(world, size, 0)
    assert blocks == earth_places.split_paired(world, SIZE, 0)[0]
    assert all(splits.values())


def test_small_tiles_are_sampled_sparsely(world: World) -> None:
    splits = earth_places.split_paired(world, 4, 0)[1]
    assert 1000 < len(splits["train"]) < 6000
    assert all(tile.left % (2 * DEGREE) == 0 for tile in splits["train"])


@pytest.mark.parametrize(
    ("latitude", "longitude", "continent"),
    [
        (55.8, 37.6, "europe"),
        (30.0, 31.2, "africa"),
        (-18.9, 47.5, "africa"),
        (39.9, 32.9, "asia"),
        (64.7, 177.5, "asia"),
        (-41.3, 174.8, "oceania"),
        (61.2, -149.9, "north america"),
        (4.7, -74.1, "south america"),
    ],
)
def test_continents_of_known_cities(latitude: float, longitude: float, continent: str) -> None:
    assert earth_world.climate_at(latitude, longitude)[0] == continent


@given(st.floats(-65, 65), st.floats(-180, 180))
def test_every_place_has_a_climate(latitude: float, longitude: float) -> None:
    _, band = earth_world.climate_at(latitude, longitude)
    assert earth_world.ZONES[band - 1] <= latitude
    assert band == len(earth_world.ZONES) or latitude < earth_world.ZONES[band]


squares = st.builds(Square, top=st.integers(0, 20), left=st.integers(0, 39), size=st.integers(1, 8))


@given(squares, squares)
def test_gap_counts_pixels_around_the_world(first: Square, second: Square) -> None:
    width = 40

    def pixels(square: Square) -> set[tuple[int, int]]:
        span = range(square.size)
        return {(square.top + down, (square.left + right) % width) for down in span for right in span}

    steps = [
        max(abs(row - other_row), min((column - other_column) % width, (other_column - column) % width))
        for row, column in pixels(first)
        for other_row, other_column in pixels(second)
    ]
    assert max(first.gap(second, width), -1) == max(min(steps) - 1, -1)  # touching pixels are one step apart
    assert first.gap(second, width) == second.gap(first, width)


@given(st.integers(-3900, 3900), st.integers(-10800, 10799))
def test_names_contain_the_coordinates(down: int, across: int) -> None:
    south, north, west, east = box_of(Path(f"{earth.place_name(down / 60, across / 60)}.png"))
    assert round((south + north) * 30) == down and round((west + east) * 30) == across


def test_no_place_is_in_both_domains_of_training(unpaired: Path) -> None:
    a, b, test = (boxes_in(unpaired / folder) for folder in ("trainA", "trainB", "testA"))
    assert min(gap(one, other) for one in a for other in b) >= 0
    assert 1 <= min(gap(one, other) for one in a + b for other in test) < 6
    assert {climate_of(box) for box in test} <= {climate_of(box) for box in a} & {climate_of(box) for box in b}


def test_domains_share_land_and_continents(unpaired: Path, world: World) -> None:
    land = {}
    for folder in ("trainA", "trainB"):
        boxes = boxes_in(unpaired / folder)
        corners = [(round((90 - north) * DEGREE), round((west + 180) * DEGREE)) for _, north, west, _ in boxes]
        land[folder] = sum(world.land[row : row + SIZE, column : column + SIZE].mean() for row, column in corners)
        assert {climate_of(box)[0] for box in boxes} == {name for name, *_ in earth_world.CONTINENTS}
    assert land["trainA"] == pytest.approx(land["trainB"], rel=0.03)
    assert land["trainA"] > 30


def test_unpaired_images_are_of_one_domain(unpaired: Path, world: World) -> None:
    names = {
        folder.name: sorted(path.name for path in folder.iterdir()) for folder in unpaired.iterdir() if folder.is_dir()
    }
    assert set(names) == {"trainA", "trainB", "testA", "testB"}
    assert names["testA"] == names["testB"]
    for folder, layer in {"trainA": "satellite", "trainB": "terrain", "testA": "satellite", "testB": "terrain"}.items():
        path = unpaired / folder / names[folder][0]
        _, north, west, _ = box_of(path)
        row, column = round((90 - north) * DEGREE), round((west + 180) * DEGREE)
        expected = world.layers[layer][row : row + SIZE, column : column + SIZE]
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
    described = json.loads((unpaired / "dataset.json").read_text(encoding="utf-8"))
    assert described["domains"] == {"a": "satellite", "b": "terrain"}
    assert "legend" not in described


@pytest.mark.slow
@pytest.mark.usefixtures("drawn_before")
def test_the_bytes_depend_on_the_seed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(earth, "read_world", earth_world.read_world)
        make_earth(EarthConfig(tmp_path / "drawn again", size=SIZE, limit=12, seed=3), WIDTH)
    for seed in (3, 4):
        make_earth(EarthConfig(tmp_path / str(seed), size=SIZE, limit=12, seed=seed), WIDTH)
    first = contents(tmp_path / "3")
    assert len(first) > 12 + 2
    assert first == contents(tmp_path / "drawn again")
    assert first.keys() != contents(tmp_path / "4").keys()


@pytest.mark.parametrize("split_world", [earth_places.split_paired, earth_places.split_unpaired])
@pytest.mark.parametrize("limit", [2, 60])
@pytest.mark.slow
def test_limited_tiles_stay_spread(world: World, split_world: SplitWorld, limit: int) -> None:
    everything = split_world(world, SIZE, 0)[1]
    kept = earth_places.limit_tiles(world, everything, limit, 0)
    training = [split for split in kept if split.startswith("train")]
    for split, tiles in kept.items():
        assert set(tiles) <= set(everything[split]) and len(set(tiles)) == len(tiles)
        if split in training:
            assert len(tiles) == limit
            assert len({world.climate(tile) for tile in tiles}) >= min(limit, 12)
        else:
            share = limit / max(len(everything[split]) for split in training)
            assert 1 <= len(tiles) <= max(1, round(share * len(everything[split])))
            assert all({world.climate(tile) for tile in tiles} <= {world.climate(t) for t in kept[s]} for s in training)


def test_a_smaller_limit_is_a_subset_of_a_larger_one(world: World) -> None:
    tiles = earth_places.split_paired(world, SIZE, 0)[1]
    small, large = (earth_places.limit_tiles(world, tiles, limit, 0)["train"] for limit in (20, 50))
    assert set(small) < set(large)
    assert earth_places.limit_tiles(world, tiles, 10**6, 0) == tiles


def test_map_of_the_splits(paired: Path, world: World) -> None:
    image = np.asarray(Image.open(paired / "splits.png")).astype(int)
    assert image.shape == (130 * DEGREE, 360 * DEGREE, 3)
    for split in ("train", "val", "test"):
        south, north, west, east = boxes_in(paired / split)[0]
        row, column = round((65 - (south + north) / 2) * DEGREE), round(((west + east) / 2 + 180) * DEGREE)
        below = world.layers["topo"][row + 25 * DEGREE, column].astype(int)
        half_tinted = (below + earth.SPLIT_COLORS[split]) / 2
        np.testing.assert_allclose(image[row, column], half_tinted, atol=2)


def test_a_second_run_leaves_the_dataset_alone(paired: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in paired.rglob("*")}
    assert earth.main(["--out", str(paired), "--size", str(SIZE)]) == 0
    assert "already there" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in paired.rglob("*")} == before


@pytest.mark.parametrize("options", [{"size": 64}, {"seed": 1}, {"limit": 5}, {"unpaired": True}])
def test_other_settings_are_refused(paired: Path, options: dict[str, int]) -> None:
    [(name, value)] = options.items()
    with pytest.raises(
        UserError, match=rf"other settings .*{name} \w+ instead of {value}\)\. Remove it or choose another"
    ):
        make_earth(EarthConfig(paired, **{"size": SIZE, **options}), WIDTH)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", "[1]", "not an Earth dataset"),
        ("dataset.json", "[1]", "not an Earth dataset"),
        ("dataset.json", {"name": "earth", "settings": None, "pictures": {"train": 1}}, "holds 0 of its 1 images"),
    ],
)
def test_a_folder_with_something_else_is_refused(tmp_path: Path, name: str, content: object, message: str) -> None:
    config = EarthConfig(tmp_path)
    text = json.dumps({**content, "settings": config.settings}) if isinstance(content, dict) else str(content)
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        make_earth(config, WIDTH)
    assert (tmp_path / name).read_text() == text


def test_a_file_as_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        make_earth(EarthConfig(tmp_path / "file"), WIDTH)
    with pytest.raises(UserError, match=r"below: cannot be written.*choose another place"):
        make_earth(EarthConfig(tmp_path / "file" / "below"), WIDTH)


@pytest.mark.usefixtures("drawn_before")
@pytest.mark.parametrize(
    ("failure", "seen_as"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.ENOSPC, "No space left on device"), UserError)],
)
def test_broken_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, seen_as: type[BaseException]
) -> None:
    write_images = earth.write_images

    def write_and_fail(folder: Path, *args: object) -> None:
        write_images(folder, *args)
        assert list(folder.glob("train/*.png"))
        raise failure

    monkeypatch.setattr(earth, "write_images", write_and_fail)
    with pytest.raises(seen_as):
        make_earth(EarthConfig(tmp_path / "earth", size=SIZE, limit=3), WIDTH)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("drawn_before")
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EarthConfig(Path("earth"), size=70, seed=1, unpaired=True), "--size 70 .* no image for test"),
        (EarthConfig(Path("earth"), size=SIZE, limit=1), "--limit 1 leave no image for"),
    ],
)
def test_split_without_tiles_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: EarthConfig, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        make_earth(config, WIDTH)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "15"], "size is 15"),
        (["--size", "513"], "size is 513"),
        (["--limit", "0"], "limit is 0"),
        (["--seed", "-1"], "seed is -1"),
        (["--layers", "map:moon"], "satellite:terrain"),
        (["--layers", "topo"], "topo:terrain"),
    ],
)
def test_bad_values_are_refused(run, tmp_path: Path, options: list[str], message: str) -> None:
    code, _, err = run("earth", "--out", tmp_path / "earth", *options)
    assert code == 2
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_layers_follow_the_options() -> None:
    assert EarthConfig(Path("x")).domains == ("topo", "terrain")
    assert EarthConfig(Path("x"), unpaired=True).domains == ("satellite", "terrain")
    assert EarthConfig(Path("x"), layers="topo:terrain", unpaired=True).domains == ("topo", "terrain")
    assert EarthConfig(Path("x"), layers="map:terrain", unpaired=True).domains == ("map", "terrain")
    assert EarthConfig(Path("x"), layers="satellite:terrain").domains == ("satellite", "terrain")


def test_missing_basemap_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earth, "read_world", earth_world.read_world)
    monkeypatch.setitem(sys.modules, "mpl_toolkits.basemap", None)
    with pytest.raises(UserError, match=r"pip install 'ganvas\[datasets\]'"):
        make_earth(EarthConfig(tmp_path / "earth"), WIDTH)
    assert list(tmp_path.iterdir()) == []


def test_damaged_basemap_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earth, "read_world", earth_world.read_world)
    monkeypatch.setattr(earth_world, "basemap_folder", lambda: tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"basemap's data in .*nowhere cannot be read"):
        make_earth(EarthConfig(tmp_path / "earth"), WIDTH)
