"""Images that are not 8-bit color: bands, ranges, heights, several sources; from the files to the translations."""

import json
import re

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.transform import from_origin

import ganvas
from ganvas.data.decode import read_image
from ganvas.data.encode import write_image

SIZES = ["--image-size", "32", "--load-size", "0", "--levels", "4", "--patch-layers", "1"]
SMALL = [*SIZES, "--base-channels", "4", "--discriminator-channels", "4"]
FEW = ["--steps", 4, "--save-every-steps", 4, "--sample-every-steps", 4, "--threads", 1]


def geotiff(path, bands, nodata=None):
    """[H, W, C] as a GeoTIFF of rasterio's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    H, W, C = bands.shape
    where = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10), "nodata": nodata}
    with rasterio.open(path, "w", height=H, width=W, count=C, dtype=bands.dtype, compress="lzw", **where) as file:
        file.write(np.moveaxis(bands, 2, 0))


@pytest.fixture
def satellite(tmp_path):
    """Five bands of 12 bits and the heights in metres that go with them; a corner of the first is without data."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for number in range(count):
            bands = rng.integers(1, 4096, (40, 48, 5), dtype=np.uint16)
            bands[:4, :4] = 0
            heights = bands.mean(axis=2, keepdims=True).astype(np.float32) * 2 - 500
            geotiff(tmp_path / "data" / split / "a" / f"{number}.tif", bands, nodata=0)
            geotiff(tmp_path / "data" / split / "b" / f"{number}.tif", heights)
    return tmp_path / "data"


def test_five_bands_to_heights_keep_georeferences(pix2pix, satellite, tmp_path):
    run = tmp_path / "run"
    ranges = ["--value-range", "0:4095", "--target-range=-500:7700"]
    code, _, err = pix2pix("train", "--data", satellite, "--out", run, *ranges, *SMALL, *FEW)
    assert code == 0, err
    assert "Channels, as in the data: 5 to 1." in err
    data = json.loads((run / "config.json").read_text())["data"]
    assert (data["source_channels"], data["target_channels"]) == (5, 1)
    how = json.loads((run / "model" / "config.json").read_text())["preprocessing"]
    assert (how["source_range"], how["target_range"]) == ([0, 4095], [-500, 7700])
    assert (how["source_type"], how["target_type"]) == ("uint16", "float32")

    code, _, err = pix2pix("translate", run, satellite / "test" / "a", tmp_path / "out")
    assert code == 0, err
    for number in range(2):
        with rasterio.open(tmp_path / "out" / f"{number}.tif") as file:
            assert (file.count, file.dtypes[0], file.shape) == (1, "float32", (40, 48))
            assert file.crs == rasterio.CRS.from_epsg(32633)
            assert file.transform == from_origin(500_000, 5_000_000, 10, 10)
            heights = file.read(1)
            assert file.nodata == 0
        assert (heights[:4, :4] == 0).all()
        assert -500 <= heights.min() < heights.max() <= 7700
        assert tifffile.imread(tmp_path / "out" / f"{number}.tif").shape == (40, 48)  # another library

    code, out, err = pix2pix("evaluate", run, "--data", satellite, "--json", "--out", tmp_path / "evaluated")
    assert code == 0, err
    assert 0 < json.loads(out)["metrics"]["l1"]["mean"] < 2
    assert sorted(path.name for path in (tmp_path / "evaluated").iterdir()) == ["0.tif", "1.tif"]


def test_five_bands_to_five_bands(pix2pix, satellite, tmp_path):
    """The targets are the sources' bands from the last to the first, in half their values."""
    for source in sorted(satellite.glob("*/a/*.tif")):
        with rasterio.open(source) as file:
            geotiff(source.parents[1] / "b" / source.name, np.moveaxis(file.read()[::-1] // 2, 0, 2), nodata=0)
    run = tmp_path / "run"
    how = ["--value-range", "0:4095", "--target-range", "0:2047"]
    code, _, err = pix2pix("train", "--data", satellite, "--out", run, *how, *SMALL, *FEW)
    assert code == 0, err

    code, _, err = pix2pix("translate", run, satellite / "test" / "a", tmp_path / "out")
    assert code == 0, err
    model = ganvas.load(run)
    for number in range(2):
        with rasterio.open(satellite / "test" / "a" / f"{number}.tif") as before:
            where = before.crs, before.transform, before.nodata
        with rasterio.open(tmp_path / "out" / f"{number}.tif") as after:
            assert (after.count, after.dtypes, after.shape) == (5, ("uint16",) * 5, (40, 48))
            assert (after.crs, after.transform, after.nodata) == where
            bands, valid = after.read(), after.read_masks() > 0
        assert (bands[:, :4, :4] == 0).all()
        assert bands.max() <= 2047
        assert all(len(np.unique(band[seen])) > 10 for band, seen in zip(bands, valid, strict=True))
        assert not any(np.array_equal(bands[i], bands[j]) for i in range(5) for j in range(i))
        written = np.moveaxis(bands, 0, 2)
        assert np.array_equal(tifffile.imread(tmp_path / "out" / f"{number}.tif"), written)
        expected = model.translate_batch([model.read(satellite / "test" / "a" / f"{number}.tif").array])[0]
        seen = valid.all(axis=0)
        assert np.abs(written[seen].astype(int) - expected[seen]).max() <= 1  # batches round differently

    code, out, err = pix2pix("evaluate", run, "--data", satellite, "--json", "--out", tmp_path / "evaluated")
    assert code == 0, err
    assert 0 < json.loads(out)["metrics"]["l1"]["mean"] < 2
    evaluated = read_image(tmp_path / "evaluated" / "0.tif")
    assert (evaluated.shape, evaluated.dtype) == ((40, 48, 5), np.uint16)


def test_floats_without_a_range_are_refused_with_the_range_they_have(pix2pix, satellite, tmp_path):
    code, _, err = pix2pix("train", "--data", satellite, "--out", tmp_path / "run", *SMALL, *FEW)
    assert code == 2
    assert "values from" in err
    low, high = map(float, re.search(r"--value-range=(\S+?):(\S+?);", err).groups())
    least, greatest = map(float, re.search(r"values from (\S+) to (\S+?),", err).groups())
    width = greatest - least
    assert least - 0.1 * width <= low <= least
    assert greatest <= high <= greatest + 0.1 * width


@pytest.fixture
def stacked(tmp_path):
    """Two gray sources, radar and sun, and a target that is their difference; stems are equal, suffixes are not."""
    rng = np.random.default_rng(1)
    for split in ("train", "test"):
        for number in range(3):
            radar, sun = rng.integers(0, 256, (2, 32, 32, 1), dtype=np.uint8)
            for folder, suffix, image in (("radar", "png", radar), ("sun", "Bmp", sun), ("b", "png", radar - sun)):
                write_image(tmp_path / "data" / split / folder / f"{number}.{suffix}", image)
    return tmp_path / "data"


def test_several_sources_are_stacked(pix2pix, stacked, tmp_path):
    run, how = tmp_path / "run", ["--source", "radar", "--source", "sun"]
    code, _, err = pix2pix("train", "--data", stacked, "--out", run, *how, *SMALL, *FEW, "--no-flip")
    assert code == 0, err
    code, _, err = pix2pix("translate", run, stacked / "test", tmp_path / "out")
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png"]
    code, out, err = pix2pix("evaluate", run, "--data", stacked, "--json")
    assert code == 0, err
    assert json.loads(out)["pictures"] == 3

    (stacked / "test" / "sun" / "1.Bmp").unlink()
    code, _, err = pix2pix("translate", run, stacked / "test", tmp_path / "again")
    assert code == 2
    assert "sun: has 0 images called 1" in err
    code, _, err = pix2pix("translate", run, stacked / "test" / "radar", tmp_path / "again")
    assert code == 2
    assert "radar, sun" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "radar", "--source", "moon", "--source-channels", 2], "moon: there is no such folder"),
        (["--source", "radar", "--source", "radar"], "is named twice"),
        (["--source", "radar", "--source", "sun", "--source-channels", 3], "have 1 + 1 = 2 channels, 3 are expected"),
        (["--source", "radar", "--direction", "b2a"], "--source and --direction b2a"),
        (["--value-range", "5"], "--value-range 5: is not a range"),
        (["--target-range", "9:1"], "target_range 9:1: is not a range"),
        (["--levels", "6"], "levels 6: 5 reduce --image-size 32 to one pixel"),
    ],
)
def test_bad_options(pix2pix, stacked, tmp_path, options, message):
    code, _, err = pix2pix(
        "train", "--data", stacked, "--out", tmp_path / "run", "--target-channels", 1, *SMALL, *FEW, *options
    )
    assert code == 2
    assert message in err
    assert not (tmp_path / "run" / "model").exists()


def test_unread_files_are_named_by_all_commands(pix2pix, own_pairs, tmp_path):
    for name in ("train/x.gif", "train/y.GIF", "val/x.heic", "test/x.ppm", "test/notes.txt"):
        (own_pairs / name).touch()
    run = tmp_path / "run"
    code, _, err = pix2pix("train", "--data", own_pairs, "--out", run, *SMALL, *FEW)
    assert code == 0, err
    assert "Files in other formats are not read: 2 .gif, 1 .heic.\n" in err
    code, _, err = pix2pix("translate", run, own_pairs / "test", tmp_path / "out")
    assert code == 0, err
    assert "Files in other formats are not read: 1 .ppm.\n" in err
    code, out, _ = pix2pix("translate", run, own_pairs / "test", tmp_path / "again", "--json")
    assert json.loads(out)["unread"] == {".ppm": 1}
    code, out, err = pix2pix("evaluate", run, "--data", own_pairs, "--json")
    assert code == 0, err
    assert "Files in other formats are not read: 1 .ppm.\n" in err
    assert json.loads(out)["pictures"] == 3


def test_resume_and_config_keep_the_channels_of_a_run(pix2pix, satellite, tmp_path):
    ranges = ["--value-range", "0:4095", "--target-range=-500:7700"]
    run, again = tmp_path / "run", tmp_path / "again"
    code, _, err = pix2pix("train", "--data", satellite, "--out", run, *ranges, *SMALL, *FEW)
    assert code == 0, err
    code, _, err = pix2pix("train", "--out", run, "--resume", "--steps", 6)
    assert code == 0, err
    assert "Channels, as in the data" not in err
    code, _, err = pix2pix("train", "--out", again, "--config", run / "config.json", "--steps", 6)
    assert code == 0, err
    configs = [json.loads((each / "config.json").read_text()) for each in (run, again)]
    assert configs[0] == configs[1]
    assert configs[0]["data"]["source_channels"] == 5
