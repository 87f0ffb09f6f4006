"""Windows of a TIFF are what reading it whole gives there; bands make a TIFF that appears whole or not at all."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from ganvas.data.decode import read_raster
from ganvas.data.raster import Raster
from ganvas.data.tiff_tags import Tags
from ganvas.data.windows import LoadedRaster, TiffWindows, supports_windows, write_bands
from ganvas.errors import UserError

H, W = 90, 70
LAYOUTS = {
    "plain": {},
    "strips": {"compression": "zlib", "rowsperstrip": 7},
    "tiles": {"compression": "lzw", "predictor": True, "tile": (16, 32)},
    "planes": {"planarconfig": "separate", "compression": "zlib", "rowsperstrip": 11},
    "plain planes": {"planarconfig": "separate"},
    "big-endian": {"byteorder": ">"},
}


def noise(kind="uint8", C=3):
    values = np.random.default_rng(0).integers(1, 200, (H, W, C))
    return (values / 200).astype(kind) if kind == "float32" else values.astype(kind)


def windows(path, channels=3, rows=H):
    file = tifffile.TiffFile(path)
    assert supports_windows(file)
    return file, TiffWindows(path, file, channels, rows)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=20)
@given(window=st.tuples(st.integers(0, H - 1), st.integers(0, W - 1), st.integers(1, H), st.integers(1, W)))
def test_a_window_equals_the_crop(tmp_path_factory, layout, kind, window):
    path = tmp_path_factory.getbasetemp() / f"{layout}-{kind}.tif"
    if not path.exists():
        image = noise(kind)
        stored = np.moveaxis(image, 2, 0) if "planes" in layout else image
        tifffile.imwrite(path, stored, photometric="rgb", **LAYOUTS[layout])
    whole = LoadedRaster(read_raster(path, 3))
    top, left, high, wide = window
    place = top, left, min(high, H - top), min(wide, W - left)
    file, pixels = windows(path)
    with file:
        assert (pixels.height, pixels.width) == (whole.height, whole.width) == (H, W)
        found, expected = pixels.read(*place), whole.read(*place)
    assert found.array.dtype == kind
    assert np.array_equal(found.array, expected.array)
    assert np.array_equal(found.array, noise(kind)[top : top + place[2], left : left + place[3]])


@pytest.mark.parametrize("layout", ["strips", "tiles", "planes"])
@pytest.mark.parametrize("rows", [16, 20, 33])
def test_adjacent_windows_decode_each_part_once(tmp_path, monkeypatch, layout, rows):
    path, decoded = tmp_path / "x.tif", []
    stored = np.moveaxis(noise(), 2, 0) if layout == "planes" else noise()
    tifffile.imwrite(path, stored, photometric="rgb", **LAYOUTS[layout])
    decode = TiffWindows._decode_segment
    monkeypatch.setattr(TiffWindows, "_decode_segment", lambda self, i: decoded.append(i) or decode(self, i))
    file, pixels = windows(path, rows=rows)
    with file:
        for top in range(0, H - rows, rows - 8):
            for left in range(0, W - 10, 10):
                pixels.read(top, left, rows, 20)
        count = len(file.pages.first.dataoffsets)
    assert count / 2 < len(decoded) == len(set(decoded)) <= count


@pytest.mark.parametrize("extra", ["none", "unassalpha", "assocalpha"])
def test_nodata_and_alpha_equal_those_of_a_full_read(tmp_path, extra):
    image = noise(C=3 if extra == "none" else 4)
    image[3:60, 5:20, :3] = 255
    samples = {} if extra == "none" else {"extrasamples": [extra]}
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, image, photometric="rgb", extratags=[(42113, 2, 4, "255", True)], **samples)
    whole = read_raster(path, 3)
    file, pixels = windows(path)
    with file:
        found = pixels.read(0, 0, H, W)
    assert np.array_equal(found.array, whole.array)
    assert np.array_equal(found.nodata_mask, whole.nodata_mask)
    assert found.nodata_mask.sum() == 57 * 15


def test_files_without_windowed_reading_are_reported(tmp_path):
    for name, array, options in (
        ("palette", noise()[..., 0], {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}),
        ("turned", noise(), {"photometric": "rgb", "extratags": [(274, 3, 1, 6, True)]}),
        ("pages", noise(), {"photometric": "minisblack", "planarconfig": None}),
    ):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, np.moveaxis(array, 2, 0) if name == "pages" else array, **options)
        with tifffile.TiffFile(path) as file:
            assert not supports_windows(file)


def test_a_damaged_file_is_one_message(tmp_path):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, noise(), photometric="rgb", compression="zlib", rowsperstrip=10)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        at = file.pages.first.dataoffsets[4]
    content[at : at + 40] = bytes(40)
    path.write_bytes(content)
    file, pixels = windows(path)
    with file:
        assert pixels.read(0, 0, 40, W).array.shape == (40, W, 3)
        with pytest.raises(UserError, match=r"x\.tif: cannot be decoded"):
            pixels.read(0, 0, 41, W)


@pytest.mark.parametrize(("C", "kind"), [(1, "uint8"), (3, "uint16"), (5, "float32")])
@given(cuts=st.lists(st.integers(0, 530), max_size=6))
@settings(max_examples=10)
def test_bands_of_any_height_write_the_image(tmp_path_factory, C, kind, cuts):
    image = np.random.default_rng(1).integers(0, 250, (530, 270, C)).astype(kind)
    path = tmp_path_factory.mktemp("bands") / "x.tif"
    write_bands(path, np.split(image, sorted(cuts)), image.shape, image.dtype, Tags())
    assert np.array_equal(read_raster(path).array, image)
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.tile == (256, 256)


def test_a_full_disk_keeps_the_old_file(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "x.tif"
    path.write_bytes(b"before")
    image = np.random.default_rng(1).integers(0, 250, (600, 600, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"x\.tif: cannot be written"):
            write_bands(path, [image], image.shape, image.dtype, Tags())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == ["x.tif"]
    assert path.read_bytes() == b"before"


def test_a_decoded_image_has_windows():
    image = noise()
    whole = LoadedRaster(Raster(image, Tags(), image[..., 0] > 100))
    window = whole.read(3, 4, 10, 20)
    assert np.array_equal(window.array, image[3:13, 4:24])
    assert np.array_equal(window.nodata_mask, image[3:13, 4:24, 0] > 100)
