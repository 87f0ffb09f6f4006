"""Hostile and odd TIFF, made with struct (TIFF 6.0, Sec. 2), and what is read beside it."""

import io
import logging
import struct
import time

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from ganvas.data.decode import read_image, read_raster
from ganvas.data.decode_basic import read_basic
from ganvas.data.tiff_check import check_tiff
from ganvas.data.windows import open_windows
from ganvas.errors import UserError

GRAY = np.random.default_rng(0).integers(0, 256, (6, 9), dtype=np.uint8)
FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 16: "Q"}


def directory(tags, offset, following=0, order="<"):
    """A classic directory at an offset: entries (code, type, values), then what does not fit into them."""
    entries, rest = b"", b""
    free = offset + 2 + 12 * len(tags) + 4
    for code, kind, values in tags:
        if kind == 2:
            body, count = values, len(values)
        else:
            values = values if isinstance(values, tuple) else (values,)
            body, count = struct.pack(f"{order}{len(values)}{FORMATS[kind]}", *values), len(values)
        if len(body) > 4:
            entries += struct.pack(f"{order}HHII", code, kind, count, free + len(rest))
            rest += body
        else:
            entries += struct.pack(f"{order}HHI", code, kind, count) + body.ljust(4, b"\0")
    return struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following) + rest


def layout(width=9, height=6, *, data=8, size=54, compression=1, bits=8, photometric=1, extra=(), without=()):
    """The tags of a gray image in one strip."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, compression), (262, 3, photometric)]
    tags += [(273, 4, data), (277, 3, 1), (278, 4, height), (279, 4, size)]
    return sorted([*(tag for tag in tags if tag[0] not in without), *extra], key=lambda tag: tag[0])


PIXELS = GRAY.tobytes()


def tiff(tags, data=PIXELS, following=0):
    """A file: header, pixels, one directory."""
    offset = 8 + len(data)
    return b"II*\0" + struct.pack("<I", offset) + data + directory(tags, offset, following)


def tiled(content, side, compression, *, width=9, height=6):
    """A gray image in one tile."""
    tags = [(322, 4, side), (323, 4, side), (324, 4, 8), (325, 4, len(content))]
    return tiff(layout(width, height, compression=compression, extra=tags, without=(273, 278, 279)), content)


def tile(side=16):
    return np.pad(GRAY, [(0, side - 6), (0, side - 9)])


def test_a_plain_file_is_read(tmp_path):
    (tmp_path / "x.tif").write_bytes(tiff(layout()))
    assert np.array_equal(read_image(tmp_path / "x.tif")[:, :, 0], GRAY)
    assert np.array_equal(read_basic(tmp_path / "x.tif").array[:, :, 0], GRAY)


def chain_to_itself():
    first = tiff(layout())
    second = len(first)
    first = tiff(layout(), following=second)
    return first + directory(layout(), second, following=second)


def sub_directory_that_is_its_own():
    tags = layout(extra=[(330, 4, 8 + 54)])
    return tiff(tags)


def png_of(side):
    content = io.BytesIO()
    Image.new("L", (side, side)).save(content, "PNG")
    return content.getvalue()


def jpeg_of(side, *, hidden=False):
    content = io.BytesIO()
    Image.new("L", (side, side)).save(content, "JPEG")
    jpeg = content.getvalue()
    # What is no marker is passed over by libjpeg: a small frame header in a comment deceives nobody.
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 11) + b"\xff\xc0\0\x0b\x08\0\x10\0\x10\x01\0"
    return jpeg[:2] + comment + b"\0\xff\0" + jpeg[2:] if hidden else jpeg


def lerc_of(side, copies=1):
    return imagecodecs.lerc_encode(np.zeros((side, side), np.uint8), level=0) * copies


HOSTILE = {
    "a chain that points to itself": (chain_to_itself, "loop"),
    "a directory that is its own part": (sub_directory_that_is_its_own, "loop"),
    "a width that is there twice": (lambda: tiff([(256, 4, 300_000_000), *layout(1024)]), "tag 256 is there twice"),
    "a width of two values": (lambda: tiff(layout(without=(256,), extra=[(256, 4, (9, 9))])), "has 2 values"),
    "a width in letters": (lambda: tiff(layout(without=(256,), extra=[(256, 2, b"9\0")])), "has the type 2"),
    "no width": (lambda: tiff(layout(without=(256,))), "how large"),
    "a tag beyond the end": (lambda: tiff(layout(extra=[(700, 2, b"x" * 99)]))[:-50], "beyond the end"),
    "a first directory beyond the end": (lambda: b"II*\0" + struct.pack("<I", 999), "beyond the end"),
    "one huge tile": (lambda: tiled(b"x", 30_000, 8), "far larger than the whole image"),
    "planes without data": (
        lambda: tiff(layout(without=(277,), extra=[(277, 3, 60_000), (284, 3, 2)])),
        "1 of the 60000",
    ),
    "rows without data": (
        lambda: tiff(layout(9, 60_000, without=(278,), extra=[(278, 4, 6)])),
        "1 of the 10000 strips",
    ),
    "tiles without data": (lambda: tiled(bytes(256), 16, 1, height=1600), "1 of the 100 tiles"),
    "no strips": (lambda: tiff(layout(without=(273, 279))), "0 of the 1 strips"),
    "no tile": (lambda: tiled(b"x", 0, 8), "no size"),
    "a tile of PNG": (lambda: tiled(png_of(16), 16, 34933), "compression 34933 is not supported"),
    "a JPEG larger than its tile": (lambda: tiled(jpeg_of(512), 16, 7), "holds 512x512x1"),
    "a JPEG that hides its size": (lambda: tiled(jpeg_of(512, hidden=True), 16, 7), "holds 512x512x1"),
    "a JPEG that ends early": (lambda: tiled(jpeg_of(16)[:30], 16, 7), "ends in its header"),
    "a LERC larger than its tile": (lambda: tiled(lerc_of(512), 16, 34887), "holds 512x512x1"),
    "many LERC in one tile": (lambda: tiled(lerc_of(16, 100), 16, 34887), "of a kind that is not supported"),
    "a JPEG 2000 larger than its tile": (
        lambda: tiled(imagecodecs.jpeg2k_encode(np.zeros((512, 512), np.uint8), codecformat="j2k"), 16, 33005),
        "holds 512x512x1",
    ),
    "a WebP larger than its tile": (
        lambda: tiled(imagecodecs.webp_encode(np.zeros((512, 512, 3), np.uint8), lossless=True), 16, 50001),
        "holds 512x512x1",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_get_one_message(tmp_path, kind):
    make, message = HOSTILE[kind]
    path = tmp_path / "x.tif"
    path.write_bytes(make())
    with pytest.raises(UserError, match=rf"x\.tif: cannot be decoded \(.*{message}"):
        read_image(path)
    with pytest.raises(UserError, match=r"x\.tif: "):
        read_basic(path)
    with open_windows(path, 1, 64) as windows:
        if windows is not None:  # pixels are checked when they are decoded
            with pytest.raises(UserError, match=message):
                windows.read(0, 0, 6, 9)


def test_no_more_directories_than_the_limit():
    one = len(directory(layout(), 0))
    count = 5000
    offsets = [8 + 54 + one * i for i in range(count)]
    body = b"".join(
        directory(layout(), offset, following=offset + one if i + 1 < count else 0) for i, offset in enumerate(offsets)
    )
    with pytest.raises(ValueError, match="more than 4096 directories"):
        check_tiff(io.BytesIO(b"II*\0" + struct.pack("<I", offsets[0]) + GRAY.tobytes() + body))


VALID = {
    "deflate": (lambda: tiled(imagecodecs.deflate_encode(tile().tobytes()), 16, 8), 0),
    "jpeg": (lambda: tiled(imagecodecs.jpeg_encode(tile(), level=100), 16, 7), 6),
    "lerc": (lambda: tiled(imagecodecs.lerc_encode(tile(), level=0), 16, 34887), 0),
    "jpeg 2000": (lambda: tiled(imagecodecs.jpeg2k_encode(tile(), codecformat="j2k", reversible=True), 16, 33005), 0),
    "zstd": (lambda: tiled(imagecodecs.zstd_encode(tile().tobytes()), 16, 50000), 0),
    "lzw": (lambda: tiled(imagecodecs.lzw_encode(tile().tobytes()), 16, 5), 0),
}


@pytest.mark.parametrize("kind", VALID)
def test_allowed_compressions(tmp_path, kind):
    make, apart = VALID[kind]
    (tmp_path / "x.tif").write_bytes(make())
    found = read_image(tmp_path / "x.tif")[:, :, 0]
    assert np.abs(found.astype(int) - GRAY).max() <= apart
    with open_windows(tmp_path / "x.tif", 1, 64) as windows:
        assert np.array_equal(windows.read(1, 2, 4, 5).array[:, :, 0], found[1:5, 2:7])


def test_webp_in_color(tmp_path):
    color = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", color, tile=(16, 16), compression="webp", compressionargs={"lossless": True})
    assert np.array_equal(read_image(tmp_path / "x.tif"), color)


# --- files that name others -------------------------------------------------------------------------------------------


def ome(planes, files=(), size_c=3, more=""):
    data = "".join(
        f'<TiffData IFD="{i}" FirstC="{i}" PlaneCount="{planes}"><UUID FileName="{name}">urn:uuid:{i}</UUID></TiffData>'
        for i, name in enumerate(files)
    )
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:9">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="9" SizeY="6" '
        f'SizeC="{size_c}" SizeZ="1" SizeT="1" {more}>{data}</Pixels></Image></OME>'
    )


def test_a_file_opens_no_other(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "other.tif", np.full((6, 9), 77, np.uint8))
    text = ome(1, [tmp_path / "other.tif"] * 3)
    tifffile.imwrite(tmp_path / "x.tif", GRAY, description=text, metadata=None)
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        assert 77 in file.series[0].asarray()  # which is what must not happen
    assert np.array_equal(read_image(tmp_path / "x.tif"), GRAY[:, :, None])


def test_an_ome_file_of_its_own_is_read(tmp_path):
    bands = np.random.default_rng(2).integers(0, 256, (3, 6, 9), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "x.ome.tif", bands, ome=True, metadata={"axes": "CYX"}, photometric="minisblack")
    assert np.array_equal(read_image(tmp_path / "x.ome.tif"), np.moveaxis(bands, 0, 2))


@pytest.mark.parametrize("axes", ["ZYX", "TYX"])
def test_an_ome_stack_is_no_image(tmp_path, axes):
    bands = np.zeros((3, 6, 9), np.uint8)
    tifffile.imwrite(tmp_path / "x.ome.tif", bands, ome=True, metadata={"axes": axes}, photometric="minisblack")
    with pytest.raises(UserError, match="a stack"):
        read_image(tmp_path / "x.ome.tif")


def test_counts_in_a_description_are_ignored(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", GRAY, description=ome(100_000_000, ["x.tif"]), metadata=None)
    assert read_image(tmp_path / "x.tif").shape == (6, 9, 1)
    text = '{"shape": [100000, 6, 9], "truncated": true}'
    tifffile.imwrite(tmp_path / "y.tif", GRAY, description=text, metadata=None)
    with pytest.raises(UserError, match="describes more pages than it has"):
        read_image(tmp_path / "y.tif")


def test_text_is_read_in_linear_time(tmp_path):
    hostile = {
        "x" + " " * 200_000 + "y",
        '<Item name="STATISTICS_' * 20_000,
        '<Item name="STATISTICS_A">' * 20_000,
    }
    for text in hostile:
        began = time.process_time()
        tifffile.imwrite(
            tmp_path / "x.tif", GRAY, metadata=None, description=text, extratags=[(42112, 2, None, text, True)]
        )
        read_raster(tmp_path / "x.tif")
        assert time.process_time() - began < 5  # quadratic patterns took minutes


def test_long_tags_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("ganvas.data.tiff_tags.MAX_TAG_BYTES", 100)
    tags = [(315, 2, None, "A" * 200, True), (33432, 2, None, "B" * 50, True)]
    tifffile.imwrite(tmp_path / "x.tif", GRAY, metadata=None, extratags=tags)
    assert read_raster(tmp_path / "x.tif").tags.values.keys() & {315, 33432} == {33432}


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_appended_pages_are_channels(tmp_path, compression):
    pages = np.random.default_rng(3).integers(0, 65536, (3, 6, 9), dtype=np.uint16)
    for page in pages:
        tifffile.imwrite(tmp_path / "x.tif", page, append=True, compression=compression)
    assert np.array_equal(read_image(tmp_path / "x.tif"), np.moveaxis(pages, 0, 2))


@pytest.mark.parametrize(
    "second",
    [np.zeros((4, 5), np.uint8), np.zeros((6, 9), np.uint16), np.zeros((6, 9, 3), np.uint8)],
    ids=["of another size", "of another type", "in color"],
)
def test_unequal_pages_are_refused(tmp_path, second):
    tifffile.imwrite(tmp_path / "x.tif", GRAY)
    tifffile.imwrite(tmp_path / "x.tif", second, append=True)
    with pytest.raises(UserError, match=rf"x\.tif: holds 2 pages \(9x6, {second.shape[1]}x{second.shape[0]}\)"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("photometric", ["miniswhite", "palette"])
def test_gray_pages_of_mixed_interpretation_are_refused(tmp_path, photometric):
    colors = {"colormap": np.zeros((3, 256), np.uint16)} if photometric == "palette" else {}
    tifffile.imwrite(tmp_path / "x.tif", GRAY, photometric="minisblack")
    tifffile.imwrite(tmp_path / "x.tif", GRAY, photometric=photometric, append=True, **colors)
    with pytest.raises(UserError, match=r"holds 2 pages \(9x6, 9x6\) that are not the channels of one image"):
        read_image(tmp_path / "x.tif")


def test_the_onnx_runner_reports_unsupported_files(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.stack([GRAY, GRAY]), photometric="minisblack")
    with pytest.raises(
        UserError, match=r"x\.tif: holds 2 gray pages, .* not read without tifffile\. Give it as \.npy\.$"
    ):
        read_basic(tmp_path / "x.tif")


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "CMYK"])
def test_pages_in_color_or_of_one_bit_are_refused(tmp_path, mode):
    page = Image.new(mode, (9, 6))
    page.save(tmp_path / "x.tif", save_all=True, append_images=[page])
    with pytest.raises(UserError, match="holds 2 pages"):
        read_image(tmp_path / "x.tif")
    with pytest.raises(UserError, match="holds 2 pages"):
        read_basic(tmp_path / "x.tif")


def test_thumbnails_and_masks_are_ignored(tmp_path):
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(GRAY, metadata=None)
        file.write(GRAY[::2, ::2], subfiletype=1, metadata=None)
        file.write(GRAY > 9, subfiletype=4, metadata=None)
    assert np.array_equal(read_image(tmp_path / "x.tif")[:, :, 0], GRAY)
    assert np.array_equal(read_basic(tmp_path / "x.tif").array[:, :, 0], GRAY)


def test_a_pyramid_in_sub_directories_is_its_largest_image(tmp_path):
    large = np.random.default_rng(4).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(large, subifds=1, tile=(16, 16), photometric="rgb")
        file.write(large[::2, ::2], subfiletype=1, tile=(16, 16), photometric="rgb")
    assert np.array_equal(read_image(tmp_path / "x.tif"), large)


# --- what the values mean ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "black"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1), (np.float64, 1), (np.int16, -1)]
)
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=["plain", "deflate"])
def test_white_is_zero(tmp_path, kind, black, options):
    """TIFF 6.0, Sec. 8: the value 0 is white, the largest one black."""
    stored = np.array([[0, 1, 0.25]], kind) if np.dtype(kind).kind == "f" else np.array([[0, 1, 100]], kind)
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="miniswhite", metadata=None, **options)
    expected = black - stored.astype(np.float64)
    assert read_image(tmp_path / "x.tif")[0, :, 0].tolist() == expected[0].tolist()
    with open_windows(tmp_path / "x.tif", 1, 64) as windows:
        assert windows.read(0, 0, 1, 3).array[0, :, 0].tolist() == expected[0].tolist()
    if np.dtype(kind) in (np.uint8, np.uint16, np.float32):
        assert read_basic(tmp_path / "x.tif").array[0, :, 0].tolist() == expected[0].tolist()


@pytest.mark.parametrize(("kind", "nodata", "inverted"), [(np.uint16, 7, 65528), (np.float32, 0.1, 0.9)])
def test_nodata_with_white_is_zero(tmp_path, kind, nodata, inverted):
    stored = np.array([[0, nodata, 1]], kind)
    tags = [(42113, 2, None, str(nodata), True)]
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="miniswhite", metadata=None, extratags=tags)
    image = read_raster(tmp_path / "x.tif")
    assert image.nodata_mask.tolist() == [[False, True, False]]
    assert float(image.tags.values[42113][2]) == pytest.approx(inverted) == image.tags.nodata


def cmyk(path, inks, **options):
    tifffile.imwrite(path, inks, photometric="separated", metadata=None, **options)
    return path


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_cmyk_keeps_its_depth(tmp_path, kind, planar):
    top = np.iinfo(kind).max
    inks = np.random.default_rng(5).integers(0, top + 1, (6, 9, 4)).astype(kind)
    stored = inks if planar == "contig" else np.moveaxis(inks, 2, 0)
    found = read_raster(cmyk(tmp_path / "x.tif", stored, planarconfig=planar))
    expected = (1 - inks[:, :, :3] / top) * (1 - inks[:, :, 3:] / top) * top
    assert found.array.dtype == kind
    assert np.abs(found.array - expected).max() <= 0.5 + 1e-6
    assert found.conversions == ("CMYK",)


@pytest.mark.parametrize(("sample", "name"), [(1, "premultiplied"), (2, "straight")])
def test_cmyk_with_alpha(tmp_path, sample, name):
    pixel = np.array([[[0, 100, 50, 0, 128]]], np.uint8)
    found = read_raster(cmyk(tmp_path / "x.tif", pixel, extrasamples=[sample], planarconfig="contig"), keep_alpha=True)
    share = 128 / 255
    inks = pixel[0, 0, :3] / (share if sample == 1 else 1)
    colors = (255 - inks) * (share if sample == 1 else 1)
    assert found.alpha == name
    assert np.abs(found.array[0, 0] - [*colors, 128]).max() <= 0.5 + 1e-6
    over_white = read_image(tmp_path / "x.tif")[0, 0]
    assert np.abs(over_white - ((255 - inks) * share + 255 * (1 - share))).max() <= 1


TURNED = {5: lambda x: np.rot90(np.fliplr(x), 1), 6: lambda x: np.rot90(x, -1)}
TURNED |= {7: lambda x: np.rot90(np.fliplr(x), -1), 8: lambda x: np.rot90(x, 1), 1: lambda x: x, 2: np.fliplr}


@pytest.mark.parametrize("tag", TURNED)
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_orientation_of_every_mode(tmp_path, tag, mode, compression):
    color = np.random.default_rng(6).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    image = Image.fromarray(color).convert(mode)
    image.save(tmp_path / "plain.tif", compression=compression)
    image.save(tmp_path / "x.tif", compression=compression, tiffinfo={274: tag})
    for read in (read_image, lambda path: read_basic(path).array):
        assert np.array_equal(read(tmp_path / "x.tif"), TURNED[tag](read(tmp_path / "plain.tif")))


@pytest.mark.parametrize("bits", [10, 14])
def test_odd_depths_are_named(tmp_path, bits):
    (tmp_path / "x.tif").write_bytes(tiff(layout(bits=bits, size=108), bytes(108)))
    with pytest.raises(UserError, match=rf"it has {bits} bits a sample, which is not supported; save it with 8 or 16"):
        read_image(tmp_path / "x.tif")


def test_unsupported_files_are_described(tmp_path):
    (tmp_path / "x.tif").write_bytes(tiff(layout(photometric=32844)))
    with pytest.raises(
        UserError, match=r"is a TIFF of a kind that is not supported \(photometric 32844, 1 samples of 8"
    ):
        read_image(tmp_path / "x.tif")


def test_decoder_logs_are_silenced(tmp_path, caplog):
    (tmp_path / "x.tif").write_bytes(tiff(layout(extra=[(339, 3, 9)])))  # a sample format that there is not
    text = '{"shape": [7, 7]}'
    tifffile.imwrite(tmp_path / "y.tif", GRAY, description=text, metadata=None)
    with caplog.at_level(logging.DEBUG):
        for name in ("x.tif", "y.tif"):
            with tifffile.TiffFile(tmp_path / name) as file:
                file.series  # noqa: B018
        message = len(caplog.records)
        read_image(tmp_path / "y.tif")
    assert len(caplog.records) == message > 0
