"""Tiles cover a picture, blend without seams, and give what the whole picture gives."""

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin
from torch import nn

from ganvas.data.images import read_image, write_image
from ganvas.errors import UserError
from ganvas.inference.tiles import Axis, Tiling, seam_measure, translate_tiled
from ganvas.inference.translator import Translator
from ganvas.modelfile import ModelConfig, NetworkSpec, Preprocessing
from ganvas.nn.layers import InstanceNorm2d
from ganvas.nn.unet import UNetGenerator


def translator(network, channels=3):
    config = ModelConfig(
        "pix2pix", {"a2b": NetworkSpec("unet", {}, "A", "B")}, Preprocessing(channels, channels, 32, False)
    )
    return Translator(config, {"a2b": network}, size="native")


def noise(H, W, C=3):
    return np.random.default_rng(0).integers(1, 255, (H, W, C), dtype=np.uint8)


@given(st.integers(1, 300), st.integers(1, 64), st.data())
def test_weights_are_positive_and_sum_to_one(length, tile, data):
    axis = Axis(length, tile, data.draw(st.integers(0, tile // 2)))
    total = np.zeros(length)
    for start, weights in zip(axis.starts, axis.weights(), strict=True):
        assert (weights > 0).all()
        total[start : start + axis.size] += weights
    assert np.allclose(total, 1, atol=1e-12)


def test_the_seam_measure_of_a_ramp_is_one_and_of_a_step_is_the_step():
    ramp = np.tile(np.arange(40.0)[None, :, None], (8, 1, 1))
    assert seam_measure(ramp, [], [20]) == pytest.approx(1)
    ramp[:, 20:] += 4
    assert seam_measure(ramp, [], [20]) == pytest.approx(5)
    assert seam_measure(ramp.transpose(1, 0, 2), [20], []) == pytest.approx(5)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize(
    "layout", [{}, {"compress": "lzw", "predictor": 2}, {"tiled": True, "blockxsize": 16, "blockysize": 32}]
)
def test_a_geotiff_comes_out_as_it_went_in(tmp_path, layout, interleave):
    bands = noise(301, 270)
    bands[5, 7] = 0
    where = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10), "nodata": 0}
    size = {"height": 301, "width": 270, "count": 3, "dtype": "uint8", "interleave": interleave}
    with rasterio.open(tmp_path / "x.tif", "w", **size, **where, **layout) as file:
        file.write(np.moveaxis(bands, 2, 0))
    result = translate_tiled(translator(nn.Identity()), tmp_path / "x.tif", tmp_path / "y.tif", Tiling(64, 16))
    with rasterio.open(tmp_path / "x.tif") as before, rasterio.open(result.path) as after:
        assert (after.crs, after.transform, after.nodata) == (before.crs, before.transform, 0)
        assert np.array_equal(np.moveaxis(after.read(), 0, 2), bands)


def test_instance_norm_by_all_tiles_is_that_of_the_whole_picture(tmp_path):
    picture = noise(90, 110)
    picture[:, :50] //= 4
    write_image(tmp_path / "x.png", picture)
    torch.manual_seed(0)
    norms = [InstanceNorm2d(3), nn.Conv2d(3, 3, 1), nn.ReLU(), InstanceNorm2d(3), nn.Conv2d(3, 3, 1), nn.Tanh()]
    model = translator(nn.Sequential(*norms))
    whole = model.translate(picture).astype(int)
    result = translate_tiled(model, tmp_path / "x.png", tmp_path / "y.png", Tiling(32, 8, exact=True))
    assert np.abs(read_image(result.path).astype(int) - whole).max() <= 1
    assert result.passes == 2
    assert np.array_equal(model.translate(picture), whole)


@pytest.mark.parametrize(
    ("tiling", "message"), [((16, 4), "needs 32"), ((64, -1), "overlap is -1"), ((64, 40), "twice")]
)
def test_a_tile_that_does_not_suit_is_refused(tiling, message):
    with pytest.raises(UserError, match=message):
        Tiling(*tiling).check(UNetGenerator(base_channels=2, num_levels=5))
