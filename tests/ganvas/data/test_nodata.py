"""Pixels without data in files of each format; TIFF's own cases are in test_tiff.py."""

import numpy as np
import pytest

from ganvas.data.nodata import apply_nodata
from ganvas.data.tiff_tags import Tags


@pytest.mark.parametrize(
    ("suffix", "channels", "valid", "hole"),
    [
        (".tif", 3, [1, 1, 255], [0, 0, 0]),  # a value that reads as the mark is moved
        (".tif", 4, [1, 1, 255, 1], [0, 0, 0, 0]),  # a plain channel
        (".png", 3, [0, 0, 255], [0, 0, 0]),  # no mark is told, and none avoided
        (".PNG", 4, [0, 0, 255, 0], [0, 0, 0, 9]),  # alpha
        (".webp", 4, [0, 0, 255, 0], [0, 0, 0, 9]),
        (".npy", 4, [0, 0, 255, 0], [0, 0, 0, 0]),
    ],
)
def test_nodata_is_written_as_the_format_allows(suffix, channels, valid, hole):
    image = np.full((4, 5, channels), 9, np.uint8)
    image[1, 1] = [0, 0, 255, 0][:channels]
    mask = np.zeros((4, 5), bool)
    mask[2, 3] = True
    found, tags = apply_nodata(suffix, image, mask, Tags({42113: (2, 2, "0")}, 0.0))
    assert found[1, 1].tolist() == valid
    assert found[2, 3].tolist() == hole
    assert (found == 9).sum() == (image == 9).sum() - (found[2, 3] == 0).sum()
    assert tags.nodata == 0
    assert image[2, 3, 0] == 9
