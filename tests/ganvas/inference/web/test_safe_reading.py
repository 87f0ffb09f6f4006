import os
import re
import struct
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from ganvas.data.decode import read_image, read_raster
from ganvas.data.encode import write_image
from ganvas.errors import UserError
from ganvas.inference.web.safe_reading import ReadLimits, SafeReader

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reader():
    return SafeReader(ReadLimits(100_000))


@pytest.mark.parametrize("name", ["x.png", "alpha.png", "gray.png", "deep.tif", "heights.tif", "bands.tif", "x.npy"])
def test_an_image_is_unchanged_after_it_was_rewritten(reader, tmp_path, name):
    rng = np.random.default_rng(0)
    channels = {"alpha.png": 4, "gray.png": 1, "deep.tif": 1, "heights.tif": 1, "bands.tif": 5}.get(name, 3)
    image = rng.integers(0, 256, (30, 40, channels), dtype=np.uint8)
    if name == "deep.tif":
        image = rng.integers(0, 65536, (30, 40, 1), dtype=np.uint16)
    if name == "heights.tif":
        image = rng.normal(0, 1000, (30, 40, 1)).astype(np.float32)
    write_image(tmp_path / name, image)
    (tmp_path / "out").mkdir()
    found = reader.read(tmp_path / name, tmp_path / "out")
    assert found.size == (30, 40)
    for channels in (None, image.shape[2]):
        expected = read_raster(tmp_path / name, channels)
        np.testing.assert_array_equal(read_raster(found.path, channels).array, expected.array)
    with Image.open(found.preview) as preview:
        assert (preview.size, preview.mode, preview.format) == ((40, 30), "RGB", "PNG")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_decoder_that_hangs_is_killed(tmp_path):
    os.mkfifo(tmp_path / "x.png")  # whoever opens it waits for a writer
    with pytest.raises(UserError, match=r"x\.png: takes longer to decode than 0\.5 s, the limit here"):
        SafeReader(ReadLimits(100_000, seconds=0.5)).read(tmp_path / "x.png", tmp_path)


class Crash:
    """A path that ends the process that unpickles it, as a decoder may."""

    def __reduce__(self):
        return os._exit, (3,)

    def __str__(self):
        return "crash.png"


def test_a_decoder_that_crashes_is_one_message(reader, tmp_path):
    with pytest.raises(UserError, match=r"crash\.png: cannot be decoded \(the decoder crashed"):
        reader.read(Crash(), tmp_path)


def test_without_a_fork_server_processes_are_spawned(tmp_path, monkeypatch):
    def fail():
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", fail)
    Image.new("L", (8, 6)).save(tmp_path / "x.png")
    assert SafeReader(ReadLimits(100_000)).read(tmp_path / "x.png", tmp_path).size == (6, 8)


class SlowStart:
    """A path that a process takes a second to receive."""

    def __reduce__(self):
        return time.sleep, (1,)


def test_the_start_of_a_process_does_not_count(tmp_path):
    with pytest.raises(UserError) as error:
        SafeReader(ReadLimits(100_000, seconds=0.9)).read(SlowStart(), tmp_path)
    assert "takes longer" not in str(error.value)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted on Linux")
def test_a_decoder_that_takes_too_much_memory_is_one_message(tmp_path):
    # The header of 4 GiB of pixels; the file has them, as a hole.
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 4294967296), }"
    with (tmp_path / "x.npy").open("wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        file.truncate(2**32 + file.tell())
    with pytest.raises(UserError, match=r"x\.npy: cannot be decoded"):
        SafeReader(ReadLimits(100_000)).read(tmp_path / "x.npy", tmp_path)


def huge_png(path):
    """Write the header of a PNG of 25,000 x 20,000 pixels, and almost no pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 25_000, 20_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def animation(path):
    first, *rest = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    first.save(path, save_all=True, append_images=rest)


def many_channels(path):
    """Write 400x300 pixels in a form that Pillow cannot read."""
    image = np.zeros((300, 400, 5), np.uint8)
    np.save(path, image) if path.suffix == ".npy" else write_image(path, image)


TOO_LARGE = r"has more than 100,000 pixels, the limit here\. Scale it down\."


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("huge.png", huge_png, TOO_LARGE),
        ("bands.tif", many_channels, TOO_LARGE),
        ("bands.npy", many_channels, TOO_LARGE),
        ("wide.png", (400, 300), "has 400x300 pixels; the limit here is 100,000"),
        ("high.png", (1, 2529), "has 1x2529 pixels; a side may have 2,528 here"),
        ("long.png", (2529, 2), "has 2529x2 pixels; a side may have 2,528 here"),
        ("dance.gif", animation, "is an animation"),
        ("dance.png", animation, "is an animation"),
        ("dance.webp", animation, "is an animation"),
        ("print.eps", (8, 8), "is not a readable image"),
    ],
)
def test_too_large_and_other_files_are_refused(reader, tmp_path, name, content, message):
    path = tmp_path / name
    content(path) if callable(content) else Image.new("L", content).save(path)
    with pytest.raises(UserError, match=f"{re.escape(name)}: {message}"):
        reader.read(path, tmp_path)


def test_the_largest_allowed_images_are_read(reader, tmp_path):
    for size in [(1, 2528), (400, 250)]:
        Image.new("L", size).save(tmp_path / "x.png")
        assert reader.read(tmp_path / "x.png", tmp_path).size == size[::-1]
        assert read_image(tmp_path / "source.tif").shape == (*size[::-1], 1)


def test_an_unwritable_folder_is_a_server_error(reader, tmp_path):
    from ganvas.errors import WriteError

    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError):
        reader.read(tmp_path / "x.png", tmp_path / "file" / "out")


def test_nothing_is_left_running(reader, tmp_path):
    import multiprocessing

    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    began = time.monotonic()
    reader.read(tmp_path / "x.png", tmp_path)
    assert time.monotonic() - began < reader.limits.time
    assert not multiprocessing.active_children()
