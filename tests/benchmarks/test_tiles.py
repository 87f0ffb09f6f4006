"""The picture is what it says, and the model translates it."""

import numpy as np
import tifffile

from benchmarks.tiles import draw_picture, peak_bytes, small_model


def test_the_picture_has_its_size_and_grows_brighter_to_the_east(tmp_path):
    picture = tifffile.imread(draw_picture(tmp_path / "x.tif", 300, 520))
    assert (picture.shape, picture.dtype) == ((300, 520, 3), np.uint8)
    assert 20 < picture[:, 260:].mean() - picture[:, :260].mean() < 50


def test_the_model_translates_and_memory_is_told_in_bytes():
    assert small_model().translate(np.zeros((32, 32, 3), np.uint8)).shape == (32, 32, 3)
    assert 10**8 < peak_bytes() < 10**10
