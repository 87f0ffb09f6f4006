"""Pictures scaled: means that are exact, depth and channels that stay, places that are kept."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from data_scripts.__main__ import main
from data_scripts.resize import Size, parse_size, scaled
from ganvas.data.images import read_image, write_image
from ganvas.errors import UserError


@pytest.fixture
def run(in_process):
    return in_process(main)


def noise(seed, height, width, channels=3, dtype=np.uint8):
    values = np.random.default_rng(seed).random((height, width, channels))
    return values.astype(dtype) if dtype == np.float32 else (values * np.iinfo(dtype).max).astype(dtype)


class TestScaling:
    @pytest.mark.parametrize("channels", [1, 3, 4, 5, 9])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_a_smaller_picture_is_the_mean_of_what_it_covers(self, dtype, channels):
        picture = noise(1, 12, 20, channels, dtype)
        small = scaled(picture, 5, 4)
        assert small.dtype == dtype
        mean = picture.astype(np.float64).reshape(4, 3, 5, 4, channels).mean(axis=(1, 3))
        assert np.abs(small - mean).max() <= (1e-6 if dtype == np.float32 else 0.5001)

    @pytest.mark.parametrize("channels", [1, 3, 5])
    def test_a_larger_picture_keeps_values_and_their_range(self, channels):
        picture = noise(1, 6, 7, channels, np.uint16) // 2 + 100
        large = scaled(picture, 21, 18)
        assert large.shape == (18, 21, channels)
        assert picture.min() <= large.min() <= large.max() <= picture.max()
        assert np.abs(large[1::3, 1::3].astype(int) - picture).max() <= 1  # the middle of each pixel

    def test_one_side_may_shrink_while_the_other_grows(self):
        picture = np.arange(8, dtype=np.float32)[None, :, None].repeat(2, axis=0)
        assert np.allclose(scaled(picture, 4, 6), (np.arange(4) * 2 + 0.5)[None, :, None].repeat(6, axis=0))

    @hypothesis.given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 2, 3, 5]), st.booleans())
    def test_any_size_is_given_and_flat_stays_flat(self, width, height, channels, nearest):
        flat = np.full((5, 6, channels), 77, np.uint8)
        assert np.array_equal(scaled(flat, width, height, nearest=nearest), np.full((height, width, channels), 77))

    def test_nearest_neighbours_mix_no_colours(self):
        labels = np.random.default_rng(1).choice(np.uint8([0, 100, 255]), (32, 32, 3))
        assert set(np.unique(scaled(labels, 13, 21, nearest=True))) <= {0, 100, 255}
        assert not set(np.unique(scaled(labels, 13, 21))) <= {0, 100, 255}


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
    def test_sizes_of_a_picture_twice_as_wide_as_high(self, given, expected):
        assert parse_size(*given).of(600, 300) == expected

    def test_the_other_side_follows_in_high_pictures_too(self):
        assert Size(shorter=286).of(400, 800) == (286, 572)
        assert Size(longer=286).of(400, 800) == (143, 286)

    @pytest.mark.parametrize(
        "given",
        [
            (None, None, None),
            ("256", 256, None),
            ("0", None, None),
            ("256x", None, None),
            ("2x3x4", None, None),
            ("-5", None, None),
            (None, 0, None),
            (None, None, -1),
            (None, 32769, None),
        ],
    )
    def test_what_is_no_size_is_refused(self, given):
        with pytest.raises(UserError, match="size"):
            parse_size(*given)


class TestFolder:
    def test_subfolders_formats_depth_and_channels_are_kept(self, run, tmp_path):
        pictures = {
            "x.png": noise(1, 20, 30),
            "sub/gray.jpg": noise(2, 20, 30, 1),
            "sub/deep.png": noise(3, 20, 30, 3, np.uint16),
            "sub/deeper/bands.tif": noise(4, 20, 30, 5, np.float32),
            "alpha.webp": noise(5, 20, 30, 4),
            "array.npy": noise(6, 20, 30, 2, np.float32),
        }
        for place, picture in pictures.items():
            write_image(tmp_path / "in" / place, picture)
        (tmp_path / "in" / "dataset.json").write_text("{}")
        code, out, err = run("resize", tmp_path / "in", "--out", tmp_path / "out", "--size", "12x10")
        assert code == 0, err
        assert "6 pictures" in out
        for place, picture in pictures.items():
            small = read_image(tmp_path / "out" / place, picture.shape[2])
            assert small.shape == (10, 12, picture.shape[2])
            assert small.dtype == picture.dtype
        assert (tmp_path / "out" / "dataset.json").read_text() == "{}"
        assert len(list((tmp_path / "out").rglob("*.*"))) == 7

    def test_a_picture_of_the_right_size_is_copied_to_the_byte(self, run, tmp_path):
        write_image(tmp_path / "in" / "x.jpg", noise(1, 16, 16))
        write_image(tmp_path / "in" / "y.jpg", noise(1, 17, 16))
        assert run("resize", tmp_path / "in", "--out", tmp_path / "out", "--size", 16)[0] == 0
        same = [(tmp_path / folder / "x.jpg").read_bytes() for folder in ("in", "out")]
        assert same[0] == same[1]
        assert read_image(tmp_path / "out" / "y.jpg").shape == (16, 16, 3)

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
        code, _, err = run("resize", tmp_path / "in", "--out", tmp_path / "out", "--size", 4, "--format", "jpg")
        assert code == 0, err
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["deep.tif", "x.jpg"]
        assert read_image(tmp_path / "out" / "deep.tif").dtype == np.uint16

    def test_names_that_meet_in_the_new_format_are_refused(self, run, tmp_path):
        for name in ("x.png", "x.jpg"):
            write_image(tmp_path / "in" / name, noise(1, 8, 8))
        assert run("resize", tmp_path / "in", "--out", tmp_path / "out", "--size", 4)[0] == 0
        code, _, err = run("resize", tmp_path / "in", "--out", tmp_path / "other", "--size", 4, "--format", "png")
        assert code == 2
        assert "x.jpg and x.png would get one name" in err

    def test_unreadable_pictures_and_those_that_would_grow_too_large_are_named(self, run, tmp_path):
        write_image(tmp_path / "in" / "x.png", noise(1, 8, 8))
        write_image(tmp_path / "in" / "line.png", noise(1, 1, 200))
        (tmp_path / "in" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
        code, _, err = run("resize", tmp_path / "in", "--out", tmp_path / "out", "--shorter", 300)
        assert code == 2
        assert "line.png: would be 60000x300 pixels" in err
        assert "cut.jpg: " in err
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.png"]
