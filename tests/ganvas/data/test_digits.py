import gzip
import hashlib
import http.server
import struct
import threading
import tracemalloc
from functools import partial
from pathlib import Path

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from ganvas.data.digits import FILES, download, find_idx, load_idx_pair, read_idx
from ganvas.errors import UserError
from ganvas.files import HOST, remove_abandoned

NAMES = [file for files in FILES.values() for file in files]


def as_idx(array):
    """Write out the format of LeCun's page: two zeros, type 8, dimensions, big-endian sizes, values."""
    return b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_set(folder, count=3, suffix="", **replaced):
    """Write a set's four files, distinct by split; ``replaced`` gives other content by FILE with underscores."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (images, labels) in enumerate(FILES.values()):
        rng = np.random.default_rng(number)
        contents = {
            images: as_idx(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)),
            labels: as_idx(rng.integers(0, 10, count, dtype=np.uint8)),
        }
        for name, content in contents.items():
            content = replaced.get(name.replace("-", "_"), content)
            (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix == ".gz" else content)
    return folder


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """A proxy that the environment names would answer in the place of a test's own server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@given(
    array=st.integers(1, 4).flatmap(lambda n: npst.arrays(np.uint8, npst.array_shapes(min_dims=n, max_dims=n))),
    gzipped=st.booleans(),
)
def test_idx_round_trip(tmp_path_factory, array, gzipped):
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(as_idx(array)) if gzipped else as_idx(array))
    found = read_idx(path, array.ndim)
    assert found.dtype == np.uint8
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array)


@given(cut=st.integers(0, 51), gzipped=st.booleans())
def test_truncated_files_are_refused(tmp_path_factory, cut, gzipped):
    whole = as_idx(np.arange(36, dtype=np.uint8).reshape(1, 6, 6))
    assert len(whole) == 52
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(whole[:cut]) if gzipped else whole[:cut])
    with pytest.raises(UserError) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)


@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_gzip_files_are_refused(tmp_path_factory, share):
    packed = gzip.compress(as_idx(np.arange(36, dtype=np.uint8).reshape(1, 6, 6)))
    path = tmp_path_factory.mktemp("idx") / "file.gz"
    path.write_bytes(packed[: int(share * len(packed))])
    with pytest.raises(UserError, match=r"file\.gz: "):
        read_idx(path, 3)


def test_each_bad_file_has_its_message(tmp_path):
    def refusal(content, dimensions=3):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_idx(tmp_path / "file", dimensions)
        return str(caught.value)

    good = as_idx(np.zeros((2, 2, 2), np.uint8))
    assert "begins with 00 00 08 03; expected 00 00 08 01, as an idx file of labels does" in refusal(good, 1)
    assert "begins with 00 00 0d 03; expected 00 00 08 03" in refusal(b"\x00\x00\x0d\x03" + good[4:])
    assert "begins with 3c 68 74 6d; expected" in refusal(b"<html>no such page</html>")
    assert "begins with nothing; expected" in refusal(b"")
    assert "is cut short, 10 bytes of a header of 16" in refusal(good[:10])
    assert "is cut short, 23 bytes for 24 (2 x 2 x 2 values)" in refusal(good[:-1])
    assert "is too long, more than 24 bytes (2 x 2 x 2 values)" in refusal(good + b"\x00")
    assert "cannot be unpacked" in refusal(gzip.compress(good)[:-9])
    damaged = bytearray(gzip.compress(good))
    damaged[-5] ^= 255  # in the checksum
    assert "cannot be unpacked" in refusal(bytes(damaged))


def bomb(path, header, size):
    """Write a gzip file of zeros after a header; a thousandth of its size."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header)
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))


@pytest.mark.parametrize(
    ("shape", "said"),
    [((2, 3, 4), "is too long"), ((2**32 - 1,) * 3, "claims 4294967295 x"), ((2**28 + 1, 1, 1), "claims 268435457 x")],
)
def test_a_gzip_bomb_is_not_unpacked(tmp_path, shape, said):
    bomb(tmp_path / "file", b"\x00\x00\x08\x03" + struct.pack(">3I", *shape), 64 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf"file: {said}"):
            read_idx(tmp_path / "file", 3)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_missing_files_and_folders_of_that_name(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        read_idx(tmp_path / "absent", 1)
    with pytest.raises(UserError, match="cannot be read"):
        read_idx(tmp_path, 1)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", ""),
        ("mnist", "mnist"),
        ("mnist", "mnist/raw"),
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", ""),
        ("fashion-mnist", "fashion-mnist"),
        ("fashion-mnist", "FashionMNIST/raw"),
    ],
)
def test_files_are_found_in_the_usual_places(tmp_path, name, place, suffix):
    write_set(tmp_path / place, suffix=suffix)
    expected = {file: tmp_path / place / f"{file}{suffix}" for file in NAMES}
    found = find_idx(tmp_path, name)
    assert {file: path.resolve() for file, path in found.items()} == {k: v.resolve() for k, v in expected.items()}


def test_uncompressed_files_take_precedence_and_may_be_mixed(tmp_path):
    write_set(tmp_path, suffix=".gz")
    write_set(tmp_path)
    (tmp_path / NAMES[0]).unlink()
    found = find_idx(tmp_path, "mnist")
    assert [found[file].name for file in NAMES] == [f"{NAMES[0]}.gz", *NAMES[1:]]


@pytest.mark.parametrize(
    ("folder", "other"), [("mnist", "fashion-mnist"), ("FashionMNIST", "mnist"), ("MNIST", "fashion-mnist")]
)
def test_a_folder_named_like_the_other_dataset_is_not_used(tmp_path, folder, other):
    write_set(tmp_path / folder)
    assert find_idx(tmp_path / folder, other) is None
    assert find_idx(tmp_path / folder, "mnist" if other == "fashion-mnist" else "fashion-mnist") is not None


def test_three_of_four_files_are_incomplete(tmp_path):
    for missing in NAMES:
        write_set(tmp_path)
        (tmp_path / missing).unlink()
        assert find_idx(tmp_path, "mnist") is None


@pytest.mark.parametrize("place", ["", "mnist"])
def test_a_partial_dataset_names_the_missing_files_before_a_download(tmp_path, monkeypatch, place):
    write_set(tmp_path / place)
    for file in FILES["test"]:
        (tmp_path / place / file).unlink()
    monkeypatch.setattr("ganvas.data.digits.download", lambda *_: pytest.fail("nothing is to be downloaded"))
    with pytest.raises(UserError) as caught:
        load_idx_pair(tmp_path, "mnist", "train")
    missing = "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte not found with train-images-idx3-ubyte"
    assert f"{tmp_path / place}: {missing}" in str(caught.value)


def test_an_interrupted_download_is_completed(tmp_path, mirror):
    part = write_set(tmp_path / "root" / "MNIST" / "raw")
    (part / NAMES[3]).unlink()
    assert len(load_idx_pair(tmp_path / "root", "mnist", "test")[1]) == 3


def test_loads_both_splits(tmp_path):
    write_set(tmp_path, count=5, suffix=".gz")
    for number, split in enumerate(FILES):
        rng = np.random.default_rng(number)
        images, labels = load_idx_pair(tmp_path, "mnist", split)
        np.testing.assert_array_equal(images, rng.integers(0, 256, (5, 28, 28), dtype=np.uint8))
        np.testing.assert_array_equal(labels, rng.integers(0, 10, 5, dtype=np.uint8))


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        (
            {"train_labels_idx1_ubyte": as_idx(np.array([0, 10, 11], np.uint8))},
            "train-labels-idx1-ubyte: label 1 is 10; expected 0 to 9",
        ),
        ({"train_labels_idx1_ubyte": as_idx(np.zeros(4, np.uint8))}, "holds 4 labels for the 3 images"),
        (
            {"train_images_idx3_ubyte": as_idx(np.zeros((3, 28, 27), np.uint8))},
            "holds 3 images of 28 x 27 pixels; expected some of 28 x 28",
        ),
        (
            {
                "train_images_idx3_ubyte": as_idx(np.zeros((0, 28, 28), np.uint8)),
                "train_labels_idx1_ubyte": as_idx(np.zeros(0, np.uint8)),
            },
            "holds 0 images of 28 x 28 pixels",
        ),
        ({"train_images_idx3_ubyte": as_idx(np.zeros(3, np.uint8))}, "begins with 00 00 08 01; expected 00 00 08 03"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, replaced, message):
    write_set(tmp_path, **replaced)
    with pytest.raises(UserError, match=message):
        load_idx_pair(tmp_path, "mnist", "train")
    assert len(load_idx_pair(tmp_path, "mnist", "test")[0]) == 3


@pytest.mark.parametrize(("name", "mean"), [("mnist", 0.1307), ("fashion-mnist", 0.2860)])
@pytest.mark.slow
def test_published_files(published_data, name, mean):
    """The means are those that everybody normalizes these sets by."""
    images, labels = load_idx_pair(published_data, name, "train")
    assert (images.shape, labels.shape) == ((60_000, 28, 28), (60_000,))
    assert images.mean() / 255 == pytest.approx(mean, abs=1e-4)
    images, labels = load_idx_pair(published_data, name, "test")
    assert (images.shape, labels.shape) == ((10_000, 28, 28), (10_000,))
    assert np.bincount(labels, minlength=10).min() >= 892  # MNIST's fives; Fashion-MNIST has 1,000 of each


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A server of a small set, that torchvision takes for MNIST's; gives the folder that it serves."""
    from torchvision import datasets

    folder = write_set(tmp_path / "served", suffix=".gz")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    digests = {file: hashlib.md5((folder / f"{file}.gz").read_bytes()).hexdigest() for file in NAMES}
    for loader in (datasets.MNIST, datasets.FashionMNIST):
        monkeypatch.setattr(loader, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(loader, "resources", [(f"{file}.gz", digest) for file, digest in digests.items()])
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_downloads_where_torchvision_looks(tmp_path, mirror, name, folder):
    from torchvision import datasets

    root = tmp_path / "new" / "root"
    assert download(root, name) == root / folder / "raw"
    assert sorted(path.name for path in root.iterdir()) == [folder]
    for split in FILES:
        images, labels = load_idx_pair(root, name, split)
        theirs = getattr(datasets, folder)(root, train=split == "train")  # finds them without download
        np.testing.assert_array_equal(images, theirs.data.numpy())
        np.testing.assert_array_equal(labels, theirs.targets.numpy())


def test_only_missing_files_are_downloaded(tmp_path, mirror):
    images, _ = load_idx_pair(tmp_path / "root", "mnist", "train")
    assert images.shape == (3, 28, 28)
    for file in mirror.iterdir():
        file.unlink()
    again, _ = load_idx_pair(tmp_path / "root", "mnist", "train")
    np.testing.assert_array_equal(again, images)


def test_leftovers_of_killed_downloads_are_removed(tmp_path, mirror, monkeypatch):
    abandoned, living = (tmp_path / f".download-{HOST}-{number}" for number in range(2))
    for folder in (abandoned, living):
        (folder / "MNIST" / "raw").mkdir(parents=True)
        (folder / "owner.lock").touch()
        folder.chmod(0o700)
        (folder / "MNIST" / "raw" / NAMES[0]).write_bytes(b"half")
    monkeypatch.setattr("ganvas.files.YOUNG", -1)
    with FileLock(living / "owner.lock"):
        download(tmp_path, "mnist")
        assert not abandoned.exists()
        assert (living / "MNIST" / "raw" / NAMES[0]).read_bytes() == b"half"


def test_a_download_holds_its_owners_lock(tmp_path, mirror, monkeypatch):
    from torchvision import datasets

    def other_process(aside, download):
        remove_abandoned([Path(aside)])
        assert Path(aside).is_dir()
        raise ConnectionError("enough")

    monkeypatch.setattr("ganvas.files.YOUNG", -1)
    monkeypatch.setattr(datasets, "MNIST", other_process)
    with pytest.raises(UserError, match="cannot be downloaded: enough"):
        download(tmp_path, "mnist")
    assert not list(tmp_path.glob(".download-*"))


def test_a_wrong_digest_leaves_no_file(tmp_path, mirror):
    file = mirror / f"{NAMES[2]}.gz"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"(?s)mnist cannot be downloaded.*{NAMES[2]}.*corrupted.*--data mnist5k"):
        download(tmp_path / "root", "mnist")
    assert not (tmp_path / "root").exists()


def test_no_network(tmp_path, monkeypatch):
    from torchvision import datasets

    closed = http.server.HTTPServer(("127.0.0.1", 0), Quiet)
    port = closed.server_port
    closed.server_close()
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [f"http://127.0.0.1:{port}/"])
    with pytest.raises(UserError) as caught:
        load_idx_pair(tmp_path, "fashion-mnist", "train")
    message = str(caught.value)
    assert f"127.0.0.1:{port}" in message
    assert "--data mnist5k" in message
    assert all(f"{file}.gz" in message for file in NAMES)
    assert str(tmp_path / "fashion-mnist") in message
    with pytest.raises(UserError, match="cannot be downloaded"):
        load_idx_pair(tmp_path / "new", "fashion-mnist", "train")
    assert not (tmp_path / "new").exists()


def test_a_silent_server_times_out(tmp_path, monkeypatch):
    import socket

    from torchvision import datasets

    from ganvas.data import digits

    monkeypatch.setattr(digits, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts by its backlog, and never answers
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        with pytest.raises(UserError, match=r"(?s)timed out.*--data mnist5k"):
            download(tmp_path, "mnist")
    assert socket.getdefaulttimeout() is None


def test_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be written"):
        download(tmp_path / "file", "mnist")
