"""Which split a photograph goes to, and the sets that are made of photographs."""

import json
import unicodedata
from collections import Counter

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from data_scripts.tools.edges import draw_edges
from data_scripts.tools.grayscale import luminance
from data_scripts.tools.photos import split_of
from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.data.layout import splits
from ganvas.data.paired import PairedDataset
from ganvas.data.pairs import find_pairs

NAMES = [f"photo{number}" for number in range(4000)]


class TestSplits:
    def test_splits_have_the_requested_fractions(self):
        counts = Counter(split_of(name, 0.1, 0.2) for name in NAMES)
        for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
            spread = 5 * np.sqrt(len(NAMES) * share * (1 - share))  # five standard deviations of a binomial
            assert abs(counts[split] - len(NAMES) * share) < spread

    def test_the_split_is_deterministic(self):
        # SHA-256 of a, b and photo2 begins with ca, 3e and 5; another draw would move what is made again.
        assert [split_of(name, 0.25, 0.25) for name in ("a", "b", "photo2")] == ["train", "test", "val"]

    @hypothesis.given(st.text(min_size=1), st.floats(0, 0.5), st.floats(0, 0.49))
    @pytest.mark.slow
    def test_a_larger_fraction_keeps_the_held_out_images(self, name, val, test):
        if split_of(name, val, test) == "test":
            assert split_of(name, val, test + 0.01) == "test"
        if split_of(name, val, 0) == "val":
            assert split_of(name, val + 0.01, 0) == "val"
        assert split_of(name, 0, 0) == "train"

    def test_unicode_normalization_does_not_change_the_split(self):
        names = ["é" * count for count in range(1, 40)]
        assert {split_of(name, 0.3, 0.3) for name in names} == {"train", "val", "test"}
        for name in names:
            assert split_of(unicodedata.normalize("NFD", name), 0.3, 0.3) == split_of(name, 0.3, 0.3)


def photo(path, seed, mode="RGB"):
    """A dark disc on a bright ground, in color."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    values = np.full((32, 40, 3), (200, 220, 240), np.uint8)
    cv2.circle(values, tuple(map(int, rng.integers(10, 22, 2))), 7, (90, 20, 30), -1)
    Image.fromarray(values).convert(mode).save(path)


@pytest.fixture
def photos(tmp_path):
    for number in range(12):
        photo(tmp_path / "photos" / f"{number}.png", number)
        photo(tmp_path / "photos" / "sub" / f"{number}.jpg", 50 + number)
    return tmp_path / "photos"


@pytest.mark.parametrize("script", ["grayscale", "edges"])
class TestSets:
    def test_the_result_can_be_trained_on(self, run, photos, tmp_path, script):
        root = tmp_path / "out"
        code, out, err = run(script, photos, "--out", root, "--val", "0.2", "--test", "0.2")
        assert code == 0, err
        assert splits(root) == ["train", "val", "test"]
        names = {split: [pair.name for pair in find_pairs(root, split)] for split in splits(root)}
        expected = [f"{prefix}{number}" for prefix in ("", "sub_") for number in range(12)]
        assert sorted(name for found in names.values() for name in found) == sorted(expected)
        for split, found in names.items():
            assert {split_of(name, 0.2, 0.2) for name in found} == {split}
            assert f"{len(found)} {split}" in out
        assert out.splitlines()[-1] == f"pix2pix train --data {root} --out RUN"  # channels are read from the images
        data = PairedDataset(root, "train", augmentation=None, source_channels=1)
        assert data[0, 0]["source"].shape == (1, 32, 40)
        assert data[0, 0]["target"].shape == (3, 32, 40)
        for name, original in (("3.png", photos / "3.png"), ("sub_3.jpg", photos / "sub" / "3.jpg")):
            (copy,) = root.glob(f"*B/{name}")
            assert copy.read_bytes() == original.read_bytes()
        info = json.loads((root / "dataset.json").read_text())
        assert info["direction"] == "a2b"
        domains = {"grayscale": {"a": "gray", "b": "color"}, "edges": {"a": "edges", "b": "photo"}}
        assert info["domains"] == domains[script]

    def test_exif_orientation_is_applied_to_both(self, run, tmp_path, script):
        photo(tmp_path / "in" / "x.jpg", 1)
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(tmp_path / "in" / "x.jpg").save(tmp_path / "in" / "x.jpg", exif=exif)
        assert run(script, tmp_path / "in", "--out", tmp_path / "out", "--val", 0, "--test", 0)[0] == 0
        pair = find_pairs(tmp_path / "out", "train")[0]
        assert read_image(pair.a).shape[:2] == read_image(pair.b).shape[:2] == (40, 32)

    def test_images_without_a_source_are_skipped_and_reported(self, run, photos, tmp_path, script):
        Image.new("L", (8, 8), 7).save(photos / "flat.png")
        Image.new("RGB", (8, 8), (7, 7, 7)).save(photos / "gray.png")
        code, out, _ = run(script, photos, "--out", tmp_path / "out")
        assert code == 0
        assert "2 skipped: they have no" in out
        assert "(flat, gray)" in out
        assert not list((tmp_path / "out").rglob("gray.*"))

    def test_unreadable_images_are_reported_and_the_others_written(self, run, photos, tmp_path, script):
        (photos / "text.png").write_text("no image")
        write_image(photos / "bands.tif", np.zeros((4, 4, 5), np.uint8))
        code, _, err = run(script, photos, "--out", tmp_path / "out")
        assert code == 2
        assert "2 of 26" in err
        assert "text.png: is not a readable image" in err
        assert "bands.tif: has 5 channels" in err
        assert len(list((tmp_path / "out").rglob("*B/*"))) == 24

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--val", "0.5", "--test", "0.5"], "leave no train images"),
            (["--val", "-0.1"], "val is -0.1"),
            (["--test", "1"], "test is 1"),
        ],
    )
    def test_fractions_out_of_range(self, run, photos, tmp_path, script, options, message):
        code, _, err = run(script, photos, "--out", tmp_path / "out", *options)
        assert code == 2
        assert message in err
        assert not (tmp_path / "out").exists()

    def test_names_that_collide(self, run, photos, tmp_path, script):
        photo(photos / "sub_3.png", 1)
        code, _, err = run(script, photos, "--out", tmp_path / "out")
        assert code == 2
        assert "sub/3.jpg and sub_3.png would both be named" in err

    def test_a_split_without_training_images_is_refused(self, run, tmp_path, script):
        photo(tmp_path / "in" / "b.png", 1)
        code, _, err = run(script, tmp_path / "in", "--out", tmp_path / "out", "--val", "0.9")
        assert code == 2
        assert "none of 1 photographs falls to train" in err


class TestLuminance:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_luminance_follows_rec_601(self, dtype):
        top = 1 if dtype == np.float32 else np.iinfo(dtype).max
        colors = (np.random.default_rng(1).random((5, 6, 3)) * top).astype(dtype)
        gray = luminance(colors)
        assert gray.shape == (5, 6, 1)
        assert gray.dtype == dtype
        expected = colors.astype(np.float64) @ [0.299, 0.587, 0.114]
        tolerance = {np.uint8: 0.51, np.uint16: 1.5, np.float32: 1e-6}[dtype]  # OpenCV's weights have 14 bits
        assert np.abs(gray[:, :, 0] - expected).max() <= tolerance

    def test_gray_images_have_no_luminance_source(self):
        assert luminance(np.zeros((4, 4, 1), np.uint8)) is None
        assert luminance(np.full((4, 4, 3), 9, np.uint8)) is None


DEFAULTS = {"low": 100, "high": 200, "blur": 1.0}


class TestEdges:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_lines_are_black_on_white_where_the_step_is(self, dtype):
        top = 1 if dtype == np.float32 else np.iinfo(dtype).max
        step = np.zeros((20, 30, 3), dtype)
        step[:, 15:] = top
        edges = draw_edges(step, **DEFAULTS)
        assert edges.shape == (20, 30, 1)
        assert set(np.unique(edges)) == {0, 255}
        columns = np.flatnonzero((edges[:, :, 0] == 0).any(axis=0))
        assert set(columns) <= {14, 15}

    def test_a_faint_step_shows_with_lower_thresholds_alone(self):
        faint = np.full((20, 30, 1), 100, np.uint8)
        faint[:, 15:] = 120
        assert draw_edges(faint, **DEFAULTS) is None
        assert draw_edges(faint, low=10, high=20, blur=1.0) is not None

    @pytest.mark.parametrize("values", [(0, 9000), (-1, 1), (0, np.nan)])
    def test_floats_of_another_range_are_refused_by_name(self, run, tmp_path, values):
        image = np.zeros((20, 30, 1), np.float32)
        image[:, 15:], image[:, :15] = values[1], values[0]
        write_image(tmp_path / "in" / "x.tif", image)
        code, _, err = run("edges", tmp_path / "in", "--out", tmp_path / "out", "--val", 0, "--test", 0)
        assert code == 2
        assert "x.tif: has values from" in err
        assert "expected floats from 0 to 1" in err

    def test_blur_takes_noise_away(self):
        noise = np.random.default_rng(1).integers(0, 256, (60, 60, 1), dtype=np.uint8)
        lines = [
            0 if edges is None else int((edges == 0).sum())
            for edges in (draw_edges(noise, low=100, high=200, blur=blur) for blur in (0, 1.0, 3.0))
        ]
        assert lines[0] > lines[1] > lines[2]

    @pytest.mark.parametrize(
        ("options", "message"), [(["--low", "300"], "--low is 300"), (["--blur", "-1"], "blur is -1")]
    )
    def test_invalid_thresholds(self, run, photos, tmp_path, options, message):
        code, _, err = run("edges", photos, "--out", tmp_path / "out", *options)
        assert code == 2
        assert message in err
