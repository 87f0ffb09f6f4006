import errno
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ganvas.data import encode
from ganvas.data.decode import read_image, read_raster
from ganvas.data.encode import format_preserves, format_supports, write_image, write_raster
from ganvas.data.listing import list_images
from ganvas.data.nodata import apply_nodata
from ganvas.data.raster import Raster
from ganvas.data.tensors import to_array, to_display, to_tensor
from ganvas.data.tiff_tags import Tags
from ganvas.errors import UserError

FULL = {np.uint8: 255, np.uint16: 65535, np.float32: 1.0}
RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GRAY = RGB[:, :, :1]


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode=mode).save(path, **options) if mode else Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "MPO", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_name_that_tells_another_format_matters_not(tmp_path, kind, suffix):
    path = save(tmp_path / f"x{suffix}", RGB, format=kind)
    assert read_image(path, 3).shape == RGB.shape


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
def test_pixels_without_data_are_marked_as_the_format_can(suffix, channels, valid, hole):
    picture = np.full((4, 5, channels), 9, np.uint8)
    picture[1, 1] = [0, 0, 255, 0][:channels]
    mask = np.zeros((4, 5), bool)
    mask[2, 3] = True
    found, tags = apply_nodata(suffix, picture, mask, Tags({42113: (2, 2, "0")}, 0.0))
    assert found[1, 1].tolist() == valid
    assert found[2, 3].tolist() == hole
    assert (found == 9).sum() == (picture == 9).sum() - (found[2, 3] == 0).sum()
    assert tags.nodata == 0
    assert picture[2, 3, 0] == 9


@pytest.mark.parametrize("kind", ["EPS", "PPM", "TGA", "ICNS"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ""])
@pytest.mark.slow
def test_formats_that_no_suffix_stands_for_are_not_opened(tmp_path, kind, suffix):
    path = save(tmp_path / f"x{suffix}", RGB, format=kind)
    with pytest.raises(UserError, match=r"which is not supported|is no image that can be read"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp"])
def test_color_without_loss(tmp_path, suffix):
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


def png_chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def deep_gray_with_alpha(picture):
    """A PNG of color type 4 with 16 bits, which no library here writes: PNG 1.2, Sec. 4.1.1."""
    H, W, _ = picture.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in picture)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 16, 4, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("colors", [1, 3])
def test_alpha_is_kept_where_it_is_counted(tmp_path, suffix, kind, colors):
    picture = np.random.default_rng(9).integers(0, FULL[kind] + 1, (6, 9, colors + 1)).astype(kind)
    if suffix == ".tif":
        tifffile.imwrite(tmp_path / "x.tif", picture, photometric=["minisblack", "rgb"][colors // 3], extrasamples=[2])
    elif colors == 1 and kind == np.uint16:
        (tmp_path / "x.png").write_bytes(deep_gray_with_alpha(picture))
    else:
        write_image(tmp_path / "x.png", picture)
    assert np.array_equal(read_image(tmp_path / f"x{suffix}", colors + 1), picture)
    alpha = picture[..., -1:] / FULL[kind]
    expected = picture[..., :-1] * alpha + FULL[kind] * (1 - alpha)
    composed = read_image(tmp_path / f"x{suffix}")
    assert composed.shape == (6, 9, colors)
    assert np.abs(composed - expected).max() <= 0.5 + 1e-6


def test_colors_that_were_multiplied_by_alpha_are_not_multiplied_again(tmp_path):
    picture = np.array([[[50, 0, 100, 100]]], np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", picture, photometric="rgb", extrasamples=[1])
    assert read_image(tmp_path / "x.tif")[0, 0].tolist() == [50 + 155, 155, 100 + 155]


def test_a_fourth_channel_that_is_no_alpha_is_a_channel(tmp_path):
    picture = np.random.default_rng(10).integers(0, 256, (6, 9, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", picture, photometric="rgb", extrasamples=[0])  # such as infrared
    assert np.array_equal(read_image(tmp_path / "x.tif"), picture)
    with pytest.raises(UserError, match="has 4 channels, 3 are expected"):
        read_image(tmp_path / "x.tif", 3)


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
def test_exif_orientation_is_applied_to_deep_color(tmp_path, tag):
    deep = np.random.default_rng(5).integers(0, 65536, (6, 9, 3), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = tag
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    png = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    (tmp_path / "x.png").write_bytes(png[:33] + png_chunk(b"eXIf", content) + png[33:])  # after signature and header
    assert np.array_equal(read_image(tmp_path / "x.png", 3), ORIENTED[tag](deep))


def oriented_tiff(picture, tag):
    """A TIFF of OpenCV's with the Orientation entry set: TIFF 6.0 Sec. 2, entries of 12 bytes sorted by their tag."""
    content = cv2.imencode(".tif", picture[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 1])[1].tobytes()  # 1: none
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
    picture = (np.random.default_rng(7).random((6, 9, 3)) * (1 if kind == np.float32 else 255)).astype(kind)
    (tmp_path / "x.tif").write_bytes(oriented_tiff(picture, tag))
    assert np.array_equal(read_image(tmp_path / "x.tif", 3), ORIENTED[tag](picture))


def test_deep_alpha_is_composed_over_white(tmp_path):
    deep = np.random.default_rng(6).integers(0, 65536, (5, 7, 4), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "x.png"), deep[..., [2, 1, 0, 3]])
    alpha = deep[..., 3:].astype(np.float64) / 65535
    read = read_image(tmp_path / "x.png", 3)
    assert read.dtype == np.uint16
    assert np.abs(read - (deep[..., :3] * alpha + 65535 * (1 - alpha))).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_kept(tmp_path, suffix):
    deep = np.random.default_rng(1).integers(0, 65536, (5, 7), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / f"x{suffix}"), deep)
    read = read_image(tmp_path / f"x{suffix}")
    assert read.dtype == np.uint16
    assert np.array_equal(read[:, :, 0], deep)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_color_round_trip(tmp_path, suffix):
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
    [(None, "no such image"), (b"text", "no image that can be read"), (b"", "is an empty file")],
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


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_the_limit_holds_for_deep_color(tmp_path, monkeypatch, kind):
    picture = np.zeros((6, 9, 3), kind)
    write_image(tmp_path / "x.tif", picture)
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


def test_one_pixel(tmp_path):
    for suffix in (".png", ".tif", ".bmp"):
        write_image(tmp_path / f"x{suffix}", RGB[:1, :1])
        assert np.array_equal(read_image(tmp_path / f"x{suffix}"), RGB[:1, :1])


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
def test_damage_gives_a_picture_or_a_plain_message(whole_files, kind, cut, changes):
    path = whole_files[kind]
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    damaged = path.with_name(f"damaged{path.suffix}")
    damaged.write_bytes(content[:cut] if cut < 200 else content)  # every other one is cut
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
        try:
            picture = read_image(damaged)
        except UserError as error:
            assert str(error).startswith(str(damaged))
        else:
            assert picture.ndim == 3
            assert picture.dtype in (np.uint8, np.uint16, np.float32)


HELD = {".png": (1, 2, 3, 4), ".jpg": (1, 3), ".bmp": (1, 3), ".webp": (1, 3, 4)}


@pytest.mark.parametrize("suffix", HELD)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_channels_that_the_format_does_not_hold_are_refused(tmp_path, suffix, channels, kind):
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
def test_what_formats_hold(suffix, kind, channels, somehow, exactly):
    picture = np.zeros((2, 2, channels), kind)
    assert format_supports(suffix, picture, exactly=False) == somehow
    assert format_supports(suffix, picture, exactly=True) == exactly


@pytest.mark.parametrize(("suffix", "most"), [(".webp", 16383), (".jpg", 65500)])
def test_formats_hold_sides_up_to_a_length(tmp_path, suffix, most):
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
def test_formats_hold_alpha_as_what_it_is(tmp_path, suffix, channels, alpha, is_held):
    array = np.random.default_rng(5).integers(1, 256, (4, 5, channels), dtype=np.uint8)
    picture = Raster(array, Tags(), np.zeros((4, 5), bool), alpha)
    assert format_preserves(suffix, picture) == is_held
    if is_held and suffix != ".webp":
        write_raster(tmp_path / f"x{suffix}", picture)
        again = read_raster(tmp_path / f"x{suffix}", keep_alpha=True)
        assert again.alpha == alpha
        assert np.array_equal(again.array, array)


def test_tiff_alone_holds_pixels_without_data():
    picture = Raster(RGB, Tags({}, 0.0), np.zeros(RGB.shape[:2], bool))
    assert [suffix for suffix in (".png", ".npy", ".tif", ".tiff") if format_preserves(suffix, picture)] == [
        ".tif",
        ".tiff",
    ]
    assert format_preserves(".png", Raster.from_array(RGB))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_alpha_is_kept_when_it_is_asked_for(tmp_path, mode):
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


ANY = [(suffix, kind, channels) for suffix in (".tif", ".npy") for kind in FULL for channels in (1, 2, 3, 4, 5, 13)]
PNG = [(".png", np.uint8, channels) for channels in (1, 2, 3, 4)] + [(".png", np.uint16, n) for n in (1, 3, 4)]


@pytest.mark.parametrize(("suffix", "kind", "channels"), ANY + PNG)
def test_every_channel_comes_back(tmp_path, suffix, kind, channels):
    picture = (np.random.default_rng(8).random((7, 5, channels)) * FULL[kind]).astype(kind)
    write_image(tmp_path / f"x{suffix}", picture)
    read = read_image(tmp_path / f"x{suffix}", channels)
    assert read.dtype == kind
    assert np.array_equal(read, picture)


def test_other_channel_counts_are_refused(tmp_path):
    with pytest.raises(UserError, match="has 3 channels, 1 are expected"):
        read_image(save(tmp_path / "x.png", RGB), 1)


def test_a_write_that_fails_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch):
    write_image(tmp_path / "x.png", RGB)

    def full(path, *rest):
        path.write_bytes(b"half a image")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(encode, "_encode", full)
    with pytest.raises(UserError, match="No space left"):
        write_image(tmp_path / "x.png", RGB // 2)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    assert np.array_equal(read_image(tmp_path / "x.png"), RGB)


def test_a_picture_too_large_for_its_format(tmp_path):
    with pytest.raises(UserError, match="does not hold this image"):
        write_image(tmp_path / "x.webp", np.zeros((1, 16384, 3), np.uint8))  # WebP's limit is 16383 a side
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint32, np.float16, np.float64, ">u2", ">f4"])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_other_numbers_become_a_type_that_holds_them(tmp_path, kind, suffix):
    picture = np.array([[[0], [7], [1000]]], dtype=kind) - (0 if np.dtype(kind).kind == "u" else 3)
    np.save(tmp_path / "x.npy", picture)
    tifffile.imwrite(tmp_path / "x.tif", picture[..., 0])
    read = read_image(tmp_path / f"x{suffix}")
    assert read.dtype == (np.uint16 if kind == ">u2" else np.float32)
    assert np.array_equal(read, picture)


def test_arrays_of_two_dimensions_have_one_channel_and_others_are_refused(tmp_path):
    np.save(tmp_path / "flat.npy", RGB[:, :, 0])
    assert np.array_equal(read_image(tmp_path / "flat.npy"), GRAY)
    np.save(tmp_path / "deep.npy", RGB[None])
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    np.save(tmp_path / "code.npy", np.array([[{}]]), allow_pickle=True)
    for name, said in (("deep", r"\(1, 6, 9, 3\)"), ("words", "no image"), ("code", "type object")):
        with pytest.raises(UserError, match=said):
            read_image(tmp_path / f"{name}.npy")


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"\.gif is no image format"):
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


def test_listing_passes_over_folders_that_are_named_like_pictures_and_hidden_ones(tmp_path):
    for place in ("x.png/inside.png", ".cache/thumbnail.png", "plain/y.png"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).touch()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert list_images(tmp_path) == [tmp_path / "gone.png"]  # whoever reads it says that it is not there
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path, recursive=True)]
    assert found == ["gone.png", "plain/y.png", "x.png/inside.png"]


def test_folders_whose_links_multiply_are_visited_once(tmp_path):
    """Two links in each of 40 folders to the next: 2^40 paths lead to the last."""
    for level in range(40):
        folder = tmp_path / "levels" / f"{level:02}"
        folder.mkdir(parents=True)
        (folder / "x.png").touch()
        for name in ("a", "b") if level < 39 else ():
            (folder / name).symlink_to(f"../{level + 1:02}", target_is_directory=True)
    assert list_images(tmp_path, recursive=True) == [
        tmp_path / "levels" / f"{level:02}" / "x.png" for level in range(40)
    ]
    assert len(list_images(tmp_path / "levels" / "00", recursive=True)) == 40
    assert list_images(tmp_path / "levels" / "38", recursive=True) == [
        tmp_path / "levels" / "38" / name for name in ("a/x.png", "x.png")
    ]


def test_listing_follows_links_to_folders_but_not_in_circles(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").touch()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "set", target_is_directory=True)
    assert list_images(tmp_path / "set", recursive=True) == [tmp_path / "set" / "train" / "x.png"]


@pytest.mark.parametrize(("kind", "top"), [(np.uint8, 255), (np.uint16, 65535)])
@given(st.data())
def test_every_whole_number_survives_the_network_range(kind, top, data):
    values = data.draw(st.lists(st.integers(0, top), min_size=12, max_size=12))
    picture = np.array(values, dtype=kind).reshape(2, 2, 3)
    tensor = to_tensor(picture)
    assert tensor.shape == (3, 2, 2)
    assert torch.allclose(tensor, torch.tensor(picture / (top / 2) - 1).permute(2, 0, 1).float(), atol=1e-6)
    assert np.array_equal(to_array(tensor, kind), picture)


@given(st.floats(-1e4, 1e4), st.floats(1, 1e5), st.integers(0, 100))
def test_a_given_range_becomes_the_network_range(low, width, percent):
    value = np.float32(low + width * percent / 100)
    tensor = to_tensor(np.full((1, 1, 1), value), (low, low + width))
    assert tensor.item() == pytest.approx(percent / 50 - 1, abs=4e-3 if abs(low) > 100 * width else 1e-4)
    assert to_array(tensor, np.float32, (low, low + width)).item() == pytest.approx(value, rel=1e-4, abs=width * 1e-3)


def test_twelve_bits_in_sixteen():
    picture = np.array([[[0], [1], [2048], [4095], [5000]]], np.uint16)
    tensor = to_tensor(picture, (0, 4095))
    assert tensor[0, 0].tolist() == pytest.approx([-1, 2 / 4095 - 1, 1 / 4095, 1, 1], abs=1e-6)
    assert to_array(tensor, np.uint16, (0, 4095))[0, :, 0].tolist() == [0, 1, 2048, 4095, 4095]
    assert to_array(torch.ones(1, 1, 1), np.uint8, (-50, 300)).item() == 255


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
    shown = to_display(np.full((4, 5, channels), 65535, np.uint16))
    assert (shown.shape, shown.dtype) == ((4, 5, 3), np.uint8)
    assert shown.min() == 255


def test_the_eye_sees_a_range_of_its_own_from_black_to_white():
    heights = np.array([[-500, -100, 2150, 4500, 8900, 9999, np.nan]], np.float32)[:, :, None]
    assert to_display(heights, (-100, 8900))[0, :, 0].tolist() == [0, 0, 64, 130, 255, 255, 3]
