import errno

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ganvas.data import images
from ganvas.data.images import for_the_eye, list_images, read_image, to_array, to_tensor, write_image
from ganvas.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GRAY = RGB[:, :, :1]


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode=mode).save(path, **options) if mode else Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp"])
def test_colour_without_loss(tmp_path, suffix):
    options = {"lossless": True} if suffix == ".webp" else {}
    path = save(tmp_path / f"x{suffix}", RGB, **options)
    assert np.array_equal(read_image(path, 3), RGB)


def test_grayscale_has_one_channel_and_is_repeated_when_three_are_wanted(tmp_path):
    path = save(tmp_path / "x.png", GRAY[:, :, 0])
    assert np.array_equal(read_image(path), GRAY)
    assert np.array_equal(read_image(path, 3), GRAY.repeat(3, axis=2))


def test_palette_is_expanded(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(RGB).quantize(256).save(path)
    with Image.open(path) as picture:
        expected = np.asarray(picture.convert("RGB"))
    assert np.array_equal(read_image(path, 3), expected)


def test_alpha_is_composed_over_white(tmp_path):
    alpha = np.full((6, 9, 1), 128, np.uint8)
    path = save(tmp_path / "x.png", np.concatenate([RGB, alpha], axis=2))
    expected = RGB * (128 / 255) + 255 * (1 - 128 / 255)
    assert np.abs(read_image(path, 3) - expected).max() <= 1


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "x.jpg")
    assert np.abs(read_image(tmp_path / "x.jpg", 3).astype(int) - (255, 0, 0)).max() < 10


@pytest.mark.parametrize(
    ("tag", "turned"), [(1, RGB), (3, RGB[::-1, ::-1]), (6, np.rot90(RGB, -1)), (8, np.rot90(RGB))]
)
def test_exif_orientation_is_applied(tmp_path, tag, turned):
    exif = Image.Exif()
    exif[0x0112] = tag
    path = save(tmp_path / "x.png", RGB, exif=exif)
    assert np.array_equal(read_image(path, 3), turned)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_kept(tmp_path, suffix):
    deep = np.random.default_rng(1).integers(0, 65536, (5, 7), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / f"x{suffix}"), deep)
    read = read_image(tmp_path / f"x{suffix}")
    assert read.dtype == np.uint16
    assert np.array_equal(read[:, :, 0], deep)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_colour_round_trip(tmp_path, suffix):
    deep = np.random.default_rng(2).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    write_image(tmp_path / f"x{suffix}", deep)
    read = read_image(tmp_path / f"x{suffix}", 3)
    assert read.dtype == np.uint16
    assert np.array_equal(read, deep)


@pytest.mark.parametrize("channels", [1, 3])
def test_float_round_trip(tmp_path, channels):
    picture = np.random.default_rng(3).random((5, 7, channels)).astype(np.float32)
    write_image(tmp_path / "x.tif", picture)
    assert np.array_equal(read_image(tmp_path / "x.tif", channels), picture)


@pytest.mark.parametrize(
    ("suffix", "channels"),
    [
        (".png", 1),
        (".png", 3),
        (".jpg", 1),
        (".jpg", 3),
        (".bmp", 1),
        (".bmp", 3),
        (".tif", 1),
        (".tif", 3),
        (".webp", 3),
    ],
)
def test_eight_bit_round_trip(tmp_path, suffix, channels):
    flat = np.full((16, 16, channels), 100, np.uint8)
    write_image(tmp_path / "deep" / f"x{suffix}", flat)
    assert np.abs(read_image(tmp_path / "deep" / f"x{suffix}", channels).astype(int) - 100).max() <= 2
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [f"x{suffix}"]


def test_deep_pictures_become_what_the_format_holds(tmp_path):
    write_image(tmp_path / "x.jpg", np.full((8, 8, 3), 32768, np.uint16))
    assert abs(int(read_image(tmp_path / "x.jpg", 3).mean()) - 128) <= 2
    write_image(tmp_path / "x.png", np.full((8, 8, 3), 0.5, np.float32))
    assert np.abs(read_image(tmp_path / "x.png", 3).astype(int) - 32768).max() <= 1


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such picture"), (b"text", "no picture that can be read"), (b"", "no picture that can be read")],
)
def test_what_is_no_picture(tmp_path, content, said):
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        read_image(path)
    assert "x.png" in str(error.value)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated(tmp_path, suffix):
    path = save(tmp_path / f"x{suffix}", np.random.default_rng(4).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="cannot be decoded"):
        read_image(path)


def test_more_pixels_than_pillow_thinks_safe(tmp_path, monkeypatch):
    path = save(tmp_path / "x.png", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # it warns above the limit, and refuses above twice the limit
    with pytest.raises(UserError, match="too many pixels"):
        read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match="too many pixels"):
        read_image(path)


def test_other_channel_counts_are_refused(tmp_path):
    with pytest.raises(UserError, match="has 3 channels, 1 are expected"):
        read_image(save(tmp_path / "x.png", RGB), 1)


def test_a_write_that_fails_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch):
    write_image(tmp_path / "x.png", RGB)

    def full(path, picture):
        path.write_bytes(b"half a picture")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(images, "_encode", full)
    with pytest.raises(UserError, match="No space left"):
        write_image(tmp_path / "x.png", RGB // 2)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    assert np.array_equal(read_image(tmp_path / "x.png"), RGB)


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"\.gif is no picture format"):
        write_image(tmp_path / "x.gif", RGB)


def test_listing(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.tif").touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png"]
    assert [path.name for path in list_images(tmp_path, recursive=True)] == ["a.JPG", "b.png", "c.tif"]
    with pytest.raises(UserError, match="is a file"):
        list_images(tmp_path / "b.png")
    with pytest.raises(UserError, match="no such folder"):
        list_images(tmp_path / "nowhere")


@pytest.mark.parametrize(("kind", "top"), [(np.uint8, 255), (np.uint16, 65535)])
@given(st.data())
def test_every_whole_number_survives_the_network_range(kind, top, data):
    values = data.draw(st.lists(st.integers(0, top), min_size=12, max_size=12))
    picture = np.array(values, dtype=kind).reshape(2, 2, 3)
    tensor = to_tensor(picture)
    assert tensor.shape == (3, 2, 2)
    assert torch.allclose(tensor, torch.tensor(picture / (top / 2) - 1).permute(2, 0, 1).float(), atol=1e-6)
    assert np.array_equal(to_array(tensor, kind), picture)


def test_float_range_and_clipping():
    picture = np.array([[[0.0, 0.25, 1.0]]], np.float32)
    assert to_tensor(picture)[:, 0, 0].tolist() == pytest.approx([-1, -0.5, 1])
    assert to_array(torch.tensor([[[-3.0]], [[0.0]], [[3.0]]]), np.uint8)[0, 0].tolist() == [0, 128, 255]
    with pytest.raises(ValueError, match="float64"):
        to_tensor(picture.astype(np.float64))
    with pytest.raises(ValueError, match="int32"):
        to_array(torch.zeros(3, 1, 1), np.int32)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_for_the_eye(channels):
    shown = for_the_eye(np.full((4, 5, channels), 65535, np.uint16))
    assert (shown.shape, shown.dtype) == ((4, 5, 3), np.uint8)
    assert shown.min() == 255
