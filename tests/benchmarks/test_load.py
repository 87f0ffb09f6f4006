"""The loaders that are compared do the same work, and the figures are those of the passes."""

import multiprocessing

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import load
from benchmarks.load import PlainPairs, draw_pairs, measure_listing, our_batches, plain_batches, summarize, time_passes
from ganvas.data.decode_cache import temporary_decode_cache


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return draw_pairs(tmp_path_factory.mktemp("load") / "pairs", 2)


def test_pairs_are_jpegs_of_the_size_and_weight_of_published_maps(pairs):
    for file in (pairs / "train").iterdir():
        with Image.open(file) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (1200, 600), "RGB")
        assert 100_000 < file.stat().st_size < 500_000


def test_both_loaders_return_the_same_shapes_and_range(pairs):
    with temporary_decode_cache(10**7) as cache:
        ours = list(our_batches(pairs, 2, 0, cache, 2))
    plain = list(plain_batches(sorted((pairs / "train").iterdir()), 0, 2))
    assert len(ours) == len(plain) == 4
    for batch in ours + plain:
        for side in ("source", "target"):
            assert batch[side].shape == (1, 3, 256, 256)
            assert batch[side].dtype == torch.float32
            assert -1 <= batch[side].min() < -0.2 < 0.2 < batch[side].max() <= 1


def test_the_plain_loader_keeps_its_pairs_aligned_and_moves_them(tmp_path):
    half = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(np.concatenate([half, half], axis=1)).save(tmp_path / "x.png")
    data = PlainPairs([tmp_path / "x.png"])
    seen = [data[0] for _ in range(8)]
    assert all(torch.equal(pair["source"], pair["target"]) for pair in seen)
    assert not all(torch.equal(pair["source"], seen[0]["source"]) for pair in seen)


def test_rates_and_ratios_are_medians_over_the_turns():
    plain, ours = [(2.0, 4.0), (4.0, 4.0), (8.0, 4.0)], [(1.0, 0.5), (2.0, 0.5), (2.0, 0.25)]  # cold and warm seconds
    result = summarize(plain, ours, 2)
    assert (result["cold"]["plain"], result["cold"]["ganvas"], result["cold"]["ratio"]) == (2 / 4, 2 / 2, 2)
    assert (result["warm"]["plain"], result["warm"]["ganvas"], result["warm"]["ratio"]) == (2 / 4, 2 / 0.5, 8)


def test_the_first_pass_is_timed_apart_from_the_others(monkeypatch):
    clock = iter([10.0, 14.0, 15.0, 18.0])
    monkeypatch.setattr(load.time, "perf_counter", lambda: next(clock))
    batches = [{"source": torch.empty(1, 3, 256, 256)}] * 6
    assert time_passes(batches, 2) == (4, 2)


def test_both_loaders_keep_their_processes_from_pass_to_pass(pairs, monkeypatch):
    begun = []
    original = multiprocessing.Process.start
    monkeypatch.setattr(multiprocessing.Process, "start", lambda process: (begun.append(process), original(process)))
    files = sorted((pairs / "train").iterdir())
    assert len(list(plain_batches(files, 1, 3))) == 6
    assert len(begun) == 1
    with temporary_decode_cache(10**7) as cache:
        assert len(list(our_batches(pairs, 2, 1, cache, 3))) == 6
    assert len(begun) == 2


@pytest.mark.slow
def test_a_listing_reports_pairs_time_and_memory():
    for result, layout in zip(measure_listing(2000), ("train", "trainA and trainB"), strict=True):
        assert result["layout"] == layout
        assert result["pairs"] == 2000
        assert 0 < result["seconds"] < 1
        assert 0.05 < result["peak_mb"] < 20
