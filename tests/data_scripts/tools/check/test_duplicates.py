"""Near-duplicates: copies with common changes are found, and nothing else."""

import io

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from data_scripts.tools.check.duplicates import (
    BITS,
    Sample,
    find_near_duplicates,
    is_plain,
    likeness,
    perceptual_hash,
    thumbnail,
)


def scene(seed, size=128):
    """A image with the spectrum of photographs, [H, W, 3]: amplitudes fall with the frequency."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    spectrum = np.fft.fft2(rng.standard_normal((size, size, 3)), axes=(0, 1)) / (frequency + 1 / size)[..., None]
    values = np.fft.ifft2(spectrum, axes=(0, 1)).real
    values[:, :, 1:] = values[:, :, 1:] * 0.4 + values[:, :, :1]  # colors of a place go together
    return ((values - values.min()) / np.ptp(values) * 255).astype(np.uint8)


def compressed(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=20)
    return np.asarray(Image.open(buffer))


def framed(image):
    """Somewhat smaller, on black."""
    small = cv2.resize(image, (122, 122), interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(small, 3, 3, 3, 3, cv2.BORDER_CONSTANT)


CHANGES = {
    "compressed": compressed,
    "scaled": lambda image: cv2.resize(image, (57, 91), interpolation=cv2.INTER_AREA),
    "brighter": lambda image: np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(1.3)),
    "flatter": lambda image: np.asarray(ImageEnhance.Contrast(Image.fromarray(image)).enhance(0.5)),
    "gray": lambda image: np.asarray(Image.fromarray(image).convert("L"))[:, :, None],
    "sepia": lambda image: (image.mean(axis=2, keepdims=True) * [1, 0.8, 0.5]).astype(np.uint8),
    "deeper": lambda image: image.astype(np.uint16) * 16,
    "of other units": lambda image: image.astype(np.float32) * 40 - 300,
    "shifted": lambda image: np.roll(image, (1, -2), axis=(0, 1)),
    "framed": framed,
}


def samples_of(images, splits=None, contents=None):
    """Samples of one image each, and their views."""
    splits = splits or ["train"] * len(images)
    contents = contents or [str(index) for index in range(len(images))]
    samples = [
        Sample(str(index), split, (content,), (index,))
        for index, (split, content) in enumerate(zip(splits, contents, strict=True))
    ]
    return samples, np.stack([thumbnail(image) for image in images])


@pytest.mark.parametrize("change", CHANGES)
def test_a_modified_copy_is_the_only_match(change):
    images = [scene(seed) for seed in range(25)]
    (found,) = find_near_duplicates(*samples_of([*images, CHANGES[change](images[7])]))
    assert (found.first, found.second) == ("7", "25")
    assert 0 <= found.bits <= 16
    assert 0.75 <= found.likeness <= 1


@pytest.mark.slow
def test_unrelated_images_do_not_match():
    assert find_near_duplicates(*samples_of([scene(seed) for seed in range(200)])) == []


def test_best_matches_come_first():
    images = [scene(1), scene(2)]
    images += [framed(images[0]), compressed(images[1])]
    found = find_near_duplicates(*samples_of(images))
    assert [(each.first, each.second) for each in found] == [("1", "3"), ("0", "2")]
    assert found[0].bits <= found[1].bits


def test_identical_files_are_not_near_duplicates():
    one = scene(1)
    images = [one, one, compressed(one), CHANGES["brighter"](one)]
    samples, views = samples_of(images, ["train", "train", "test", "train"], ["same", "same", "x", "y"])
    found = {(each.first, each.second): each.across_splits for each in find_near_duplicates(samples, views)}
    assert found == {("0", "2"): True, ("1", "2"): True, ("2", "3"): True, ("0", "3"): False, ("1", "3"): False}


@pytest.mark.parametrize("block", [1, 70])
def test_the_size_of_blocks_changes_nothing(monkeypatch, block):
    images = [scene(seed) for seed in range(12)]
    samples, views = samples_of([*images, *map(compressed, images)])
    monkeypatch.setattr("data_scripts.tools.check.duplicates.BLOCK", block)
    found = {(int(each.first), int(each.second)) for each in find_near_duplicates(samples, views)}
    assert found == {(index, index + 12) for index in range(12)}


def test_frames_of_a_video_are_listed_without_every_pair():
    rng = np.random.default_rng(1)
    frames = [np.clip(scene(1) + rng.normal(0, 4, (128, 128, 3)), 0, 255).astype(np.uint8) for _ in range(40)]
    found = find_near_duplicates(*samples_of(frames))
    assert {name for each in found for name in (each.first, each.second)} == {str(index) for index in range(40)}
    assert 39 <= len(found) <= 40 * 8 < 40 * 39 / 2


class TestPairs:
    def found(self, *pairs):
        rows = [thumbnail(image) for pair in pairs for image in pair]
        samples = [Sample(str(n), "train", (str(n),), (2 * n, 2 * n + 1)) for n in range(len(pairs))]
        return [(each.first, each.second) for each in find_near_duplicates(samples, np.stack(rows))]

    def test_both_images_of_a_pair_must_match(self):
        a, b = scene(1), scene(2)
        assert self.found((a, b), (compressed(a), compressed(b))) == [("0", "1")]
        assert self.found((a, b), (compressed(a), scene(3))) == []
        assert self.found((a, b), (scene(3), compressed(b))) == []

    def test_plain_images_are_ignored(self):
        a, sea = scene(1), np.full((64, 64, 3), 200, np.uint8)
        assert self.found((a, sea), (compressed(a), sea)) == [("0", "1")]
        assert self.found((sea, a), (sea, compressed(a))) == [("0", "1")]
        assert self.found((a, sea), (compressed(a), scene(2))) == []
        assert self.found((sea, sea), (sea, sea)) == []

    def test_the_similarity_is_that_of_the_less_similar_image(self):
        a, b = scene(1), scene(2)
        rows = np.stack([thumbnail(image) for image in (a, b, a, framed(b))])
        samples = [Sample(str(n), "train", (str(n),), (2 * n, 2 * n + 1)) for n in range(2)]
        (found,) = find_near_duplicates(samples, rows)
        assert found.likeness == pytest.approx(likeness(rows[1], rows[3]), abs=1e-3)
        assert found.likeness < likeness(rows[0], rows[2])

    def test_an_image_is_not_compared_with_a_pair(self):
        rows = np.stack([thumbnail(scene(1))] * 3)
        samples = [Sample("0", "train", ("x",), (0,)), Sample("1", "train", ("y",), (1, 2))]
        assert find_near_duplicates(samples, rows) == []


class TestMeasures:
    @hypothesis.given(st.integers(0, 1000), st.integers(0, 1000))
    def test_the_product_of_codes_counts_the_bits_that_differ(self, one, other):
        noise = [np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8) for seed in (one, other)]
        first, second = map(perceptual_hash, noise)
        assert set(first.tolist()) == {-1, 1}
        assert (first > 0).sum() == BITS // 2  # the median parts them
        assert (BITS - first @ second) / 2 == (first != second).sum()

    def test_similarity_is_near_one_for_a_shift_and_low_otherwise(self):
        one = thumbnail(scene(1))
        assert likeness(one, one) == pytest.approx(1, abs=0.01)
        assert 0.8 <= likeness(one, np.roll(one, (3, 2), axis=(0, 1))) <= 1
        others = [likeness(one, thumbnail(scene(seed))) for seed in range(2, 60)]
        assert 0 <= min(others) <= max(others) < 0.5

    @pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 3), (np.uint16, 1), (np.float32, 5)])
    def test_thumbnails_are_means_of_what_they_cover(self, dtype, channels):
        values = np.random.default_rng(1).integers(0, 256, (128, 192, channels)).astype(dtype)
        values[0, 0], values[0, 1] = 0, 255  # all types span the same range
        seen = thumbnail(values)
        assert seen.dtype == np.uint8
        expected = values[:, :, :3].astype(float).reshape(64, 2, 64, 3, -1).mean(axis=(1, 3, 4))
        assert np.abs(seen - expected).max() <= 1.01

    def test_non_finite_values_are_ignored(self):
        image = scene(1).astype(np.float32)
        image[:20, :20] = np.nan
        image[-1, -1] = np.inf
        assert not is_plain(thumbnail(image))
        assert is_plain(thumbnail(np.full((9, 9, 1), np.nan, np.float32)))

    def test_a_sheet_with_a_faint_line_is_not_plain(self):
        sheet = np.full((64, 64, 1), 255, np.uint8)
        assert is_plain(thumbnail(sheet))
        sheet[30:32] = 200
        assert not is_plain(thumbnail(sheet))
