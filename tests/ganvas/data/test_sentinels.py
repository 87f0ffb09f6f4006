"""Marks of missing data that no tag names, beside distributions that merely end somewhere."""

import re

import numpy as np
import pytest

from ganvas.data.decode import read_raster
from ganvas.data.sentinels import find_sentinels, number, range_without, rounded_range
from ganvas.data.tensors import require_range
from ganvas.errors import UserError

HEIGHTS = 500 + 900 * np.random.default_rng(0).random((30, 40, 1), dtype=np.float32)
LEAST = float(np.finfo(np.float32).min)


def holding(image, value, where=np.s_[:6, :]):
    changed = image.copy()
    changed[where] = value
    return changed


@pytest.mark.parametrize("value", [-9999, -999, -99999, -32768, LEAST, -LEAST, 9.96921e36, 1e20, 99999])
@pytest.mark.parametrize("where", [np.s_[:6, :], np.s_[3, 5]])
def test_known_sentinels_far_from_the_data(value, where):
    image = holding(HEIGHTS, value, where)
    value = float(np.float32(value))
    assert find_sentinels(image) == {value: int((image == value).sum())}
    assert range_without(image, {value: 0}) == (image[image != value].min(), image[image != value].max())


def test_two_sentinels_and_one_in_a_single_channel():
    image = holding(holding(HEIGHTS, -9999), LEAST, np.s_[10:12, :])
    assert find_sentinels(image) == {LEAST: 80, -9999: 240}
    bands = np.concatenate([HEIGHTS, image], axis=2)
    assert find_sentinels(bands) == {LEAST: 80, -9999: 240}


@pytest.mark.parametrize(
    "image",
    [
        HEIGHTS,
        HEIGHTS - 500,
        (HEIGHTS - 950).clip(0),  # the sea, at 0, and a coast
        holding(HEIGHTS, 0, np.s_[10:20, 10:20]),  # a lake within
        holding(HEIGHTS, 0, np.s_[0, :3]),  # few
        -HEIGHTS * 9,  # depths beyond -9999
        np.zeros((8, 8, 1), np.float32),
        np.float32(np.indices((8, 8))[1] % 2)[:, :, None],  # a mask
        np.float32(np.indices((8, 8))[1])[:, :, None],  # labels
        np.uint8(holding(HEIGHTS / 8, 0)),
        np.full((4, 4, 1), 65535, np.uint16),
        np.uint16(holding(HEIGHTS * 40, 65535)),  # exposed too long
    ],
)
def test_values_that_are_data(image):
    assert find_sentinels(image) == {}


def test_borders_of_zeros_and_the_largest_of_16_bits():
    assert find_sentinels(holding(HEIGHTS, 0)) == {0: 240}
    assert find_sentinels(np.uint16(holding(HEIGHTS, 0))) == {0: 240}
    assert find_sentinels(np.uint16(holding(HEIGHTS, 65535))) == {65535: 240}


def test_an_image_of_nothing_else():
    image = np.full((4, 5, 1), -9999, np.float32)
    assert find_sentinels(image) == {-9999: 20}
    assert range_without(image, {-9999: 20}) is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-670.2, 1420.7, (-700, 1500)),
        (0, 8848.9, (0, 8900)),
        (0.02, 3.07, (0, 3.1)),
        (1e-9, 3e-9, (1e-9, 3e-9)),
        (-100, 0, (-100, 0)),
        (7.5, 7.5, (7, 8)),
        (0, 255, (0, 255)),
        (17, 4095, (17, 4095)),
    ],
)
def test_ranges_are_rounded_outward(low, high, expected):
    assert rounded_range(low, high) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("value", [LEAST, -9999, 0.1, 1e20, 9.96921e36, 8848.9])
def test_ranges_are_short_numbers_within_the_dtype(value):
    value = float(np.float32(value))
    written = number(value)
    assert np.float32(float(written)) == np.float32(value)
    assert abs(float(written)) <= -LEAST
    assert len(written) <= 23


class TestMessages:
    def message(self, image):
        with pytest.raises(UserError) as caught:
            require_range(image, None, "x.tif:")
        return str(caught.value)

    def test_the_range_is_that_of_the_file(self):
        assert "has values from 500.1" in self.message(HEIGHTS) or "has values from 50" in self.message(HEIGHTS)
        assert "--value-range=500:1400;" in self.message(HEIGHTS)

    def test_sentinels_are_not_part_of_the_range(self):
        message = self.message(holding(HEIGHTS, LEAST))
        assert "-3.4028234663852886e+38 looks like a mark of missing data" in message
        assert "gdal_edit.py -a_nodata -3.4028234663852886e+38 FILE" in message
        assert "--value-range=500:1400;" in message

    def test_a_file_of_sentinels_has_no_range(self):
        message = self.message(holding(HEIGHTS / 2000, -9999))
        assert message.endswith("(gdal_edit.py -a_nodata -9999 FILE).")
        assert not re.search("value-range", message)


def test_a_broken_link_says_where_it_points(tmp_path):
    (tmp_path / "x.png").symlink_to("gone/y.png")
    with pytest.raises(UserError, match=r"x\.png: is a broken symbolic link to gone/y\.png"):
        read_raster(tmp_path / "x.png")
    (tmp_path / "folder").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"y\.png: lies behind .*folder, a broken symbolic link to nowhere"):
        read_raster(tmp_path / "folder" / "y.png")
