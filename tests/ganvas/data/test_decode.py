"""Decoding of all formats: pixels, depth, channels, alpha, orientation, limits and damage."""

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ganvas.data.decode import read_image, read_raster
from ganvas.data.encode import write_image
from ganvas.data.listing import list_images
from ganvas.errors import UserError

FULL = {np.uint8: 255, np.uint16: 65535, np.float32: 1.0}
RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GRAY = RGB[:, :, :1]


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode=mode).save(path, **options) if mode else Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("format", ["PNG", "JPEG", "MPO", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_content_decides_the_format(tmp_path, format, suffix):
    options = {"lossless": True} if format == "WEBP" else {}
    path = save(tmp_path / f"x{suffix}", RGB, format=format, **options)
    read = read_image(path, 3)
    assert read.shape == RGB.shape
    assert format in ("JPEG", "MPO", "GIF") or np.array_equal(read, RGB)


@pytest.mark.parametrize(("kind", "suffix"), [("EPS", ".png"), ("PPM", ".tif"), ("TGA", ""), ("ICNS", ".png")])
def test_other_formats_are_not_opened(tmp_path, kind, suffix):
    path = save(tmp_path / f"x{suffix}", RGB, format=kind)
    with pytest.raises(UserError, match=r"which is not supported|is not a readable image"):
        read_image(path)


def test_grayscale_is_repeated_for_three_channels_and_nothing_else_is_converted(tmp_path):
    path = save(tmp_path / "x.png", GRAY[:, :, 0])
    assert np.array_equal(read_image(path), GRAY)
    assert np.array_equal(read_image(path, 3), GRAY.repeat(3, axis=2))
    with pytest.raises(UserError, match="has 1 channels, 4 are expected"):
        read_image(path, 4)
    with pytest.raises(UserError, match="has 3 channels, 1 are expected"):
        read_image(save(tmp_path / "y.png", RGB), 1)


def test_palette_is_expanded(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(RGB).quantize(256).save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(read_image(path, 3), expected)


def png_chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def deep_gray_with_alpha(image):
    """A PNG of color type 4 with 16 bits, which no library here writes: PNG 1.2, Sec. 4.1.1."""
    H, W, _ = image.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 16, 4, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("colors", [1, 3])
def test_alpha_is_kept_if_it_counts_as_a_channel(tmp_path, suffix, kind, colors):
    image = np.random.default_rng(9).integers(0, FULL[kind] + 1, (6, 9, colors + 1)).astype(kind)
    if suffix == ".tif":
        tifffile.imwrite(tmp_path / "x.tif", image, photometric=["minisblack", "rgb"][colors // 3], extrasamples=[2])
    elif colors == 1 and kind == np.uint16:
        (tmp_path / "x.png").write_bytes(deep_gray_with_alpha(image))
    else:
        write_image(tmp_path / "x.png", image)
    assert np.array_equal(read_image(tmp_path / f"x{suffix}", colors + 1), image)
    alpha = image[..., -1:] / FULL[kind]
    expected = image[..., :-1] * alpha + FULL[kind] * (1 - alpha)
    composed = read_image(tmp_path / f"x{suffix}")
    assert composed.shape == (6, 9, colors)
    assert np.abs(composed - expected).max() <= 0.5 + 1e-6


def test_colors_that_were_multiplied_by_alpha_are_not_multiplied_again(tmp_path):
    image = np.array([[[50, 0, 100, 100]]], np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", image, photometric="rgb", extrasamples=[1])
    assert read_image(tmp_path / "x.tif")[0, 0].tolist() == [50 + 155, 155, 100 + 155]


def test_a_fourth_channel_that_is_no_alpha_is_a_channel(tmp_path):
    image = np.random.default_rng(10).integers(0, 256, (6, 9, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", image, photometric="rgb", extrasamples=[0])  # such as infrared
    assert np.array_equal(read_image(tmp_path / "x.tif"), image)
    with pytest.raises(UserError, match="has 4 channels, 3 are expected"):
        read_image(tmp_path / "x.tif", 3)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_alpha_is_kept_on_request(tmp_path, mode):
    whole = Image.fromarray(np.dstack([RGB, RGB[:, :, 0]]), "RGBA")
    if mode == "P":
        Image.fromarray(RGB[:, :, 0] % 4).convert("P").save(tmp_path / "x.png", transparency=2)
    else:
        whole.convert(mode).save(tmp_path / "x.png")
    kept = read_raster(tmp_path / "x.png", keep_alpha=True)
    with Image.open(tmp_path / "x.png") as file:
        expected = np.asarray(file.convert("RGBA" if mode == "P" else mode))
    assert kept.alpha == "straight"
    assert np.array_equal(kept.array, expected)
    assert read_raster(tmp_path / "x.png").alpha == "none"


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "x.jpg")
    assert np.abs(read_image(tmp_path / "x.jpg", 3).astype(int) - (255, 0, 0)).max() < 10


ORIENTED = {  # EXIF 2.32, tag 0x0112: where the first row and first column of the stored image belong
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: np.rot90(np.fliplr(x), 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(np.fliplr(x), -1),
    8: lambda x: np.rot90(x, 1),
}


@pytest.mark.parametrize("tag", ORIENTED)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_exif_orientation_is_applied(tmp_path, tag, kind):
    image = np.random.default_rng(5).integers(0, FULL[kind] + 1, (6, 9, 3)).astype(kind)
    exif = Image.Exif()
    exif[0x0112] = tag
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    (tmp_path / "x.png").write_bytes(png[:33] + png_chunk(b"eXIf", content) + png[33:])  # after signature and header
    assert np.array_equal(read_image(tmp_path / "x.png", 3), ORIENTED[tag](image))


def oriented_tiff(image, tag):
    """A TIFF of OpenCV's with the Orientation entry set: TIFF 6.0 Sec. 2, entries of 12 bytes sorted by their tag."""
    content = cv2.imencode(".tif", image[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1].tobytes()  # 1: none
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    entries = [content[start + 2 + 12 * i :][:12] for i in range(count)]
    entries = [entry for entry in entries if struct.unpack_from("<H", entry) != (0x0112,)]
    entries.append(struct.pack("<HHIHH", 0x0112, 3, 1, tag, 0))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return content[:4] + struct.pack("<I", len(content)) + content[8:] + directory


@pytest.mark.parametrize("tag", ORIENTED)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_orientation_of_tiff_is_applied_once(tmp_path, tag, kind):
    image = (np.random.default_rng(7).random((6, 9, 3)) * (1 if kind == np.float32 else 255)).astype(kind)
    (tmp_path / "x.tif").write_bytes(oriented_tiff(image, tag))
    assert np.array_equal(read_image(tmp_path / "x.tif", 3), ORIENTED[tag](image))


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint32, np.float16, np.float64, ">u2", ">f4"])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_other_dtypes_are_converted_without_loss(tmp_path, kind, suffix):
    image = np.array([[[0], [7], [1000]]], dtype=kind) - (0 if np.dtype(kind).kind == "u" else 3)
    np.save(tmp_path / "x.npy", image)
    tifffile.imwrite(tmp_path / "x.tif", image[..., 0])
    read = read_image(tmp_path / f"x{suffix}")
    assert read.dtype == (np.uint16 if kind == ">u2" else np.float32)
    assert np.array_equal(read, image)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated(tmp_path, suffix):
    path = save(tmp_path / f"x{suffix}", np.random.default_rng(4).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="cannot be decoded"):
        read_image(path)


def test_more_pixels_than_pillows_limit(tmp_path, monkeypatch):
    path = save(tmp_path / "x.png", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # it warns above the limit, and refuses above twice the limit
    with pytest.raises(UserError, match="too many pixels"):
        read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match="too many pixels"):
        read_image(path)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_the_limit_holds_for_deep_color(tmp_path, monkeypatch, kind):
    image = np.zeros((6, 9, 3), kind)
    write_image(tmp_path / "x.tif", image)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 54)
    assert read_image(tmp_path / "x.tif").shape == (6, 9, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 53)
    with pytest.raises(UserError, match="too many pixels"):
        read_image(tmp_path / "x.tif")


def test_threads_leave_the_warning_filters_alone(tmp_path):
    path = save(tmp_path / "x.png", RGB)
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_image, [path] * 500))
    assert warnings.filters == before


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    """A good file of each kind, to be damaged."""
    folder = tmp_path_factory.mktemp("whole")
    for suffix in (".png", ".jpg", ".webp", ".bmp", ".tif"):
        write_image(folder / f"color{suffix}", RGB)
    write_image(folder / "deep.png", RGB.astype(np.uint16) * 257)
    write_image(folder / "deep.tif", RGB.astype(np.uint16) * 257)
    write_image(folder / "float.tif", RGB.astype(np.float32) / 255)
    return {path.name: path for path in list_images(folder)}


KINDS = ["color.png", "color.jpg", "color.webp", "color.bmp", "color.tif", "deep.png", "deep.tif", "float.tif"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on damaged metadata
@pytest.mark.parametrize("kind", KINDS)
@given(cut=st.integers(1, 400), changes=st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), max_size=4))
def test_damaged_files_return_an_image_or_one_message(whole_files, kind, cut, changes):
    path = whole_files[kind]
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    damaged = path.with_name(f"damaged{path.suffix}")
    damaged.write_bytes(content[:cut] if cut < 200 else content)  # every other one is cut
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
        try:
            image = read_image(damaged)
        except UserError as error:
            assert str(error).startswith(str(damaged))
        else:
            assert image.ndim == 3
            assert image.dtype in (np.uint8, np.uint16, np.float32)
