"""The image is what it says, the models translate it, and the comparison compares."""

import numpy as np
import pytest
import rasterio
import tifffile

from benchmarks.tiles import compare, draw_waves, draw_worlds, make_translator, peak_bytes, small_networks
from data_scripts.sets.earth_world import draw_map
from ganvas.data.decode import read_raster
from ganvas.inference.tiling.plan import Tiling

pytestmark = pytest.mark.slow


def test_the_image_has_size_georeference_and_gradient(tmp_path):
    path = draw_waves(tmp_path / "x.tif", 300, 520)
    image = tifffile.imread(path)
    assert (image.shape, image.dtype, image.min() > 0) == ((300, 520, 3), np.uint8, True)
    assert 20 < image[:, 260:].mean() - image[:, :260].mean() < 50
    with rasterio.open(path) as file:
        assert (file.crs, file.nodata, file.transform[0]) == ("EPSG:32633", 0, 10)


def test_the_world_is_drawn_side_by_side(tmp_path):
    path = draw_worlds(tmp_path / "x.tif", 300, 700, world_width=480)
    image = tifffile.imread(path)
    assert np.array_equal(image[:240, :480], draw_map(480, with_lines=True)[0])
    assert np.array_equal(image[240:], image[:60])
    assert np.array_equal(image[:, 480:], image[:, :220])
    assert not read_raster(path).nodata_mask.any()


def test_models_translate_and_memory_is_in_bytes():
    for network, statistics in small_networks().values():
        translated = make_translator(network, statistics).translate(np.full((32, 32, 3), 9, np.uint8))
        assert (translated.shape, translated.dtype) == ((32, 32, 3), np.uint8)
    assert 10**8 < peak_bytes() < 10**10


def test_shared_statistics_are_closer_to_one_pass_than_each_tiles_own(tmp_path):
    rows = list(compare(draw_waves(tmp_path / "x.tif", 150, 150), Tiling(96, 32)))
    assert len(rows) == 4 * len(small_networks())
    for whole, some, every, own in zip(*[iter(rows)] * 4, strict=True):
        assert [row["statistics"] for row in (whole, some, every, own)] == ["no tiles", "some", "all", "each its own"]
        if some["passes"]:
            assert 0 < every["difference"] <= 1.1 * some["difference"] < own["difference"] / 2
        else:
            assert some["difference"] == every["difference"] == own["difference"] > 0
