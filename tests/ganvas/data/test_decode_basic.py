"""Decoding with Pillow and NumPy alone, which files are opened, and the messages about the others."""

import io
import os
import random
import socket
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from ganvas.data.decode import read_image, read_raster
from ganvas.data.decode_basic import read_basic
from ganvas.data.encode import write_raster
from ganvas.data.tiff_tags import PROFILE, is_color_managed
from ganvas.errors import UserError
from ganvas.files import open_regular
from ganvas.inference.images import from_pillow
from ganvas.json_files import read_json

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
READERS = {"all": read_raster, "the ONNX runner's": read_basic}


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(values, bits, color_type, transparent=None, palette=None):
    """A PNG of [H, W, C] in the file's own units: PNG 1.2, Sec. 4.1."""
    H, W, _ = values.shape
    rows = values.reshape(H, -1)
    packed = np.unpackbits(rows.astype(">u2").view(np.uint8).reshape(H, -1, 2), axis=2)[:, :, 16 - bits :]
    lines = [b"\0" + np.packbits(row.ravel()).tobytes() for row in packed]
    chunks = chunk(b"PLTE", bytes(palette)) if palette else b""
    chunks += chunk(b"tRNS", transparent) if transparent is not None else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, bits, color_type, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(lines))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + chunks + body


GRAY_DEPTHS = [1, 2, 4, 8, 16]


def gray_png(bits):
    """Return a row of four gray values of which one is transparent, as PNG, over white, and as alpha."""
    top, full = 2**bits - 1, 65535 if bits == 16 else 255
    key = {1: 1, 2: 2, 4: 5, 8: 77, 16: 1000}[bits]
    values = np.array([[0, key, top, key - 1]])[:, :, None]
    expected = np.where(values == key, full, values * full // top)
    opaque = np.where(values == key, 0, full)
    return png(values, bits, 0, struct.pack(">H", key)), expected, opaque


@pytest.mark.parametrize("bits", GRAY_DEPTHS)
@pytest.mark.parametrize("reader", READERS)
def test_a_transparent_gray_becomes_white(tmp_path, bits, reader):
    content, expected, opaque = gray_png(bits)
    (tmp_path / "x.png").write_bytes(content)
    if reader == "all":
        assert np.array_equal(read_image(tmp_path / "x.png"), expected)
        found = read_raster(tmp_path / "x.png", keep_alpha=True)
        assert found.conversions == ("transparency",)
    else:
        found = read_basic(tmp_path / "x.png")
    assert found.alpha == "straight"
    assert found.array.dtype == (np.uint16 if bits == 16 else np.uint8)
    assert np.array_equal(found.array[:, :, 1:], opaque)
    shown = opaque > 0
    assert np.array_equal(found.array[:, :, :1][shown], expected[shown])


@pytest.mark.parametrize("bits", GRAY_DEPTHS)
@pytest.mark.parametrize("is_loaded", [False, True])
def test_a_transparent_gray_of_a_pillow_image(bits, is_loaded):
    content, expected, _ = gray_png(bits)
    image = Image.open(io.BytesIO(content))
    if is_loaded:
        image.load()
    assert np.array_equal(from_pillow(image, 1), expected)
    assert from_pillow(image, 2).shape == (1, 4, 2)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("color_type", [2, 4, 6])
@pytest.mark.parametrize("orientation", [1, 6])
def test_colors_and_alpha_of_png(tmp_path, bits, color_type, orientation):
    top = 2**bits - 1
    values = np.random.default_rng(1).integers(0, top + 1, (3, 4, {2: 3, 4: 2, 6: 4}[color_type]))
    key = struct.pack(">HHH", *values[1, 2]) if color_type == 2 else None
    content = png(values, bits, color_type, key)
    exif = chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation]) + bytes(7))
    (tmp_path / "x.png").write_bytes(content[:33] + exif + content[33:])
    found = read_raster(tmp_path / "x.png", keep_alpha=True)
    if color_type == 2:
        opaque = (values != values[1, 2]).any(axis=2, keepdims=True) * top
        values = np.concatenate([values, opaque], axis=2)
    turned = np.rot90(values, -1) if orientation == 6 else values
    assert found.array.dtype == f"uint{bits}"
    assert found.alpha == "straight"
    assert np.array_equal(found.array, turned)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_entry_of_a_palette(tmp_path, bits):
    colors = [200, 10, 20, 30, 140, 50]
    (tmp_path / "x.png").write_bytes(png(np.array([[[0], [1], [0]]]), bits, 3, b"\0", colors))
    assert read_image(tmp_path / "x.png")[0].tolist() == [[255] * 3, colors[3:], [255] * 3]
    assert np.array_equal(from_pillow(Image.open(tmp_path / "x.png"), 3), read_image(tmp_path / "x.png"))


# --- content decides, not the name ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".npy", ".tif", ".jfif", ""])
@pytest.mark.parametrize("kind", ["tif", "png", "npy"])
def test_depth_does_not_depend_on_the_name(tmp_path, suffix, kind):
    deep = np.random.default_rng(2).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    path = tmp_path / f"x{suffix}"
    if kind == "tif":
        tifffile.imwrite(path, deep, photometric="rgb")
    elif kind == "png":
        path.write_bytes(cv2.imencode(".png", deep[:, :, ::-1])[1].tobytes())
    else:
        with path.open("wb") as file:
            np.save(file, deep)
    assert np.array_equal(read_image(path), deep)


def test_layers_that_pillow_would_flatten_are_refused(tmp_path):
    for name, content in (("x.png", png(RGB.astype(int) * 257, 16, 2)), ("x.tif", None)):
        if content:
            (tmp_path / name).write_bytes(content)
        else:
            tifffile.imwrite(tmp_path / name, RGB.astype(np.uint16), photometric="rgb")
        with pytest.raises(UserError, match="16 bits in several channels"):
            read_basic(tmp_path / name)


def box(brand):
    return struct.pack(">I", 24) + b"ftyp" + brand + bytes(12)


TWELVE_BITS = b"\xff\xd8\xff\xc1\0\x0b\x0c\0\x08\0\x08\x01\x01\x11\0\xff\xda\0\x08\x01\x01\0\0\x3f\0\xff\xd9"
FOREIGN = {
    "HEIC": (box(b"heic"), "is a HEIC image, which is not supported. Convert it to PNG or JPEG"),
    "HEIF": (box(b"mif1"), "is a HEIC image"),
    "AVIF": (box(b"avif"), "is an AVIF image"),
    "SVG": (b'<?xml version="1.0"?>\n<svg xmlns="x"></svg>', "is an SVG drawing"),
    "JPEG XL": (b"\xff\x0a\0\0", "is a JPEG XL image"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "is a JPEG 2000 image"),
    "PDF": (b"%PDF-1.7", "is a PDF document"),
    "Photoshop": (b"8BPS\0\1", "is a Photoshop document"),
    "web page": (b"\n<!DOCTYPE html><html>404</html>", "is a web page .* Download it again"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer .* git lfs pull"),
    "nothing": (b"", "is an empty file. Copy or download it again"),
    "12-bit JPEG": (TWELVE_BITS, "is not a readable image"),
    "text": (b"not an image", "is not a readable image"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("reader", READERS)
def test_other_files_are_described_with_advice(tmp_path, kind, reader):
    content, said = FOREIGN[kind]
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.png: {said}"):
        READERS[reader](tmp_path / "x.png")


def test_animations_are_refused(tmp_path):
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    for name, kind in (("x.gif", "GIF"), ("x.webp", "WEBP"), ("x.png", "PNG")):
        frames[0].save(tmp_path / name, kind, save_all=True, append_images=frames[1:], lossless=True)
        assert "animation" in read_raster(tmp_path / name).conversions


# --- what is opened ---------------------------------------------------------------------------------------------------


def a_pipe(path):
    os.mkfifo(path)


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as end:
        here = os.open(".", os.O_RDONLY)
        os.chdir(path.parent)  # names of sockets are short
        try:
            end.bind(path.name)
        finally:
            os.fchdir(here)
            os.close(here)


IRREGULAR = {
    "a pipe": (a_pipe, "it is a pipe, a device or a socket, not a file"),
    "a socket": (a_socket, "it is a pipe, a device or a socket, not a file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "it is a pipe, a device or a socket, not a file"),
    "a folder": (lambda path: path.mkdir(), "it is a folder"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("kind", IRREGULAR)
@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.npy"])
def test_only_regular_files_are_opened(tmp_path, kind, name):
    make, said = IRREGULAR[kind]
    make(tmp_path / name)
    for reader in READERS.values():
        with pytest.raises(UserError, match=rf"{name}: cannot be read \({said}\)"):
            reader(tmp_path / name)
    with pytest.raises(UserError, match=said):
        read_json(tmp_path / name, "a description")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(b"")
    real = type(path).stat

    def stat(self, **options):
        found = real(self, **options)
        if self == path:
            monkeypatch.undo()
            path.unlink()
            os.mkfifo(path)
        return found

    monkeypatch.setattr(type(path), "stat", stat)
    with pytest.raises(OSError, match="a pipe"):
        open_regular(path)


def test_a_broken_link_is_reported_as_such(tmp_path):
    (tmp_path / "x.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"x\.png: is a broken symbolic link to \S*gone\.png\.$"):
        read_image(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"gone\.png: there is no such image\.$"):
        read_image(tmp_path / "gone.png")


# --- one message ------------------------------------------------------------------------------------------------------


def numpy_file(header, version=1, body=b""):
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + body


HEADERS = {
    "a shape without end": (b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 1)}" % 10**30, "too many pixels"),
    "four dimensions": (b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 2, 1)}", "shape is"),
    "a shape of nothing": (b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 1)}", "shape is"),
    "a negative shape": (b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -4)}", "shape is"),
    "parentheses": (b"(" * 5000, "header is damaged"),
    "signs": (b"-" * 9000, "header is damaged"),
    "an empty type": (b"{'descr': ({},), 'fortran_order': False, 'shape': (2, 2)}", "cannot be decoded"),
    "objects": (b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}", "type object"),
    "more than there is": (b"{'descr': '<f8', 'fortran_order': False, 'shape': (9000, 9000)}", "truncated"),
    "channels without end": (b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2, %d)}" % 10**12, "truncated"),
    "no header": (b"", "cannot be decoded"),
    "a long header": (
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1)}".ljust(20_000),
        "longer than that of",
    ),
    "text": (b"{'descr': '<U4', 'fortran_order': False, 'shape': (2, 2)}", "are not an image"),
}


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("reader", READERS)
def test_damaged_numpy_files(tmp_path, kind, version, reader):
    header, said = HEADERS[kind]
    (tmp_path / "x.npy").write_bytes(numpy_file(header, version))
    with pytest.raises(UserError, match=rf"x\.npy: .*{said}") as error:
        READERS[reader](tmp_path / "x.npy")
    assert "pickle" not in str(error.value)  # NumPy advises to run what it holds


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, ">f4", np.int32, np.float64])
def test_numpy_files(tmp_path, order, kind):
    array = np.asarray(np.arange(24).reshape(2, 3, 4), kind, order=order)
    np.save(tmp_path / "x.npy", array)
    assert np.array_equal(read_image(tmp_path / "x.npy"), array)
    np.save(tmp_path / "y.npy", array[:, :, 0])
    assert np.array_equal(read_image(tmp_path / "y.npy"), array[:, :, :1])


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on damaged metadata
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("bits", [8, 16])
def test_broken_metadata_return_an_image_or_one_message(tmp_path, kind, bits):
    if bits == 16 and kind != "PNG":
        pytest.skip("the format has 8 bits alone")
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F], exif[0x011A] = "a camera", 72.0
    exif.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
    whole, rng = bytearray(exif.tobytes()), random.Random(3)
    plain = png(RGB.astype(int) * 257, 16, 2)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(6, len(damaged))] = rng.choice([0, 1, 255, rng.randrange(256)])
        if bits == 16:
            content = plain[:33] + chunk(b"eXIf", bytes(damaged[6:])) + plain[33:]
            (tmp_path / "x").write_bytes(content)
        else:
            Image.fromarray(RGB).save(tmp_path / "x", kind, exif=bytes(damaged))
        for reader in [read_raster] if bits == 16 else READERS.values():
            try:
                assert sorted(reader(tmp_path / "x").array.shape) == [3, 6, 9]
            except UserError as error:
                assert str(error).startswith(str(tmp_path / "x"))


def test_anything_that_a_decoder_raises_is_one_message(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    for error in (OverflowError("a\nb"), IndexError("c"), RecursionError(), MemoryError(), KeyError("d" * 9999)):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(Image, "open", fail)
        with pytest.raises(UserError, match=rf"x\.png: cannot be decoded \({type(error).__name__}") as told:
            read_image(tmp_path / "x.png")
        assert "\n" not in str(told.value)
        assert len(str(told.value)) < 600


# --- color profiles ---------------------------------------------------------------------------------------------------


def profile(space=b"RGB ", name=b"Display P3"):
    """As much of an ICC profile as says its color space: ICC.1:2022, Sec. 7.2."""
    return struct.pack(">I", 160) + bytes(12) + space + bytes(140 - len(name)) + name


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jfif", ".webp", ".tif"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_profile_is_kept_for_colors_of_its_space(tmp_path, suffix, kind):
    given = profile()
    Image.fromarray(RGB).save(tmp_path / "source.png", icc_profile=given)
    source = read_raster(tmp_path / "source.png")
    assert source.tags.values[PROFILE][2] == given
    image = type(source)(source.array.astype(kind), source.tags, source.nodata_mask)
    for channels, kept in ((3, given), (1, None)):
        part = type(source)(image.array[:, :, :channels], source.tags, source.nodata_mask)
        write_raster(tmp_path / f"x{suffix}", part) if (suffix, channels) != (".webp", 1) else None
        if (suffix, channels) == (".webp", 1):
            continue
        found = read_raster(tmp_path / f"x{suffix}").tags.values.get(PROFILE, (7, 0, None))[2]
        assert found == kept
    assert np.array_equal(read_image(tmp_path / "source.png"), RGB)


@pytest.mark.parametrize(
    ("content", "is_told"),
    [
        (profile(), True),
        (profile(b"GRAY", b"Dot Gain 20%"), True),
        (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), False),
        (None, False),
    ],
)
def test_profiles_other_than_srgb_are_reported(tmp_path, content, is_told):
    Image.fromarray(RGB).save(tmp_path / "x.png", icc_profile=content)
    assert is_color_managed(read_raster(tmp_path / "x.png").tags) is is_told
