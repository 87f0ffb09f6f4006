import multiprocessing
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare
from torch.utils.data import DataLoader, Dataset

from ganvas.data import augment
from ganvas.data.arrays import FULL_RANGE
from ganvas.data.augment import (
    PRESETS,
    Augmentation,
    AugmentPreset,
    ImageTransform,
    PairTransform,
    build_augmentation,
)
from ganvas.data.sampling import ResumableBatchSampler
from ganvas.errors import UserError

ROOT = Path(__file__).parents[3]
PALETTE = {"land": [242, 239, 228], "lake": [110, 165, 225]}


def coordinates(height, width, channels, dtype):
    """A smooth image whose value tells the place, so that equal places can be told from others."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    ramp = (y / height + 2 * x / width) / 3
    scale = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    return np.repeat((ramp * scale)[:, :, None], channels, axis=2).astype(dtype), scale


@settings(max_examples=25)
@given(
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.sampled_from([1, 3, 5, 13]),
    st.sampled_from([1, 3, 5]),
    st.integers(0, 1000),
)
def test_both_images_move_together_for_all_dtypes(first, second, channels_a, channels_b, index):
    (a, scale_a), (b, scale_b) = coordinates(40, 50, channels_a, first), coordinates(40, 50, channels_b, second)
    source, target = PairTransform(Augmentation(36, 24))(a, b, (0, 1, index))
    assert source.shape == (24, 24, channels_a)
    assert target.shape == (24, 24, channels_b)
    assert (source.dtype, target.dtype) == (first, second)
    # A shift by one pixel would change the ramp by 2 / 3 / 36 = 0.018.
    assert np.abs(source[:, :, 0] / scale_a - target[:, :, 0] / scale_b).max() < 0.009


@given(st.integers(0, 1000), st.sampled_from([30, 60]), st.sampled_from([(0.0, 1.0), (-3.0, 8.0)]))
def test_scaled_floats_stay_in_their_range(index, load_size, values):
    image = np.random.default_rng(index).choice(np.array(values, np.float32), (40, 40, 3))  # the hardest edges
    for scaled in PairTransform(Augmentation(load_size, 24))(image, image, (0, 0, index)):
        assert values[0] <= scaled.min() < scaled.max() <= values[1]


def test_a_loaded_size_is_not_resampled():
    """Scaling 286 to 286 must neither blur nor cost: what is cut equals the original."""
    image = np.random.default_rng(0).integers(0, 256, (286, 286, 3), dtype=np.uint8)
    source, target = PairTransform(Augmentation(286, 286, flip=False))(image, image[..., :1], (0, 0, 0))
    assert np.array_equal(source, image)
    assert np.array_equal(target, image[..., :1])


@pytest.mark.slow
def test_albumentations_does_not_check_for_updates():
    code = (
        "import os, sys; os.environ.pop('NO_ALBUMENTATIONS_UPDATE', None); import ganvas.data.augment as a\n"
        "assert 'albumentations' not in sys.modules\n"
        "import urllib.request; urllib.request.OpenerDirector.open = lambda *_, **__: sys.exit('asked the network')\n"
        "a._albumentations(); assert os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1'"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_keys_repeat_and_differ():
    transform = PairTransform(Augmentation(40, 32))
    a, b = (np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8) for i in range(2))
    results = {}
    for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 2, 3)]:
        first, again = transform(a, b, key), PairTransform(Augmentation(40, 32))(a, b, key)
        assert np.array_equal(first[0], again[0])
        assert np.array_equal(first[1], again[1])
        results[key] = first[0].tobytes()
    assert len(set(results.values())) == 5


def test_half_are_mirrored_and_every_crop_occurs():
    a = np.stack(np.mgrid[:40, :40], axis=2).astype(np.uint8)  # each pixel holds its row and column
    transform, places, mirrored = PairTransform(Augmentation(None, 32)), set(), 0
    for index in range(400):
        source, _ = transform(a, a, (0, 0, index))
        top, left, right = source[0, 0, 0], source[0, 0, 1], source[0, -1, 1]
        mirrored += int(left > right)
        places.add((int(top), int(min(left, right))))
    assert 160 <= mirrored <= 240  # four standard deviations are 40
    assert 65 <= len(places) <= 81  # 9 x 9 places; 400 draws miss about one of them


def are_independent(first, second, bins=4):
    """Check by a chi-square test that two draws are independent; draws of many values are compared by quantiles."""
    labels = []
    for values in (np.asarray(draws, dtype=float) for draws in (first, second)):
        edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
        two = len(np.unique(values)) == 2
        labels.append((values > values.min()).astype(int) if two else np.searchsorted(edges, values, "right"))
    table = np.histogram2d(*labels, bins=[len(np.unique(label)) for label in labels])[0]
    return chi2_contingency(table).pvalue > 1e-3  # of some 20 pairs of fixed draws


class TestDrawsAreIndependent:
    DRAWS = 2000

    @pytest.mark.parametrize("load_size", [24, None])
    @pytest.mark.slow
    def test_of_the_paper(self, load_size):
        transform = ImageTransform(Augmentation(load_size, 16))
        places = np.moveaxis(np.indices((24, 24), dtype=np.float32), 0, 2)
        tops, lefts, flips = [], [], []
        for index in range(self.DRAWS):
            cut = transform(places, (0, 0, index))
            tops.append(cut[0, 0, 0])
            lefts.append(cut[0, :, 1].min())
            flips.append(cut[0, 0, 1] > cut[0, -1, 1])
        for first, second in combinations((tops, lefts, flips), 2):
            assert are_independent(first, second)
        for values, count in ((tops, 9), (lefts, 9), (flips, 2)):
            assert chisquare(np.unique(values, return_counts=True)[1]).pvalue > 1e-3
            assert len(np.unique(values)) == count

    @pytest.mark.slow
    @pytest.mark.essential
    def test_of_strong(self):
        """An affine map is fitted to where pixels come from: it tells rotation, zoom, shift and flip of each image."""
        base = build_augmentation("strong", 64, load_size=64, info={})
        transform = PairTransform(replace(base, color_is_optional=False))
        places = np.moveaxis(np.indices((64, 64), dtype=np.float32), 0, 2)
        gray = np.full((64, 64, 1), 100, np.uint8)
        inner = np.c_[np.indices((16, 16)).reshape(2, -1).T - 7.5, np.ones(256)]  # around the center: nothing reflected
        draws = {name: [] for name in ("moved", "rotation", "zoom", "down", "across", "flip", "brightness")}
        for index in range(self.DRAWS):
            source, moved = transform(gray, places, (0, 0, index))
            (a, b), (c, d), shift = np.linalg.lstsq(inner, moved[24:40, 24:40].reshape(-1, 2), rcond=None)[0]
            flip = a * d - b * c < 0
            c, d = (-c, -d) if flip else (c, d)
            draws["moved"].append(abs(b - c) > 1e-4)
            draws["rotation"].append(np.arctan2(b - c, a + d))
            draws["zoom"].append(np.sqrt(a * d - b * c))
            draws["down"].append(shift[0])
            draws["across"].append(shift[1])
            draws["flip"].append(flip)
            draws["brightness"].append(source[0, 0, 0])
        draws = {name: np.array(values) for name, values in draws.items()}
        for one in ("flip", "brightness"):
            assert are_independent(draws["moved"], draws[one])
        moved = draws.pop("moved")
        assert 0.45 < moved.mean() < 0.55
        assert 0.45 < draws["flip"].mean() < 0.55
        for one, other in combinations(draws, 2):  # by halves: shifts are whole pixels, of which there are few
            assert are_independent(draws[one][moved], draws[other][moved], bins=2), (one, other)

    def test_of_crops_and_moves_of_strong(self):
        transform = ImageTransform(build_augmentation("strong", 16, load_size=24, info={}))
        places = np.moveaxis(np.indices((24, 24), dtype=np.float32), 0, 2)
        tops, lefts, flips = [], [], []
        for index in range(self.DRAWS):
            cut = transform(places, (0, 0, index))
            if np.all(cut == np.rint(cut)):  # neither rotated nor zoomed
                tops.append(cut[0, 0, 0])
                lefts.append(cut[0, :, 1].min())
                flips.append(cut[0, 0, 1] > cut[0, -1, 1])
        assert 0.45 < len(tops) / self.DRAWS < 0.55
        for first, second in combinations((tops, lefts, flips), 2):
            assert are_independent(first, second)
        for values in (tops, lefts, flips):
            assert chisquare(np.unique(values, return_counts=True)[1]).pvalue > 1e-3

    @pytest.mark.slow
    def test_of_places_and_flips_in_large_images(self):
        """Both halves of an image that is not scaled are mirrored equally often."""
        transform = ImageTransform(build_augmentation("strong", 16, load_size=0, info={}))
        places = np.moveaxis(np.indices((200, 200), dtype=np.float32), 0, 2)
        cuts = [transform(places, (0, 0, index)) for index in range(self.DRAWS)]
        flips = [cut[8, 2, 1] > cut[8, -2, 1] for cut in cuts]
        for axis in (0, 1):
            assert are_independent([cut[8, 8, axis] for cut in cuts], flips)


@pytest.mark.parametrize(("channels", "dtype"), [(5, np.uint8), (3, np.uint16)])
@pytest.mark.parametrize(
    "augmentation", [Augmentation(None, 32, color=0.5), build_augmentation("strong", 32, color=0.1, info={})]
)
def test_requested_color_jitter_is_refused_for_other_images(augmentation, channels, dtype):
    a = np.zeros((32, 32, channels), dtype)
    with pytest.raises(UserError, match="color works on 8-bit images of 1 or 3"):
        PairTransform(augmentation)(a, a, (0, 0, 0))


def test_too_small_to_crop():
    a = np.zeros((20, 40, 3), np.uint8)
    with pytest.raises(UserError, match="40x20 pixels, smaller than the 32"):
        PairTransform(Augmentation(None, 32))(a, a, (0, 0, 0))


def disc(height, width, y, x, radius):
    down, across = np.ogrid[:height, :width]
    return (down - y) ** 2 + (across - x) ** 2 <= radius**2


def drawn(shape, channels, dtype, colors=None):
    """Draw a disc's shape [H, W] in a type of image; or in two colors, as on a map."""
    low, high = colors or (np.full(channels, share * FULL_RANGE[np.dtype(dtype)]) for share in (0.25, 0.75))
    return np.where(shape[:, :, None], high, low).astype(dtype)


def middle(image):
    """Center of what `drawn` drew with no colors given."""
    ink = (image[:, :, -1] / FULL_RANGE[image.dtype] - 0.25).clip(0)
    return np.array([np.average(places, weights=ink) for places in np.indices(ink.shape)])


class TestPresets:
    def test_each_preset_is_a_value_of_the_option(self):
        assert get_args(AugmentPreset) == tuple(PRESETS) == ("none", "paper", "strong")

    @pytest.mark.slow
    def test_preset_names_need_no_heavy_import(self):
        code = (
            "import sys, ganvas.data.augment; assert not {'numpy', 'albumentations', 'torch', 'cv2'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

    @pytest.mark.parametrize(
        ("preset", "load_size", "flip", "color"),
        [("none", 128, False, 0), ("paper", 143, True, 0), ("strong", 143, True, 0.2)],
    )
    def test_presets_set_what_no_option_sets(self, preset, load_size, flip, color):
        found = build_augmentation(preset, 128, info={})
        assert (found.load_size, found.crop_size, found.flip, found.color) == (load_size, 128, flip, color)

    @pytest.mark.parametrize("preset", PRESETS)
    def test_options_override_them(self, preset):
        found = build_augmentation(preset, 64, load_size=70, flip=False, color=0.4, info={})
        assert (found.load_size, found.crop_size, found.flip, found.color) == (70, 64, False, 0.4)
        assert build_augmentation(preset, 64, load_size=0, info={}).load_size is None
        assert build_augmentation(preset, 64, color=0.0, info={}).color == 0

    @pytest.mark.parametrize("preset", ["paper", "strong"])
    def test_a_dataset_that_has_a_direction_is_never_flipped(self, preset):
        assert not build_augmentation(preset, 64, info={"flip": False}).flip
        assert build_augmentation(preset, 64, info={"flip": True}).flip

    def test_none_is_deterministic(self):
        image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        transform = PairTransform(build_augmentation("none", 32, info={}))
        results = [transform(image, image, (seed, 0, seed)) for seed in range(8)]
        assert results[0][0].shape == (32, 32, 3)
        assert all(np.array_equal(image, results[0][0]) for pair in results for image in pair)

    @pytest.mark.parametrize("preset", PRESETS)
    def test_only_strong_uses_a_palette(self, preset):
        palette = build_augmentation(preset, 64, info={"legend": PALETTE}).palette
        assert palette == (tuple(map(tuple, PALETTE.values())) if preset == "strong" else ())

    def test_an_invalid_palette_is_refused_by_strong(self):
        with pytest.raises(UserError, match=r"dataset.json: the legend is .*; expected \[red, green, blue\]"):
            build_augmentation("strong", 64, info={"legend": {"land": "red"}})

    @pytest.mark.parametrize("preset", PRESETS)
    def test_only_strong_with_a_palette_keeps_flat_colors(self, preset):
        a = drawn(disc(90, 80, 30, 40, 20), 3, np.uint8, (PALETTE["land"], PALETTE["lake"]))
        flat = {tuple(color) for color in PALETTE.values()}
        for info, mixed in (({"legend": PALETTE}, preset != "strong"), ({}, True)):
            moved, _ = PairTransform(build_augmentation(preset, 64, color=0.0, info=info))(a, a, (0, 0, 0))
            assert ({tuple(color) for color in moved.reshape(-1, 3).tolist()} - flat != set()) == mixed


class TestStrong:
    @settings(max_examples=40)
    @given(data=st.data())
    def test_a_landmark_moves_to_the_same_place_in_both(self, data):
        kinds = st.tuples(st.sampled_from([np.uint8, np.uint16, np.float32]), st.integers(1, 14))
        height, width = (data.draw(st.integers(60, 140)) for _ in range(2))
        load_size = data.draw(st.sampled_from([None, 0, 48]))  # the preset's, their own scale, no room to cut
        first, second = data.draw(kinds), data.draw(kinds)
        augmentation = build_augmentation("strong", 48, load_size=load_size, color=0.0, info={})
        moved = PairTransform(augmentation)
        key = tuple(data.draw(st.integers(0, 2**32)) for _ in range(3))
        # A disc that nothing cuts off: around the place in the middle of the result.
        places = np.moveaxis(np.indices((height, width), dtype=np.float32), 0, 2)
        y, x = moved(places, places, key)[0][24, 24]
        shape = disc(height, width, y, x, min(height, width) / 10)
        source, target = moved(drawn(shape, first[1], first[0]), drawn(shape, second[1], second[0]), key)
        assert (source.dtype, target.dtype) == (first[0], second[0])
        assert (source.shape, target.shape) == ((48, 48, first[1]), (48, 48, second[1]))
        found, other = middle(source), middle(target)
        assert np.hypot(*(found - other)) < 0.05
        assert np.hypot(*(found - 24)) < 2

    @given(index=st.integers(0, 10**6), size=st.integers(90, 130))
    @pytest.mark.slow
    def test_flat_images_move_like_photographs_and_keep_their_colors(self, index, size):
        transform = PairTransform(build_augmentation("strong", 64, info={"legend": PALETTE}))
        rng = np.random.default_rng(index)
        shape = disc(size, size, size / 2, size / 2, size / 5)
        source = drawn(shape, 3, np.uint8, (PALETTE["land"], PALETTE["lake"]))
        source[rng.random((size, size)) < 0.1] = (10, 20, 30)  # lines and letters
        map_before = {tuple(color) for color in source.reshape(-1, 3).tolist()}
        moved, photo = transform(source, drawn(shape, 5, np.uint16), (0, 0, index))
        assert {tuple(color) for color in moved.reshape(-1, 3).tolist()} <= map_before
        lake = (moved == PALETTE["lake"]).all(axis=2)
        ground = (moved == PALETTE["land"]).all(axis=2)
        bright = photo[:, :, 4] > 32768
        assert (lake & ~bright).sum() + (ground & bright).sum() < 0.05 * lake.size  # half a pixel along the disc's edge

    def test_nearest_neighbors_have_no_bias(self):
        transform = PairTransform(build_augmentation("strong", 64, info={"legend": PALETTE}))
        shape = disc(130, 130, 65, 65, 30)
        source, target = drawn(shape, 3, np.uint8, (PALETTE["land"], PALETTE["lake"])), drawn(shape, 1, np.float32)
        apart = []
        for index in range(80):
            moved, photo = transform(source, target, (0, 0, index))
            lake = (moved == PALETTE["lake"]).all(axis=2)
            apart.append([places[lake].mean() for places in np.indices(lake.shape)] - middle(photo))
        assert np.abs(np.mean(apart, axis=0)).max() < 0.05

    def test_two_images_in_flat_colors_stay_equal(self):
        transform = PairTransform(build_augmentation("strong", 64, info={"legend": PALETTE}))
        a = drawn(disc(90, 80, 30, 40, 20), 3, np.uint8, (PALETTE["land"], PALETTE["lake"]))
        for index in range(20):
            source, target = transform(a, a, (0, 0, index))
            assert np.array_equal(source, target)
            assert {tuple(c) for c in source.reshape(-1, 3).tolist()} <= {
                tuple(PALETTE["land"]),
                tuple(PALETTE["lake"]),
            }

    def test_half_are_turned_zoomed_and_shifted_within_their_limits(self):
        """An affine map is fitted to where pixels come from."""
        augmentation = build_augmentation("strong", 64, load_size=64, flip=False, info={})
        places = np.moveaxis(np.indices((64, 64), dtype=np.float32), 0, 2)
        inner = np.indices((24, 24)).reshape(2, -1).T + 20.0  # what is reflected at the borders follows no affine map
        turns, zooms, shifts = [], [], []
        for index in range(300):
            moved = ImageTransform(augmentation)(places, (0, 0, index))[20:44, 20:44].reshape(-1, 2)
            (a, b), (c, d), _ = fit = np.linalg.lstsq(np.c_[inner, np.ones(len(inner))], moved, rcond=None)[0]
            assert np.abs(np.c_[inner, np.ones(len(inner))] @ fit - moved).max() < 0.1
            turns.append(np.degrees(np.arctan2(b - c, a + d)))
            zooms.append(1 / np.sqrt(a * d - b * c))
            assert np.allclose((a, b), (d, -c), atol=0.01)  # no shear, and one zoom for height and width
            shifts.append(np.array([31.5, 31.5, 1]) @ fit - 31.5)
        still = np.abs(turns) < 1e-6
        assert 115 <= still.sum() <= 185  # four standard deviations are 35
        assert 9 < max(turns) < 10.1
        assert -10.1 < min(turns) < -9
        assert 0.89 < min(zooms) < 0.92
        assert 1.08 < max(zooms) < 1.11
        assert 2.5 < np.abs(shifts).max() < 3.2 * 1.2  # 5% of 64, in the scale of the original

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_borders_are_reflected_and_not_filled(self, dtype):
        augmentation = build_augmentation("strong", 64, load_size=64, info={})
        image = np.full((64, 64, 5), 0.5 * FULL_RANGE[np.dtype(dtype)]).astype(dtype)
        for index in range(40):
            moved = ImageTransform(augmentation)(image, (0, 0, index))
            assert np.abs(moved.astype(float) - image).max() <= 1e-6 * FULL_RANGE[np.dtype(dtype)] + (
                dtype != np.float32
            )

    def test_color_jitter_changes_the_source_alone_and_a_little(self):
        transform = PairTransform(
            replace(build_augmentation("strong", 32, load_size=32, info={}), jitter=None, flip=False)
        )
        image = np.random.default_rng(0).integers(60, 190, (32, 32, 3), dtype=np.uint8)
        changes = []
        for index in range(30):
            source, target = transform(image, image, (0, 0, index))
            assert np.array_equal(target, image)
            assert np.array_equal(source, transform(image, image, (0, 0, index))[0])
            changes.append(np.abs(source.astype(int) - image).mean())
        assert 3 < np.mean(changes) < 40
        assert np.ptp(changes) > 3

    @pytest.mark.parametrize(
        ("channels", "dtype", "palette"),
        [(5, np.uint8, {}), (3, np.uint16, {}), (3, np.float32, {}), (3, np.uint8, {"grey": [9, 9, 9]})],
    )
    def test_color_jitter_needs_8_bit_gray_or_color(self, channels, dtype, palette):
        augmentation = replace(build_augmentation("strong", 32, load_size=32, info={"legend": palette}), jitter=None)
        image = np.full((32, 32, channels), 9, dtype)
        for index in range(10):
            source, _ = PairTransform(augmentation)(image, image, (0, 0, index))
            assert np.array_equal(source, image)
        assert not PairTransform(augmentation).changes_color(image)

    @pytest.mark.parametrize("palette", [{}, PALETTE])
    def test_cached_images_are_augmented_equally(self, palette):
        transform = PairTransform(build_augmentation("strong", 32, info={"legend": palette}))
        a = drawn(disc(90, 80, 30, 40, 20), 3, np.uint8, (PALETTE["land"], PALETTE["lake"]))
        b = np.random.default_rng(0).random((90, 80, 2), np.float32)
        for index in range(10):
            at_once = transform(a, b, (0, 0, index))
            kept = transform(transform.resize(a), transform.resize(b), (0, 0, index))
            assert all(np.array_equal(x, y) for x, y in zip(at_once, kept, strict=True))

    def test_a_large_image_is_cropped_before_rotation_and_fully_covered(self, monkeypatch):
        Affine = augment._albumentations().Affine
        turned, apply = set(), Affine.apply

        def spy(affine, image, **arguments):
            turned.add(image.shape[:2])
            return apply(affine, image, **arguments)

        monkeypatch.setattr(Affine, "apply", spy)
        transform = ImageTransform(build_augmentation("strong", 16, load_size=0, info={}))
        places = np.moveaxis(np.indices((90, 70), dtype=np.float32), 0, 2)
        seen = [transform(places, (0, 0, index)).reshape(-1, 2) for index in range(300)]
        assert turned == {(32, 32)}
        assert np.array([piece.min(axis=0) for piece in seen]).min(axis=0).max() < 2
        assert (np.array([piece.max(axis=0) for piece in seen]).max(axis=0) >= (86, 66)).all()


class Pairs(Dataset):
    def __init__(self):
        self.transform = PairTransform(build_augmentation("strong", 16, info={}))

    def __getitem__(self, key):
        a = np.random.default_rng(key[1]).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        return torch.from_numpy(np.stack(self.transform(a, a, (9, *key))))


@pytest.mark.parametrize("method", [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()])
@pytest.mark.slow
def test_worker_processes_change_nothing(method):
    def batches(workers):
        sampler = ResumableBatchSampler(7, 2, seed=1, stop_step=6)
        context = method if workers else None
        return list(DataLoader(Pairs(), batch_sampler=sampler, num_workers=workers, multiprocessing_context=context))

    for alone, together in zip(batches(0), batches(2), strict=True):
        assert torch.equal(alone, together)
