import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from ganvas.data.augment import Augmentation, PairTransform
from ganvas.data.sampling import ResumableBatchSampler
from ganvas.errors import UserError

ROOT = Path(__file__).parents[3]


def coordinates(height, width, channels, dtype):
    """A smooth picture whose value tells the place, so that equal places can be told from others."""
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
def test_both_pictures_move_alike_whatever_their_types(first, second, channels_a, channels_b, index):
    (a, scale_a), (b, scale_b) = coordinates(40, 50, channels_a, first), coordinates(40, 50, channels_b, second)
    source, target = PairTransform(Augmentation(36, 24))(a, b, (0, 1, index))
    assert source.shape == (24, 24, channels_a)
    assert target.shape == (24, 24, channels_b)
    assert (source.dtype, target.dtype) == (first, second)
    # A shift by one pixel would change the ramp by 2 / 3 / 36 = 0.018.
    assert np.abs(source[:, :, 0] / scale_a - target[:, :, 0] / scale_b).max() < 0.009


@given(st.integers(0, 1000), st.sampled_from([30, 60]), st.sampled_from([(0.0, 1.0), (-3.0, 8.0)]))
def test_scaled_floats_stay_in_their_range(index, load_size, values):
    picture = np.random.default_rng(index).choice(np.array(values, np.float32), (40, 40, 3))  # the hardest edges
    for scaled in PairTransform(Augmentation(load_size, 24))(picture, picture, (0, 0, index)):
        assert values[0] <= scaled.min() < scaled.max() <= values[1]


def test_defaults_are_the_papers():
    assert Augmentation() == Augmentation(load_size=286, crop_size=256, flip=True, colour=0.0)  # Isola et al., Sec. 6.2


def test_a_loaded_size_is_not_resampled():
    """Scaling 286 to 286 must neither blur nor cost: what is cut equals the original."""
    picture = np.random.default_rng(0).integers(0, 256, (286, 286, 3), dtype=np.uint8)
    source, target = PairTransform(Augmentation(286, 286, flip=False))(picture, picture[..., :1], (0, 0, 0))
    assert np.array_equal(source, picture)
    assert np.array_equal(target, picture[..., :1])


def test_the_library_is_told_not_to_look_for_newer_versions():
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


def test_half_are_mirrored_and_every_place_is_cut():
    a = np.stack(np.mgrid[:40, :40], axis=2).astype(np.uint8)  # each pixel holds its row and column
    transform, places, mirrored = PairTransform(Augmentation(None, 32)), set(), 0
    for index in range(400):
        source, _ = transform(a, a, (0, 0, index))
        top, left, right = source[0, 0, 0], source[0, 0, 1], source[0, -1, 1]
        mirrored += int(left > right)
        places.add((int(top), int(min(left, right))))
    assert 160 <= mirrored <= 240  # four standard deviations are 40
    assert 65 <= len(places) <= 81  # 9 x 9 places; 400 draws miss about one of them


def test_without_chance_it_only_scales():
    a = np.full((50, 30, 3), 7, np.uint8)
    for augmentation in (Augmentation(16, 16, flip=False), Augmentation(None, 30, flip=False)):
        source, target = PairTransform(augmentation)(a, a, (0, 0, 0))
        assert source.shape == (augmentation.crop_size, augmentation.crop_size, 3)
        assert (source == 7).all()
        assert (target == 7).all()


def test_colour_changes_the_source_alone():
    a = np.random.default_rng(0).integers(50, 200, (32, 32, 3), dtype=np.uint8)
    source, target = PairTransform(Augmentation(None, 32, flip=False, colour=0.5))(a, a, (0, 0, 1))
    assert np.array_equal(target, a)
    assert np.abs(source.astype(int) - a).mean() > 3
    again, _ = PairTransform(Augmentation(None, 32, flip=False, colour=0.5))(a, a, (0, 0, 1))
    assert np.array_equal(source, again)


@pytest.mark.parametrize(("channels", "dtype"), [(5, np.uint8), (3, np.uint16)])
def test_colour_without_meaning_is_refused(channels, dtype):
    a = np.zeros((32, 32, channels), dtype)
    with pytest.raises(UserError, match="--colour works on 8-bit pictures of 1 or 3"):
        PairTransform(Augmentation(None, 32, colour=0.5))(a, a, (0, 0, 0))


def test_too_small_to_cut():
    a = np.zeros((20, 40, 3), np.uint8)
    with pytest.raises(UserError, match="40x20 pixels, smaller than the 32"):
        PairTransform(Augmentation(None, 32))(a, a, (0, 0, 0))


class Pairs(Dataset):
    def __init__(self):
        self.transform = PairTransform(Augmentation(20, 16))

    def __getitem__(self, key):
        a = np.random.default_rng(key[1]).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        return torch.from_numpy(np.stack(self.transform(a, a, (9, *key))))


@pytest.mark.parametrize("method", [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()])
def test_worker_processes_change_nothing(method):
    def batches(workers):
        sampler = ResumableBatchSampler(7, 2, seed=1, stop_step=6)
        context = method if workers else None
        return list(DataLoader(Pairs(), batch_sampler=sampler, num_workers=workers, multiprocessing_context=context))

    for alone, together in zip(batches(0), batches(2), strict=True):
        assert torch.equal(alone, together)
