"""Resized images: exact means; depth, channels, alpha, tags and geo-references that are kept."""

import json
import struct
import time
import zlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image
from rasterio.transform import from_origin

from data_scripts.tools.resize import parse_size, resize
from ganvas.data.decode import read_image, read_raster
from ganvas.data.encode import write_image
from ganvas.errors import UserError


def noise(seed, height, width, channels=3, dtype=np.uint8):
    values = np.random.default_rng(seed).random((height, width, channels))
    return values.astype(dtype) if dtype == np.float32 else (values * np.iinfo(dtype).max).astype(dtype)


def run_resize(run, tmp_path, *arguments):
    code, _, err = run("resize", tmp_path / "in", "--out", tmp_path / "out", *arguments)
    assert code == 0, err
    return {path.name: path for path in (tmp_path / "out").rglob("*.*")}


class TestScaling:
    @pytest.mark.parametrize("channels", [1, 4, 9])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_a_smaller_image_is_the_mean_of_what_it_covers(self, dtype, channels):
        image = noise(1, 12, 20, channels, dtype)
        small = resize(image, 5, 4)
        assert small.dtype == dtype
        mean = image.astype(np.float64).reshape(4, 3, 5, 4, channels).mean(axis=(1, 3))
        assert np.abs(small - mean).max() <= (1e-6 if dtype == np.float32 else 0.5001)

    def test_a_larger_image_keeps_values_and_their_range(self):
        image = noise(1, 6, 7, 5, np.uint16) // 2 + 100
        large = resize(image, 21, 18)
        assert large.shape == (18, 21, 5)
        assert image.min() <= large.min() <= large.max() <= image.max()
        assert np.abs(large[1::3, 1::3].astype(int) - image).max() <= 1  # the middle of each pixel

    def test_one_side_may_shrink_while_the_other_grows(self):
        image = np.arange(8, dtype=np.float32)[None, :, None].repeat(2, axis=0)
        assert np.allclose(resize(image, 4, 6), (np.arange(4) * 2 + 0.5)[None, :, None].repeat(6, axis=0))

    @hypothesis.given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 2, 3, 5]), st.booleans())
    def test_any_size_is_returned_and_constants_stay_constant(self, width, height, channels, nearest):
        flat = np.full((5, 6, channels), 77, np.uint8)
        assert np.array_equal(resize(flat, width, height, nearest=nearest), np.full((height, width, channels), 77))

    def test_nearest_neighbors_mix_no_colors(self):
        labels = np.random.default_rng(1).choice(np.uint8([0, 100, 255]), (32, 32, 3))
        assert set(np.unique(resize(labels, 13, 21, nearest=True))) <= {0, 100, 255}
        assert not set(np.unique(resize(labels, 13, 21))) <= {0, 100, 255}

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize(("width", "height"), [(5, 4), (40, 48)])
    def test_values_that_are_not_finite_stay_where_they_are(self, value, width, height):
        image = noise(1, 12, 20, 1, np.float32)
        image[6, 8] = value
        result = resize(image, width, height)
        assert not np.isfinite(result[height // 2, width * 8 // 20 : width * 9 // 20 + 1]).all()
        assert np.isfinite(result).mean() > 0.9
        assert np.isfinite(result[0, 0])


class TestSize:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (("256", None, None), (256, 256)),
            (("512x256", None, None), (512, 256)),
            ((None, 100, None), (200, 100)),
            ((None, None, 100), (100, 50)),
            ((None, None, 1), (1, 1)),
        ],
    )
    def test_sizes_of_an_image_twice_as_wide_as_high(self, given, expected):
        assert parse_size(*given)(600, 300) == expected

    def test_sizes_of_an_image_twice_as_high_as_wide(self):
        assert parse_size(None, 286, None)(400, 800) == (286, 572)
        assert parse_size(None, None, 286)(400, 800) == (143, 286)

    @pytest.mark.parametrize(
        "given",
        [
            *[(None, None, None), ("256", 256, None), ("0", None, None), ("256x", None, None), ("2x3x4", None, None)],
            *[("-5", None, None), (None, 0, None), (None, None, -1), (None, 32769, None)],
        ],
    )
    def test_invalid_sizes_are_refused(self, given):
        with pytest.raises(UserError, match="size"):
            parse_size(*given)


class TestFolder:
    def test_subfolders_formats_depth_and_channels_are_kept(self, run, tmp_path):
        images = {
            "x.png": noise(1, 20, 30),
            "sub/gray.jpg": noise(2, 20, 30, 1),
            "sub/deep.png": noise(3, 20, 30, 3, np.uint16),
            "sub/deeper/bands.tif": noise(4, 20, 30, 5, np.float32),
            "alpha.webp": noise(5, 20, 30, 4),
            "array.npy": noise(6, 20, 30, 2, np.float32),
        }
        for place, image in images.items():
            write_image(tmp_path / "in" / place, image)
        (tmp_path / "in" / "dataset.json").write_text("{}")
        code, out, err = run("resize", tmp_path / "in", "--out", tmp_path / "out", "--size", "12x10")
        assert code == 0, err
        assert "6 images" in out
        for place, image in images.items():
            small = read_image(tmp_path / "out" / place, image.shape[2])
            assert small.shape == (10, 12, image.shape[2])
            assert small.dtype == image.dtype
        assert (tmp_path / "out" / "dataset.json").read_text() == "{}"
        assert len(list((tmp_path / "out").rglob("*.*"))) == 7

    def test_an_image_of_the_right_size_is_copied_unchanged(self, run, tmp_path):
        write_image(tmp_path / "in" / "x.jpg", noise(1, 16, 16))
        assert run("resize", tmp_path / "in", "--out", tmp_path / "out", "--size", 16)[0] == 0
        assert (tmp_path / "in" / "x.jpg").read_bytes() == (tmp_path / "out" / "x.jpg").read_bytes()

    def test_orientation_is_applied_before(self, run, tmp_path):
        (tmp_path / "in").mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by 90 degrees
        Image.new("RGB", (40, 20)).save(tmp_path / "in" / "x.jpg", exif=exif)
        assert run("resize", tmp_path / "in", "--out", tmp_path / "out", "--longer", 10)[0] == 0
        assert read_image(tmp_path / "out" / "x.jpg").shape == (10, 5, 3)

    def test_another_format_and_what_it_cannot_hold(self, run, tmp_path):
        write_image(tmp_path / "in" / "x.png", noise(1, 8, 8))
        write_image(tmp_path / "in" / "deep.png", noise(1, 8, 8, 3, np.uint16))
        files = run_resize(run, tmp_path, "--size", 4, "--format", "jpg")
        assert set(files) == {"deep.tif", "x.jpg"}
        assert read_image(files["deep.tif"]).dtype == np.uint16

    def test_names_that_collide_in_the_new_format_are_refused(self, run, tmp_path):
        for name in ("x.png", "x.jpg"):
            write_image(tmp_path / "in" / name, noise(1, 8, 8))
        assert set(run_resize(run, tmp_path, "--size", 4)) == {"x.png", "x.jpg"}
        code, _, err = run("resize", tmp_path / "in", "--out", tmp_path / "other", "--size", 4, "--format", "png")
        assert code == 2
        assert "x.jpg and x.png would both be named" in err

    def test_unreadable_images_and_those_that_would_grow_too_large_are_named(self, run, tmp_path):
        write_image(tmp_path / "in" / "x.png", noise(1, 8, 8))
        write_image(tmp_path / "in" / "line.png", noise(1, 1, 200))
        (tmp_path / "in" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
        code, _, err = run("resize", tmp_path / "in", "--out", tmp_path / "out", "--shorter", 300)
        assert code == 2
        assert "line.png: would become 60000x300 pixels" in err
        assert "cut.jpg: " in err
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.png"]


class TestAlpha:
    @pytest.mark.parametrize("alpha", ["straight", "premultiplied"])
    @pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 4), (np.uint16, 2), (np.float32, 6)])
    def test_a_tiff_keeps_the_kind_of_alpha(self, run, tmp_path, dtype, channels, alpha):
        image = noise(1, 12, 20, channels, dtype)
        write_image(tmp_path / "in" / "x.tif", image, alpha=alpha)
        small = read_raster(run_resize(run, tmp_path, "--size", "5x4")["x.tif"], keep_alpha=True)
        assert (small.alpha, small.array.dtype, small.array.shape) == (alpha, dtype, (4, 5, channels))
        # Colors count by their alpha; where they are multiplied by it already, a plain mean does that.
        blocks = image.astype(np.float64).reshape(4, 3, 5, 4, channels)
        weight = blocks[..., -1:] if alpha == "straight" else np.ones_like(blocks[..., -1:])
        colors = (blocks[..., :-1] * weight).sum(axis=(1, 3)) / weight.sum(axis=(1, 3))
        tolerance = 1e-5 if dtype == np.float32 else 0.51
        assert np.abs(small.array[..., :-1] - colors).max() <= tolerance
        assert np.abs(small.array[..., -1] - blocks[..., -1].mean(axis=(1, 3))).max() <= tolerance

    @pytest.mark.parametrize(("name", "mode"), [("x.png", "RGBA"), ("x.png", "LA"), ("x.webp", "RGBA")])
    def test_other_formats_keep_alpha(self, run, tmp_path, name, mode):
        (tmp_path / "in").mkdir()
        Image.fromarray(noise(1, 12, 20, 4), "RGBA").convert(mode).save(tmp_path / "in" / name)
        palette = Image.fromarray(noise(1, 12, 20)[:, :, 0] % 4).convert("P")
        palette.save(tmp_path / "in" / "palette.png", transparency=2)
        resized = run_resize(run, tmp_path, "--size", "5x4")
        for file, expected in ((name, mode), ("palette.png", "RGBA")):
            with Image.open(resized[file]) as image:
                assert (image.mode, image.size) == (expected, (5, 4))

    @pytest.mark.parametrize(("width", "height"), [(4, 4), (32, 32)])
    def test_transparent_pixels_do_not_bleed(self, run, tmp_path, width, height):
        image = np.zeros((16, 16, 4), np.uint8)
        image[..., 1] = 255  # green, all of it transparent
        image[2:9, 3:10] = (200, 30, 40, 255)
        write_image(tmp_path / "in" / "x.png", image)
        result = read_image(run_resize(run, tmp_path, "--size", f"{width}x{height}")["x.png"], 4)
        visible = result[..., 3] > 8
        assert visible.any()
        assert (np.abs(result[visible][:, :3].astype(int) - (200, 30, 40)) <= 6).all()

    def test_four_channels_without_alpha_are_kept(self, run, tmp_path):
        write_image(tmp_path / "in" / "x.tif", noise(1, 12, 20, 4))
        again = read_raster(run_resize(run, tmp_path, "--size", "5x4", "--format", "png")["x.tif"], keep_alpha=True)
        assert again.alpha == "none"
        assert again.array.shape == (4, 5, 4)


class TestTags:
    @pytest.fixture
    def bands(self, tmp_path):
        """A GeoTIFF of 5 channels with one pixel without data."""
        values = noise(1, 12, 20, 5, np.uint16) // 2
        values[4, 6] = 65535
        (tmp_path / "in").mkdir()
        where = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10), "nodata": 65535}
        with rasterio.open(tmp_path / "in" / "x.tif", "w", height=12, width=20, count=5, dtype="uint16", **where) as f:
            f.write(np.moveaxis(values, 2, 0))
        return values

    @pytest.mark.parametrize(("width", "height"), [(5, 4), (40, 24)])
    def test_georeference_and_nodata_are_kept(self, run, tmp_path, bands, width, height):
        path = run_resize(run, tmp_path, "--size", f"{width}x{height}")["x.tif"]
        with rasterio.open(tmp_path / "in" / "x.tif") as before, rasterio.open(path) as after:
            assert (after.count, after.dtypes[0], after.crs, after.nodata) == (5, "uint16", before.crs, 65535)
            assert tuple(after.bounds) == pytest.approx(tuple(before.bounds))
            missing = np.argwhere(after.read(1) == 65535)
            valid = after.read()[:, after.read(1) != 65535]
        assert [4 * height // 12, 6 * width // 20] in missing.tolist()
        reach = 1 if width == 5 else 8  # a cubic takes two pixels to each side
        assert np.ptp(missing, axis=0).tolist() == [reach - 1, reach - 1]
        assert len(missing) == reach**2
        assert bands[bands < 65535].min() <= valid.min()
        assert valid.max() <= bands[bands < 65535].max()

    def test_nodata_needs_a_tiff(self, run, tmp_path, bands):
        write_image(tmp_path / "in" / "y.tif", bands[..., :3])
        assert set(run_resize(run, tmp_path, "--size", 4, "--format", "png")) == {"x.tif", "y.png"}

    def test_resolution_follows(self, run, tmp_path):
        (tmp_path / "in").mkdir()
        values = noise(1, 12, 20, 1)[:, :, 0]
        tifffile.imwrite(tmp_path / "in" / "x.tif", values, resolution=(200, 120), resolutionunit="INCH", metadata=None)
        with Image.open(run_resize(run, tmp_path, "--size", "5x4")["x.tif"]) as file:
            assert file.info["dpi"] == pytest.approx((50, 40))


PALETTE = {"land": [242, 239, 228], "lake": [110, 165, 225]}


def drawn(height, width):
    values = np.full((height, width, 3), PALETTE["land"], np.uint8)
    values[3:9, 2:11] = PALETTE["lake"]
    return values


class TestPalette:
    @pytest.fixture(autouse=True)
    def description(self, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "dataset.json").write_text(json.dumps({"legend": PALETTE}))

    @pytest.mark.parametrize("size", ["7x5", "31x29"])
    def test_flat_colors_never_mix_and_photographs_do(self, run, tmp_path, size):
        write_image(tmp_path / "in" / "trainA" / "map.png", drawn(16, 18))
        write_image(tmp_path / "in" / "trainB" / "photo.png", noise(1, 16, 18))
        found = run_resize(run, tmp_path, "--size", size)
        colors = {tuple(color) for color in read_image(found["map.png"]).reshape(-1, 3).tolist()}
        assert colors == set(map(tuple, PALETTE.values()))
        known = {tuple(color) for color in noise(1, 16, 18).reshape(-1, 3).tolist()}
        assert len({tuple(c) for c in read_image(found["photo.png"]).reshape(-1, 3).tolist()} - known) > 20

    def test_each_half_of_a_pair_is_scaled_separately(self, run, tmp_path):
        photo = noise(1, 16, 18)
        write_image(tmp_path / "in" / "train" / "x.png", np.hstack([photo, drawn(16, 18)]))
        both = read_image(run_resize(run, tmp_path, "--size", "12x8")["x.png"])
        assert np.array_equal(both[:, :6], resize(photo, 6, 8))
        assert {tuple(c) for c in both[:, 6:].reshape(-1, 3).tolist()} == set(map(tuple, PALETTE.values()))

    def test_a_width_that_does_not_split_is_refused(self, run, tmp_path):
        write_image(tmp_path / "in" / "train" / "x.png", np.hstack([noise(1, 16, 18), drawn(16, 18)]))
        code, _, err = run("resize", tmp_path / "in", "--out", tmp_path / "out", "--size", "13x8")
        assert code == 2
        assert "x.png: one half is in the legend's colors, and 13 pixels cannot be halved" in err

    @pytest.mark.parametrize("text", ['{"legend": {"land": "green"}}', "{"])
    def test_an_invalid_dataset_json_is_refused(self, run, tmp_path, text):
        (tmp_path / "in" / "dataset.json").write_text(text)
        write_image(tmp_path / "in" / "x.png", drawn(16, 18))
        code, _, err = run("resize", tmp_path / "in", "--out", tmp_path / "out", "--size", 8)
        assert code == 2
        assert "dataset.json: " in err


def test_huge_images_are_scaled_on_request(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("x.png", "deep.tif", "array.npy"):
        write_image(tmp_path / "in" / name, noise(1, 20, 30, 3, np.uint8 if name == "x.png" else np.uint16))
    arguments = ["resize", tmp_path / "in", "--out", tmp_path / "out", "--size", "6x4"]
    code, _, err = run(*arguments)
    assert code == 2
    assert err.count("resize --huge") == 3
    assert run(*arguments, "--huge")[0] == 0
    assert Image.MAX_IMAGE_PIXELS == 100
    assert {read_image(path).shape for path in (tmp_path / "out").iterdir()} == {(4, 6, 3)}


@pytest.mark.slow
@pytest.mark.essential
def test_a_killed_command_leaves_nothing_behind(start_process, run, tmp_path):
    for number in range(30):
        write_image(tmp_path / "in" / f"{number}.png", noise(number, 200, 200))
    arguments = ["resize", tmp_path / "in", "--out", tmp_path / "out", "--size", 900]
    victim = start_process("data_scripts", *arguments)
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob(".out.new-*/new/*"))) < 3:
            assert time.monotonic() < deadline
            assert victim.poll() is None
            time.sleep(0.005)
    finally:
        victim.kill()
        victim.communicate()
    assert victim.returncode != 0
    assert not (tmp_path / "out").exists()
    assert run(*arguments[:-1], 9)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert len(list((tmp_path / "out").iterdir())) == 30


def test_two_images_with_one_output_name_are_refused(run, tmp_path):
    """A deep gray PNG with alpha becomes TIFF, since no PNG of ours holds it, and meets another of its name."""
    (tmp_path / "in").mkdir()
    deep = noise(2, 8, 8, 2, np.uint16)
    content = tiny_png(deep)
    (tmp_path / "in" / "x.png").write_bytes(content)
    assert read_raster(tmp_path / "in" / "x.png", keep_alpha=True).array.shape == (8, 8, 2)
    write_image(tmp_path / "in" / "x.tif", noise(1, 8, 8))
    code, _, err = run("resize", tmp_path / "in", "--out", tmp_path / "out", "--size", 4)
    assert code == 2
    assert "x.tif: is the output of two images" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.tif"]


def tiny_png(deep):
    """A PNG of 16-bit gray with alpha (color type 4), by the standard's Sec. 5 and 11.2."""
    H, W, _ = deep.shape
    head = struct.pack(">IIBBBBB", W, H, 16, 4, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
