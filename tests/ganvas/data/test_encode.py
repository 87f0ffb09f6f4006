"""Encoding: what each format stores, and round trips."""

import errno

import numpy as np
import pytest

from ganvas.data import encode
from ganvas.data.decode import read_image, read_raster
from ganvas.data.encode import format_preserves, format_supports, write_image, write_raster
from ganvas.data.raster import Raster
from ganvas.data.tiff_tags import Tags
from ganvas.errors import UserError

FULL = {np.uint8: 255, np.uint16: 65535, np.float32: 1.0}
RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
ANY = [(suffix, kind, channels) for suffix in (".tif", ".npy") for kind in FULL for channels in (1, 2, 3, 4, 5, 13)]
PNG = [(".png", np.uint8, channels) for channels in (1, 2, 3, 4)] + [(".png", np.uint16, n) for n in (1, 3, 4)]
BMP = [(".bmp", np.uint8, 1), (".bmp", np.uint8, 3)]


@pytest.mark.parametrize(("suffix", "kind", "channels"), ANY + PNG + BMP)
@pytest.mark.parametrize("shape", [(7, 5), (1, 1)])
def test_lossless_round_trip(tmp_path, suffix, kind, channels, shape):
    image = (np.random.default_rng(8).random((*shape, channels)) * FULL[kind]).astype(kind)
    write_image(tmp_path / f"x{suffix}", image)
    read = read_image(tmp_path / f"x{suffix}", channels)
    assert read.dtype == kind
    assert np.array_equal(read, image)


@pytest.mark.parametrize(("suffix", "channels"), [(".jpg", 1), (".jpg", 3), (".webp", 3)])
def test_lossy_round_trip(tmp_path, suffix, channels):
    write_image(tmp_path / "deep" / f"x{suffix}", np.full((16, 16, channels), 100, np.uint8))
    assert np.abs(read_image(tmp_path / "deep" / f"x{suffix}", channels).astype(int) - 100).max() <= 2
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [f"x{suffix}"]


def test_deep_images_are_converted_to_the_formats_depth(tmp_path):
    write_image(tmp_path / "x.jpg", np.full((8, 8, 3), 32768, np.uint16))
    assert abs(int(read_image(tmp_path / "x.jpg", 3).mean()) - 128) <= 2
    write_image(tmp_path / "x.png", np.full((8, 8, 3), 0.5, np.float32))
    assert np.abs(read_image(tmp_path / "x.png", 3).astype(int) - 32768).max() <= 1


HELD = {".png": (1, 2, 3, 4), ".jpg": (1, 3), ".bmp": (1, 3), ".webp": (1, 3, 4)}


@pytest.mark.parametrize("suffix", HELD)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_channels_that_the_format_does_not_support_are_refused(tmp_path, suffix, channels, kind):
    if channels in HELD[suffix] and not (channels == 2 and kind != np.uint8):
        write_image(tmp_path / f"x{suffix}", np.zeros((4, 4, channels), kind))
        assert read_image(tmp_path / f"x{suffix}").shape[:2] == (4, 4)
        return
    with pytest.raises(UserError, match=rf"\{suffix} does not hold {channels} channels|does not hold this image"):
        write_image(tmp_path / f"x{suffix}", np.zeros((4, 4, channels), kind))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("suffix", "kind", "channels", "somehow", "exactly"),
    [
        (".jpg", np.uint8, 3, True, True),
        (".jpg", np.uint16, 3, True, False),
        (".JPG", np.uint8, 4, False, False),
        (".png", np.uint16, 4, True, True),
        (".png", np.uint16, 2, False, False),
        (".png", np.float32, 1, True, False),
        (".png", np.uint8, 5, False, False),
        (".tif", np.float32, 9, True, True),
        (".npy", np.uint16, 2, True, True),
    ],
)
def test_supported_formats(suffix, kind, channels, somehow, exactly):
    image = np.zeros((2, 2, channels), kind)
    assert format_supports(suffix, image, exactly=False) == somehow
    assert format_supports(suffix, image, exactly=True) == exactly


@pytest.mark.parametrize(("suffix", "most"), [(".webp", 16383), (".jpg", 65500)])
def test_formats_limit_the_sides(tmp_path, suffix, most):
    for length, is_held in ((most, True), (most + 1, False)):
        for shape in ((1, length, 3), (length, 1, 3)):
            assert format_supports(suffix, np.zeros(shape, np.uint8), exactly=True) == is_held
    write_image(tmp_path / f"x{suffix}", np.zeros((1, most, 3), np.uint8))
    with pytest.raises(UserError, match=rf"{most + 1} pixels in a row; {most} are the most"):
        write_image(tmp_path / f"y{suffix}", np.zeros((1, most + 1, 3), np.uint8))


@pytest.mark.parametrize(
    ("suffix", "channels", "alpha", "is_held"),
    [
        (".png", 4, "straight", True),
        (".png", 4, "none", False),  # whoever reads it would take infrared for alpha
        (".png", 4, "premultiplied", False),
        (".png", 2, "straight", True),
        (".webp", 4, "straight", True),
        (".jpg", 4, "straight", False),
        (".npy", 4, "straight", False),
        (".npy", 4, "none", True),
        (".png", 3, "none", True),
        (".png", 3, "straight", False),
        (".TIF", 4, "premultiplied", True),
    ],
)
def test_formats_store_alpha_as_alpha(tmp_path, suffix, channels, alpha, is_held):
    array = np.random.default_rng(5).integers(1, 256, (4, 5, channels), dtype=np.uint8)
    image = Raster(array, Tags(), np.zeros((4, 5), bool), alpha)
    assert format_preserves(suffix, image) == is_held
    if is_held and suffix != ".webp":
        write_raster(tmp_path / f"x{suffix}", image)
        again = read_raster(tmp_path / f"x{suffix}", keep_alpha=True)
        assert again.alpha == alpha
        assert np.array_equal(again.array, array)


def test_only_tiff_stores_nodata():
    image = Raster(RGB, Tags({}, 0.0), np.zeros(RGB.shape[:2], bool))
    assert [suffix for suffix in (".png", ".npy", ".tif", ".tiff") if format_preserves(suffix, image)] == [
        ".tif",
        ".tiff",
    ]
    assert format_preserves(".png", Raster.from_array(RGB))


def test_a_failed_write_leaves_the_old_image(tmp_path, monkeypatch):
    write_image(tmp_path / "x.png", RGB)

    def full(path, *rest):
        path.write_bytes(b"half an image")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(encode, "_encode", full)
    with pytest.raises(UserError, match="No space left"):
        write_image(tmp_path / "x.png", RGB // 2)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    assert np.array_equal(read_image(tmp_path / "x.png"), RGB)


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"\.gif is not an image format"):
        write_image(tmp_path / "x.gif", RGB)
