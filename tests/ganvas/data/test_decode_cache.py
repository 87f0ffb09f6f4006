"""The cache of decoded images."""

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganvas.data.decode_cache import PREFIX, file_key, get_or_decode, temporary_decode_cache
from ganvas.files import HOST


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def left_behind(folder):
    return sorted(folder.glob(f"{PREFIX}*"))


def image(number, shape=(6, 5, 3), dtype=np.uint8):
    return (np.random.default_rng(number).random(shape) * 255).astype(dtype)


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
kinds = st.tuples(shapes, st.sampled_from(["u1", "<u2", "<f4"]))


@given(st.lists(st.lists(kinds, min_size=1, max_size=3), max_size=8))
def test_images_of_all_dtypes_and_shapes_are_returned_unchanged(records):
    originals = {str(key): [image(key, shape, dtype) for shape, dtype in kinds] for key, kinds in enumerate(records)}
    with temporary_decode_cache(10**6) as cache:
        for key, images in originals.items():
            assert cache.get(key) is None
            cache.add(key, images)
        for reader in (cache, pickle.loads(pickle.dumps(cache))):
            for key, images in originals.items():
                found = reader.get(key)
                for one, other in zip(images, found, strict=True):
                    assert other.dtype == one.dtype
                    assert other.flags.aligned
                    assert np.array_equal(one, other)


def test_files_never_exceed_the_capacity_and_smaller_images_still_fit(tmp_path):
    with temporary_decode_cache(9_000) as cache:
        cache.add("large", [image(0, (50, 50, 3))])  # 7,500 bytes
        cache.add("too large", [image(1, (50, 50, 3))])
        cache.add("small", [image(2, (10, 10, 3))])
        assert cache.get("too large") is None
        assert np.array_equal(cache.get("small")[0], image(2, (10, 10, 3)))
        assert np.array_equal(cache.get("large")[0], image(0, (50, 50, 3)))
        (folder,) = left_behind(tmp_path)
        assert 7_800 < sum(file.stat().st_size for file in folder.iterdir()) <= 9_000


@pytest.mark.parametrize(("wanted", "free", "fits"), [(10**30, 400, False), (10**30, 800, True), (200, 800, False)])
def test_half_of_the_free_disk_space_is_left_to_others(monkeypatch, wanted, free, fits):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    with temporary_decode_cache(wanted) as cache:
        cache.add("x", [image(0)])  # 90 bytes: 128, and 64 of the header
        cache.add("y", [image(1)])
        assert [cache.get(key) is not None for key in "xy"] == [wanted > 200 or free > 400, fits]


def test_cached_images_are_not_decoded_again():
    made = []

    def make():
        made.append(1)
        return [image(3)]

    with temporary_decode_cache(10**6) as cache:
        results = [get_or_decode(each, "key", make) for each in (cache, cache, None)]
    assert len(made) == 2
    assert all(np.array_equal(result[0], image(3)) for result in results)


def test_a_changed_or_missing_file_has_another_key(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"12")
    os.utime(file, ns=(1, 1))
    seen = {file_key(file)}
    os.utime(file, ns=(1, 2))
    seen.add(file_key(file))
    file.write_bytes(b"123")
    os.utime(file, ns=(1, 2))
    seen.add(file_key(file))
    file.unlink()
    seen.add(file_key(file))
    assert len(seen) == 4


def fill(cache, first, barrier):
    barrier.wait()
    for number in range(first, first + 60):
        key = number % 80
        (found,) = get_or_decode(cache, str(key), lambda key=key: [image(key, (20, 20, 3))])
        assert np.array_equal(found, image(key, (20, 20, 3)))


@pytest.mark.parametrize("method", sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods())))
@pytest.mark.slow
def test_processes_fill_one_cache_together(tmp_path, method):
    context = multiprocessing.get_context(method)
    with temporary_decode_cache(10**6) as cache:
        cache.add("before", [image(99)])  # what the parent has open, its children get
        barrier = context.Barrier(3)
        processes = [context.Process(target=fill, args=(cache, 20 * i, barrier)) for i in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
        for key in range(80):
            assert np.array_equal(cache.get(str(key))[0], image(key, (20, 20, 3)))
        (folder,) = left_behind(tmp_path)
        used = sum(file.stat().st_size for file in folder.iterdir() if len(file.name) == 32)
        assert int((folder / "used").read_text()) == used  # no image was written twice


ENDLESS = """
import sys, tempfile
import numpy as np
from ganvas.data.decode_cache import DecodeCache, temporary_decode_cache
tempfile.tempdir = sys.argv[1]
with temporary_decode_cache(10**8, lambda name: sys.argv[2]) as cache:
    print("ready", flush=True)
    for number in range(10**6):
        cache.add(str(number), [np.full((50, 50, 3), number % 256, np.uint8)])
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such kill")
@pytest.mark.slow
def test_a_process_killed_while_it_writes_leaves_complete_files_that_the_next_run_removes(tmp_path, monkeypatch):
    name = f"{PREFIX}{HOST}-killed"
    victim = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path), name],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    victim.stdout.readline()
    time.sleep(0.2)
    with temporary_decode_cache(10**8, lambda _: name) as cache:  # another process of the same run
        victim.send_signal(signal.SIGKILL)
        victim.communicate()
        cache.add("mine", [image(0)])
        assert np.array_equal(cache.get("mine")[0], image(0))
        found = 0
        while (images := cache.get(str(found))) is not None:
            assert (images[0] == found % 256).all()
            found += 1
        assert found > 0
    # It was the victim's to remove.
    assert [folder.name for folder in left_behind(tmp_path)] == [name]
    with temporary_decode_cache(1000):
        assert (tmp_path / name).exists()  # young folders are left alone: their owner may be about to lock them
    monkeypatch.setattr("ganvas.files.YOUNG", 0)
    with temporary_decode_cache(1000):
        assert not (tmp_path / name).exists()


def test_the_cache_of_a_running_training_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("ganvas.files.YOUNG", 0)
    with temporary_decode_cache(10**6) as first:
        first.add("x", [image(1)])
        with temporary_decode_cache(10**6) as second:
            assert second.get("x") is None
            assert len(left_behind(tmp_path)) == 2
        assert np.array_equal(first.get("x")[0], image(1))
        assert len(left_behind(tmp_path)) == 1
    assert left_behind(tmp_path) == []


def test_processes_of_one_run_share_a_cache(tmp_path):
    with temporary_decode_cache(10**6, lambda _: f"{PREFIX}ours") as first:
        first.add("x", [image(1)])
        with temporary_decode_cache(10**6, lambda _: f"{PREFIX}ours") as second:
            assert np.array_equal(second.get("x")[0], image(1))
        assert np.array_equal(first.get("x")[0], image(1))  # only its maker removes it
    assert left_behind(tmp_path) == []


def test_a_full_disk_or_a_missing_folder_ends_only_the_caching(tmp_path, monkeypatch):
    with temporary_decode_cache(10**6) as cache:
        cache.add("x", [image(1)])

        def full(*arguments):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", full)
            cache.add("y", [image(2)])
        assert cache.get("y") is None
    with temporary_decode_cache(10**6, lambda _: "no/such/folder") as cache:
        cache.add("x", [image(1)])
        assert cache.get("x") is None
