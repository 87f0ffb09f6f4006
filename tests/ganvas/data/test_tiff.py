"""TIFF: kinds of stacks, tags that are kept (rasterio, another library, reads them back), pixels without data."""

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import Affine, from_origin

from ganvas.data.decode import read_image, read_raster
from ganvas.data.encode import write_image, write_raster
from ganvas.data.nodata import set_nodata
from ganvas.data.tiff_tags import Tags
from ganvas.errors import UserError

BANDS = np.random.default_rng(0).integers(1, 4000, (6, 9, 5), dtype=np.uint16)


def geotiff(path, bands, nodata=None, **options):
    H, W, C = bands.shape
    where = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10), "nodata": nodata}
    with rasterio.open(path, "w", height=H, width=W, count=C, dtype=bands.dtype, **where, **options) as file:
        file.write(np.moveaxis(bands, 2, 0))
        file.set_band_description(1, "blue")
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compress": "lzw", "predictor": 2},
        {"compress": "deflate", "interleave": "band"},
        {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "zstd"},
        {"BIGTIFF": "YES"},
    ],
)
def test_georeferences_of_gdal(tmp_path, options):
    path = geotiff(tmp_path / "x.tif", BANDS, driver="GTiff", **options)
    assert np.array_equal(read_image(path, 5), BANDS)


def test_the_geographic_reference_is_kept(tmp_path):
    bands = BANDS.copy()
    bands[2, 3] = 65535
    write_raster(tmp_path / "y.tif", read_raster(geotiff(tmp_path / "x.tif", bands, nodata=65535)))
    with rasterio.open(tmp_path / "x.tif") as before, rasterio.open(tmp_path / "y.tif") as after:
        assert (after.count, after.dtypes[0]) == (5, "uint16")
        assert after.crs == before.crs == rasterio.CRS.from_epsg(32633)
        assert after.transform == before.transform
        assert after.nodata == 65535
        assert np.array_equal(np.moveaxis(after.read(), 0, 2), bands)


def test_statistics_of_the_old_pixels_are_not_kept(tmp_path):
    path = geotiff(tmp_path / "x.tif", BANDS)
    with rasterio.open(path, "r+") as file:
        file.update_tags(1, STATISTICS_MAXIMUM="3999", STATISTICS_MEAN="2000", WAVELENGTH="490 nm")
        file.update_tags(SENSOR="eye")
    source = read_raster(path)
    write_image(tmp_path / "y.tif", source.array // 2, source.tags)
    with rasterio.open(tmp_path / "x.tif") as before, rasterio.open(tmp_path / "y.tif") as after:
        assert before.tags(1)["STATISTICS_MAXIMUM"] == "3999"
        assert after.tags(1) == {"WAVELENGTH": "490 nm"}
        assert after.tags()["SENSOR"] == "eye"
        assert after.descriptions == before.descriptions


def test_resolution_and_description_are_kept(tmp_path):
    tifffile.imwrite(
        tmp_path / "x.tif",
        BANDS,
        planarconfig="contig",
        photometric="minisblack",
        resolution=(300, 150),
        resolutionunit="CENTIMETER",
        description="left lung",
        software="microscope",
        datetime="2026:01:02 03:04:05",
        metadata=None,
        extratags=[(315, 2, None, "A. Painter", True)],
    )
    source = read_raster(tmp_path / "x.tif")
    write_image(tmp_path / "y.tif", source.array, source.tags)
    with tifffile.TiffFile(tmp_path / "x.tif") as before, tifffile.TiffFile(tmp_path / "y.tif") as after:
        for code in (270, 282, 283, 296, 305, 306, 315):
            assert after.pages.first.tags[code].value == before.pages.first.tags[code].value
        assert np.array_equal(after.asarray(), BANDS)


DAMAGED = {  # number of the tag, its type, its value
    "a resolution of 0/0": (282, "2I", (0, 0)),
    "a resolution without bounds": (283, "2I", (1, 0)),
    "a unit that there is not": (296, "H", 9),
    "text that is a number": (270, "H", 5),
    "a program that is a number": (305, "H", 5),
    "half a tie point": (33922, "d", (0.0, 1.0, 2.0)),
    "a quarter of a matrix": (34264, "d", (0.0, 1.0, 2.0, 3.0)),
    "a pixel's size in letters": (33550, "s", "abc"),
    "keys that are a number": (34735, "H", 5),
}


@pytest.mark.parametrize(("code", "kind", "value"), DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("scale", [1, 0.5])
def test_damaged_tags_are_dropped(tmp_path, code, kind, value, scale):
    tifffile.imwrite(
        tmp_path / "x.tif",
        np.zeros((16, 16), np.uint8),
        resolution=(72, 72),
        software="microscope",
        description="left lung",
        metadata=None,
        extratags=[
            (315, 2, None, "A. Painter", True),
            (33550, 12, 3, (10.0, 10.0, 0.0), True),
            (33922, 12, 6, (0.0, 0.0, 0.0, 500_000.0, 5_000_000.0, 0.0), True),
            (34264, 12, 16, tuple(np.eye(4).ravel()), True),
            (34735, 3, 8, (1, 1, 0, 1, 1025, 0, 1, 2), True),
        ],
    )
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+b") as file:
        before = {tag.code for tag in file.pages.first.tags}
        file.pages.first.tags[code].overwrite(value, dtype=kind)
    source = read_raster(tmp_path / "x.tif")
    write_image(tmp_path / "y.tif", source.array, source.tags.scaled(scale, scale))
    with tifffile.TiffFile(tmp_path / "y.tif") as file:
        after = {tag.code for tag in file.pages.first.tags}
        assert file.pages.first.tags[315].value == "A. Painter"
        found = [file.pages.first.tags.valueof(each) for each in (282, 283, 305)]
    assert before - after == {code} - {282, 283, 296, 305}  # without these no TIFF is written
    resolution = (1, 1) if code in (282, 283, 296) else (72 * scale, 1)
    assert found == [resolution, resolution, "ganvas" if code == 305 else "microscope"]


def test_an_incomplete_resolution_is_dropped(tmp_path):
    tags = Tags({282: (5, 1, (0, 0)), 315: (2, 2, "A")})
    assert tags.scaled(0.5, 0.5).values.keys() == {315}
    write_image(tmp_path / "x.tif", BANDS, tags)


TEXT = "Zürich © µm"


def test_unicode_text_and_dates_are_kept(tmp_path):
    path = geotiff(tmp_path / "x.tif", BANDS)
    with rasterio.open(path, "r+") as file:
        file.update_tags(SENSOR=TEXT, TIFFTAG_IMAGEDESCRIPTION=TEXT, TIFFTAG_SOFTWARE=TEXT, TIFFTAG_DATETIME="2020")
        file.update_tags(TIFFTAG_ARTIST=TEXT, TIFFTAG_COPYRIGHT=TEXT)
        file.set_band_description(1, TEXT)
    write_raster(tmp_path / "y.tif", read_raster(path))
    with rasterio.open(path) as before, rasterio.open(tmp_path / "y.tif") as after:
        assert before.tags().items() <= after.tags().items()
        assert sorted(after.tags().values()).count(TEXT) == 5
        assert after.tags()["TIFFTAG_DATETIME"] == "2020"
        assert after.descriptions == before.descriptions
        assert after.descriptions[0] == TEXT


def test_windows_1252_text_is_kept(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", BANDS[..., 0], metadata=None, description=TEXT.encode("cp1252"))
    write_raster(tmp_path / "y.tif", read_raster(tmp_path / "x.tif"))
    with tifffile.TiffFile(tmp_path / "y.tif") as file:
        assert file.pages.first.description == TEXT


LAYOUTS = {"imagej": {"imagej": True}, "ome": {"ome": True}, "tifffile": {}}


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_description_is_dropped(tmp_path, layout, channels):
    options = LAYOUTS[layout]
    tifffile.imwrite(tmp_path / "x.tif", np.moveaxis(BANDS, 2, 0), metadata={"axes": "CYX"}, **options)
    source = read_raster(tmp_path / "x.tif")
    write_image(tmp_path / "y.tif", source.array[..., :channels], source.tags)
    again = read_raster(tmp_path / "y.tif")
    assert np.array_equal(again.array, BANDS[..., :channels])
    write_image(tmp_path / "z.tif", again.array, again.tags)
    assert np.array_equal(tifffile.imread(tmp_path / "z.tif"), BANDS[..., :channels].squeeze())


def test_other_descriptions_are_kept(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.moveaxis(BANDS, 2, 0), description="left lung", metadata={"axes": "CYX"})
    source = read_raster(tmp_path / "x.tif")
    write_image(tmp_path / "y.tif", source.array[..., :3], source.tags)
    with tifffile.TiffFile(tmp_path / "y.tif") as file:
        assert file.pages.first.description == "left lung"
        assert np.array_equal(file.asarray(), BANDS[..., :3])


@pytest.mark.parametrize(
    "options", [{"imagej": True, "metadata": {"axes": "CYX"}}, {}, {"planarconfig": "contig"}], ids=str
)
def test_channels_as_pages_or_samples(tmp_path, options):
    stack = BANDS if "planarconfig" in options else np.moveaxis(BANDS, 2, 0)
    tifffile.imwrite(tmp_path / "x.tif", stack, photometric="minisblack", **options)
    assert np.array_equal(read_image(tmp_path / "x.tif"), BANDS)


def test_thousands_of_channels_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for channels, is_safe in ((40, True), (41, False)):
        pixels = np.zeros((10, 10, channels), np.uint8)
        tifffile.imwrite(
            tmp_path / "x.tif", pixels, planarconfig="contig", compression="zlib", photometric="minisblack"
        )
        if is_safe:
            assert read_raster(tmp_path / "x.tif").array.shape == pixels.shape
            continue
        with pytest.raises(UserError, match="too many pixels to be a safe image"):
            read_raster(tmp_path / "x.tif")


@pytest.mark.parametrize("scale", [1, 0.5])
def test_rpc_coefficients_keep_their_scale(tmp_path, scale):
    camera = tuple(np.linspace(0, 1, 92))
    tifffile.imwrite(tmp_path / "x.tif", BANDS[..., 0], metadata=None, extratags=[(50844, 12, 92, camera, True)])
    tags = read_raster(tmp_path / "x.tif").tags.scaled(scale, scale)
    write_image(tmp_path / "y.tif", BANDS[..., :1], tags)
    with tifffile.TiffFile(tmp_path / "y.tif") as file:
        assert file.pages.first.tags.valueof(50844) == (camera if scale == 1 else None)


@pytest.mark.parametrize("axes", ["TYX", "ZYX"])
def test_stacks_in_time_or_depth_are_refused(tmp_path, axes):
    tifffile.imwrite(tmp_path / "x.tif", np.moveaxis(BANDS, 2, 0), imagej=True, metadata={"axes": axes})
    with pytest.raises(UserError, match=f"a stack with the axes {axes}"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize(("kind", "nodata"), [(np.uint16, 65535), (np.float32, -9999), (np.float32, np.nan)])
def test_nodata_becomes_the_lowest_value_and_is_reported(tmp_path, kind, nodata):
    bands = BANDS.astype(kind)
    bands[2, 3, 1] = nodata
    image = read_raster(geotiff(tmp_path / "x.tif", bands, nodata=nodata))
    assert np.argwhere(image.nodata_mask).tolist() == [[2, 3]]
    assert np.isfinite(image.array).all()
    valid = ~image.nodata_mask
    assert np.array_equal(image.array[valid], bands[valid])
    assert (image.array[2, 3] == bands[valid].min()).all()


def test_an_image_without_any_data(tmp_path):
    image = read_raster(geotiff(tmp_path / "x.tif", np.full((6, 9, 2), 7, np.uint16), nodata=7))
    assert image.nodata_mask.all()
    assert (image.array == 0).all()


@pytest.mark.parametrize("nodata", ["-9999", "nothing"])
def test_a_nodata_value_outside_the_dtype_is_ignored(tmp_path, nodata):
    tifffile.imwrite(tmp_path / "x.tif", BANDS[..., 0], extratags=[(42113, 2, None, nodata, True)])
    assert not read_raster(tmp_path / "x.tif").nodata_mask.any()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("kind", "nodata", "written"),
    [
        (np.uint16, 65535, 65535),
        (np.uint8, 65535, 0),
        (np.uint8, -9999, 0),
        (np.float32, -9999, -9999),
        (np.uint16, 0.5, 0),
        (np.float32, np.nan, np.nan),
        (np.float32, -np.inf, -np.inf),
        (np.float32, 0.1, pytest.approx(0.1)),
        (np.float32, -1.7976931348623157e308, np.nan),
        (np.float32, 1.7976931348623157e308, np.nan),
        (np.float32, 1e-300, np.nan),
        (np.uint8, np.nan, 0),
        (np.uint8, -np.inf, 0),
    ],
)
def test_nodata_is_written_as_a_value_of_the_dtype(tmp_path, kind, nodata, written):
    mask = np.zeros((6, 9), bool)
    mask[1, 2] = True
    source = Tags({42113: (2, 6, str(nodata))}, float(nodata))
    image, tags = set_nodata(np.full((6, 9, 2), 3, kind), mask, source)
    write_image(tmp_path / "x.tif", image, tags)
    assert np.array_equal(read_raster(tmp_path / "x.tif").nodata_mask, mask)
    with rasterio.open(tmp_path / "x.tif") as file:
        found, band = file.nodata, file.read(1)
    assert found == written or np.isnan([found, written]).all()
    assert np.array_equal(band, np.where(mask, found, 3).astype(kind), equal_nan=kind == np.float32)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("kind", "nodata", "moved"),
    [
        (np.uint8, 0, 1),
        (np.uint8, 255, 254),
        (np.uint8, 7, 8),
        (np.uint8, -9999, None),
        (np.uint16, 65535, 65534),
        (np.float32, 0, 0),
        (np.float32, -9999, -9999),
        (np.float32, 1, 1),
    ],
)
def test_data_equal_to_nodata_is_moved_to_the_next_value(tmp_path, kind, nodata, moved):
    """Networks give any value; gdalwarp does the same."""
    mask = np.zeros((6, 9), bool)
    mask[1, 2] = True
    values = np.full((6, 9, 2), 3, kind)
    values[4, 5, 1] = nodata if moved is not None else 0  # 0 marks where the type does not hold the value
    if kind == np.float32 and nodata:
        values[4, 6, 1] = np.nextafter(kind(nodata), kind(0))  # which other programs take for the mark
    image, tags = set_nodata(values, mask, Tags({42113: (2, 6, str(nodata))}, float(nodata)))
    assert np.isfinite(image).all()
    write_image(tmp_path / "x.tif", image, tags)
    again = read_raster(tmp_path / "x.tif")
    assert np.array_equal(again.nodata_mask, mask)
    assert again.array[4, 5] == pytest.approx([3, 1 if moved is None else moved], rel=2e-6, abs=1e-6)
    assert (again.array[~mask] == 3).sum() == (6 * 9 - 1) * 2 - (values != 3).sum()
    with rasterio.open(tmp_path / "x.tif") as file:
        assert np.array_equal(file.read_masks(2) == 0, mask)


@pytest.mark.parametrize("nodata", [-1.7976931348623157e308, 1.7976931348623157e308])
def test_float64_nodata_round_trips(tmp_path, nodata):
    """The largest double is what geographic programs mark them with; images become float32."""
    heights = BANDS[..., :1].astype(np.float64) - BANDS[2, 3, 0]  # 0 is a height like others
    heights[4, 5] = nodata
    first = read_raster(geotiff(tmp_path / "x.tif", heights, nodata=nodata))
    write_raster(tmp_path / "y.tif", first)
    second = read_raster(tmp_path / "y.tif")
    assert np.argwhere(first.nodata_mask).tolist() == np.argwhere(second.nodata_mask).tolist() == [[4, 5]]
    assert np.array_equal(second.array, first.array)
    with rasterio.open(tmp_path / "y.tif") as file:
        assert np.array_equal(file.read_masks(1) == 0, first.nodata_mask)


@pytest.mark.parametrize("nodata", [0, 255])
def test_nodata_does_not_change_alpha(tmp_path, nodata):
    image = np.full((6, 9, 4), 9, np.uint8)
    image[:, :5, 3], image[:, 5:, 3] = 0, 255
    image[1, 2, :3] = image[3, 8, :3] = nodata
    options = {"extrasamples": ["unassalpha"], "extratags": [(42113, 2, None, str(nodata), True)]}
    tifffile.imwrite(tmp_path / "x.tif", image, photometric="rgb", metadata=None, **options)
    first = read_raster(tmp_path / "x.tif", keep_alpha=True)
    assert np.argwhere(first.nodata_mask).tolist() == [[1, 2], [3, 8]]
    write_raster(tmp_path / "y.tif", first)
    assert np.array_equal(tifffile.imread(tmp_path / "y.tif"), image)


def test_without_a_nodata_value_nothing_is_masked():
    image = np.full((6, 9, 2), 3, np.uint8)
    assert set_nodata(image, np.ones((6, 9), bool), Tags())[0] is image


ALPHAS = [
    (alpha, kind, channels)
    for alpha in ("none", "straight", "premultiplied")
    for kind in (np.uint8, np.uint16, np.float32)
    for channels in (2, 3, 4, 5)
]


@pytest.mark.parametrize(("alpha", "kind", "channels"), ALPHAS)
def test_only_alpha_is_alpha(tmp_path, alpha, kind, channels):
    image = (np.random.default_rng(1).random((6, 9, channels)) * (1 if kind == np.float32 else 255)).astype(kind)
    write_image(tmp_path / "x.tif", image, alpha=alpha)
    again = read_raster(tmp_path / "x.tif", keep_alpha=True)
    assert again.alpha == alpha
    assert np.array_equal(again.array, image)
    composed = read_raster(tmp_path / "x.tif")
    assert composed.alpha == "none"
    assert composed.array.shape[2] == channels - (alpha != "none")
    # TIFF 6.0, Sec. 18: 0 is unspecified, 1 multiplied into the colors, 2 not.
    samples = {"none": 0, "premultiplied": 1, "straight": 2}
    colors = 3 if channels == (3 if alpha == "none" else 4) else 1
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        assert file.pages.first.photometric == (2 if colors == 3 else 1)
        told = [int(sample) for sample in file.pages.first.extrasamples]
    assert told == ([0] * (channels - colors - 1) + [samples[alpha]] if channels > colors else [])


@pytest.mark.parametrize(("channels", "mode"), [(2, "LA"), (4, "RGBA")])
def test_pillow_reads_the_same_alpha(tmp_path, channels, mode):
    image = np.random.default_rng(2).integers(0, 256, (6, 9, channels), dtype=np.uint8)
    write_image(tmp_path / "x.tif", image, alpha="straight")
    with Image.open(tmp_path / "x.tif") as file:
        assert file.mode == mode
        assert np.array_equal(np.asarray(file), image)


def test_an_opaque_image_has_no_nodata(tmp_path):
    """Alpha is 255 where all is there, and so may be the value of pixels without data."""
    image = np.full((6, 9, 4), 200, np.uint8)
    image[..., 3] = 255
    image[1, 2, 0] = 255
    write_image(tmp_path / "x.tif", image, Tags({42113: (2, 4, "255")}, 255.0), "straight")
    again = read_raster(tmp_path / "x.tif", keep_alpha=True)
    assert np.argwhere(again.nodata_mask).tolist() == [[1, 2]]
    assert (again.array[..., 3] == 255).all()
    assert (again.array[..., :3] == 200).all()


TURNED = Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(10, -20)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["north up", "turned"]), st.booleans())
def test_georeferences_are_scaled(tmp_path_factory, width, height, how, points):
    folder = tmp_path_factory.mktemp("scale")
    transform = TURNED if how == "turned" else from_origin(500_000, 5_000_000, 10, 20)
    where = {"crs": "EPSG:32633", "transform": transform}
    with rasterio.open(folder / "x.tif", "w", height=6, width=9, count=5, dtype="uint16", **where) as file:
        file.write(np.moveaxis(BANDS, 2, 0))
        if points:
            file.update_tags(AREA_OR_POINT="Point")
    tags = read_raster(folder / "x.tif").tags
    write_image(folder / "y.tif", np.zeros((height, width, 1), np.uint8), tags.scaled(width / 9, height / 6))
    with rasterio.open(folder / "x.tif") as before, rasterio.open(folder / "y.tif") as after:
        assert after.tags().get("AREA_OR_POINT") == before.tags().get("AREA_OR_POINT")
        assert after.crs == before.crs
        for column, row in ((0, 0), (1, 0), (0, 1), (1, 1)):
            corner = before.transform @ (column * 9, row * 6)
            assert after.transform @ (column * width, row * height) == pytest.approx(corner, abs=1e-6)


def test_resolution_follows_the_scale(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", BANDS[..., 0], resolution=(300, 150), resolutionunit="INCH", metadata=None)
    tags = read_raster(tmp_path / "x.tif").tags
    write_image(tmp_path / "y.tif", BANDS[:3, :3, :1], tags.scaled(1 / 3, 1 / 2))
    with Image.open(tmp_path / "y.tif") as file:
        assert file.info["dpi"] == pytest.approx((100, 75))
