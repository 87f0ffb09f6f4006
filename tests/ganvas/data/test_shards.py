"""Tar shards: the pairs in them, and everything that can be wrong with them."""

import io
import json
import os
import struct
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from ganvas.data import shards as shards_module
from ganvas.data.augment import Augmentation
from ganvas.data.decode_cache import temporary_decode_cache
from ganvas.data.layout import splits
from ganvas.data.paired import PairedDataset
from ganvas.data.pairs import find_pairs
from ganvas.errors import UserError


def encoded(value, size=(8, 6), kind="png"):
    content = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(content, kind)
    return content.getvalue()


def write_tar(path, members, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def gray(image):
    return int(image[0, 0, 0])


@pytest.fixture
def root(tmp_path):
    """Two shards of pairs in two files, with values 0, 1, 2 and 100 more for the target."""
    for shard, numbers in ((0, (2, 0)), (1, (1,))):
        members = [("readme.txt", b"nothing")]
        for number in numbers:
            members += [
                (f"{number}.a.png", encoded(number)),
                (f"{number}.json", b"{}"),
                (f"{number}.b.webp", encoded(100 + number, kind="webp")),
            ]
        write_tar(tmp_path / f"train-{shard:06d}.tar", members)
    return tmp_path


def test_pairs_are_in_the_order_of_the_shard(root):
    assert splits(root) == ["train"]
    pairs = find_pairs(root, "train")
    assert [pair.name for pair in pairs] == ["2", "0", "1"]
    assert pairs.shard_sizes == (2, 1)
    data = PairedDataset(root, "train", augmentation=None)
    values = [tuple(gray(image) for image in data.pair(index)) for index in range(3)]
    assert values == [(2, 102), (0, 100), (1, 101)]
    back = PairedDataset(root, "train", augmentation=None, direction="b2a")
    assert gray(back.pair(0)[0]) == 102


def test_images_side_by_side_and_in_folders_of_the_archive(tmp_path):
    both = np.concatenate([np.full((6, 8, 3), value, np.uint8) for value in (7, 9)], axis=1)
    content = io.BytesIO()
    Image.fromarray(both).save(content, "png")
    write_tar(tmp_path / "val-x.tar", [("./deep/one.png", content.getvalue()), ("../../two.png", content.getvalue())])
    data = PairedDataset(tmp_path, "val", augmentation=None)
    assert [gray(image) for image in data.pair(0)] == [7, 9]
    assert [data.name(index) for index in range(2)] == ["._deep_one", ".._.._two"]  # never a path that leads out


def test_shards_and_files_return_the_same_images(root, tmp_path):
    for number in range(3):
        for side, kind, value in (("A", "png", number), ("B", "webp", 100 + number)):
            folder = tmp_path / "files" / f"train{side}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.{kind}").write_bytes(encoded(value, kind=kind))
    options = {"augmentation": Augmentation(6, 6, flip=False)}  # the same for all keys
    with temporary_decode_cache(10**6) as cache:
        sharded = PairedDataset(root, "train", **options, cache=cache)
        files = PairedDataset(tmp_path / "files", "train", **options)
        for _ in range(2):
            for index in range(3):
                found, expected = sharded[0, index], files[0, int(sharded.name(index))]
                assert torch.equal(found["source"], expected["source"])
                assert torch.equal(found["target"], expected["target"])


def test_all_formats_can_be_read_from_a_shard(tmp_path):
    array = io.BytesIO()
    np.save(array, np.full((4, 8, 5), 3, np.uint16))
    tiff = io.BytesIO()
    Image.fromarray(np.full((4, 8), 5, np.uint16)).save(tiff, "tiff")
    write_tar(tmp_path / "train-0.tar", [("x.npy", array.getvalue())])
    assert (
        PairedDataset(tmp_path, "train", augmentation=None, source_channels=5, target_channels=5).pair(0)[0].max() == 3
    )
    write_tar(tmp_path / "val-0.tar", [("x.tif", tiff.getvalue())])
    assert PairedDataset(tmp_path, "val", augmentation=None).pair(0)[0].dtype == np.uint16


class TestIndex:
    def test_the_index_is_saved_and_used(self, root, monkeypatch):
        before = [pair.a for pair in find_pairs(root, "train")]
        assert (root / "train-000000.tar.index.json").is_file()
        monkeypatch.setattr(shards_module, "_scan", lambda *_: pytest.fail("the index was not used"))
        assert [pair.a for pair in find_pairs(root, "train")] == before

    def test_a_changed_shard_is_indexed_again(self, root):
        find_pairs(root, "train")
        write_tar(root / "train-000001.tar", [("5.a.png", encoded(5)), ("5.b.png", encoded(6))])
        assert [pair.name for pair in find_pairs(root, "train")] == ["2", "0", "5"]

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"format_version": 1}', '{"size": "x"}'])
    def test_a_damaged_index_is_rebuilt(self, root, content):
        find_pairs(root, "train")
        index = root / "train-000000.tar.index.json"
        index.write_text(content)
        assert len(find_pairs(root, "train")) == 3
        assert json.loads(index.read_text())["names"] == ["2.a.png", "2.b.webp", "0.a.png", "0.b.webp"]

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="folders cannot be locked against this user")
    def test_a_read_only_folder_is_no_error(self, root):
        root.chmod(0o500)
        try:
            assert len(find_pairs(root, "train")) == 3
            assert not list(root.glob("*.json"))
        finally:
            root.chmod(0o700)

    def test_an_unwritable_index_is_no_error(self, root, monkeypatch):
        def full(path, content):
            raise UserError(f"{path}: No space left on device")

        monkeypatch.setattr(shards_module, "write_file", full)
        assert len(find_pairs(root, "train")) == 3


def header(name, size, kind=b"0"):
    """Build a header of 512 bytes; sizes beyond octal digits are written in base 256, as GNU tar does."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"%011o\0" % size if 0 <= size < 8**11 else b"\xff" * 4 + struct.pack(">q", size)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(**fields):
    """Build an extended header that says something else of the next one."""
    records = b""
    for key, value in fields.items():
        record = f" {key}={value}\n".encode()
        length = len(record) + len(str(len(record) + 3))
        records += str(length).encode() + record
    return header("pax", len(records), tarfile.XHDTYPE) + records.ljust(-(-len(records) // 512) * 512, b"\0")


def long_name(name):
    content = name.encode() + b"\0"
    return header("././@LongLink", len(content), tarfile.GNUTYPE_LONGNAME) + content.ljust(512, b"\0")


HOSTILE = {
    "a size of -512": header("x.png", 0) + header("y.png", -512),
    "a size of -1024 at the beginning": header("x.png", -1024),
    "an endless chain of long names": long_name("x") * 3000 + header("x.png", 0),
    "a name of 4 GB": header("././@LongLink", 2**32, tarfile.GNUTYPE_LONGNAME) + bytes(1024),
    "a name of -512 bytes": header("x.png", 0) + header("././@LongLink", -512, tarfile.GNUTYPE_LONGNAME) + bytes(1024),
    "pax with a size of -512": header("x.png", 0) + pax(size=-512) + header("y.png", 0),
    "pax with a size that leads back": header("x.png", 0) + pax(size=-2048) + header("y.png", 0),
    "a sparse map of -1 entries": pax(**{"GNU.sparse.major": 1, "GNU.sparse.minor": 0})
    + header("y.png", 512)
    + b"x" * 512,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_invalid_headers_are_one_message(tmp_path, content):
    (tmp_path / "train-0.tar").write_bytes(content + bytes(1024))
    with pytest.raises(
        UserError, match=r"train-0\.tar: (is not a readable uncompressed tar file|ends in the midst|holds no images)"
    ):
        find_pairs(tmp_path, "train")


@pytest.mark.parametrize("through", ["headers", "index"])
def test_an_overlong_name_is_refused(root, tmp_path, through):
    """Messages name the image that they are about."""
    if through == "headers":
        (tmp_path / "train-0.tar").write_bytes(
            header("x", 2**16, tarfile.GNUTYPE_LONGNAME) + b"x" * 65_530 + b".png\0\0"
        )
        with (tmp_path / "train-0.tar").open("ab") as file:
            file.write(header("y", 0) + bytes(1024))
        with pytest.raises(UserError, match=r"train-0\.tar: has an image whose name is 65534 characters long"):
            find_pairs(tmp_path, "train")
    else:
        find_pairs(root, "train")
        index = root / "train-000000.tar.index.json"
        good = json.loads(index.read_text())
        index.write_text(json.dumps(good | {"names": ["x" * 2000 + name for name in good["names"]]}))
        assert [pair.name for pair in find_pairs(root, "train")] == ["2", "0", "1"]


def test_the_headers_of_these_tests_are_valid(tmp_path):
    """Else the tests of bad ones would show nothing."""
    image = encoded(7, (16, 6))
    body = image.ljust(-(-len(image) // 512) * 512, b"\0")
    content = header("a.png", len(image)) + body + long_name("b.png") + header("y", len(image)) + body
    content += pax(size=len(image)) + header("c.png", 0) + body
    (tmp_path / "train-0.tar").write_bytes(content + bytes(1024))
    data = PairedDataset(tmp_path, "train", augmentation=None)
    assert [data.name(index) for index in range(len(data))] == ["a", "b", "c"]
    assert [gray(data.pair(index)[0]) for index in range(3)] == [7, 7, 7]


@pytest.mark.parametrize(
    "change",
    [
        {"places": [[512, -1], [1536, 5], [3072, 5], [4096, 5]]},
        {"places": [[-512, 10]] * 4},
        {"places": [[0, 2**62]] * 4},
        {"places": [[2**62, 2**62]] * 4},
        {"places": [[10**30, 1]] * 4},
        {"places": [[0.5, 1.5], [0], [0], [0]]},
        {"places": {}},
        {"places": [[512, 5]]},
        {"names": ["2.a.png"]},
        {"names": ["2.a.png", "2.b.png", 5, "0.b.png"]},
        {"names": ["2.a./../../../../tmp/x", "2.b.png", "0.a.png", "0.b.png"]},
        {"names": "abcd"},
    ],
)
def test_a_forged_index_is_ignored(root, change):
    find_pairs(root, "train")
    index = root / "train-000000.tar.index.json"
    good = json.loads(index.read_text())
    index.write_text(json.dumps(good | change))
    assert [pair.name for pair in find_pairs(root, "train")] == ["2", "0", "1"]
    assert json.loads(index.read_text()) == good


class TestBadShards:
    def refused(self, root, *message):
        with pytest.raises(UserError) as caught:
            find_pairs(root, "train")
        for words in message:
            assert words in str(caught.value)

    def test_a_missing_partner(self, tmp_path):
        members = [(f"{name}.a.png", b"") for name in "vwxyz"] + [("z.b.png", b"")]
        write_tar(tmp_path / "train-0.tar", members)
        self.refused(tmp_path, "train-0.tar: images without a partner in this shard (v.a, w.a, x.a and 1 more)")

    def test_both_layouts_of_pairs_in_one_shard(self, tmp_path):
        write_tar(tmp_path / "train-0.tar", [("x.a.png", b""), ("x.b.png", b""), ("y.png", b"")])
        self.refused(tmp_path, "without a partner in this shard (y)")
        write_tar(tmp_path / "train-0.tar", [("x.a.png", b""), ("x.b.png", b"")])
        write_tar(tmp_path / "train-1.tar", [("y.png", b"")])
        self.refused(tmp_path, "some shards hold NAME.a and NAME.b, others A|B images")

    def test_one_name_twice(self, tmp_path):
        write_tar(tmp_path / "train-0.tar", [("x.png", b""), ("x.jpg", b"")])
        self.refused(tmp_path, "x.png and x.jpg differ only in the suffix")

    def test_no_images(self, tmp_path):
        write_tar(tmp_path / "train-0.tar", [("x.txt", b"")])
        self.refused(tmp_path, "train-0.tar: holds no images")

    def test_together_with_another_layout(self, root):
        (root / "trainA").mkdir()
        self.refused(root, "more than one layout")

    def test_no_tar(self, tmp_path):
        (tmp_path / "train-0.tar").write_bytes(b"not a tar" * 100)
        self.refused(tmp_path, "train-0.tar: is not a readable uncompressed tar file")

    def test_a_compressed_tar(self, tmp_path):
        with tarfile.open(tmp_path / "train-0.tar", "w:gz") as tar:
            tar.addfile(tarfile.TarInfo("x.png"))
        self.refused(tmp_path, "train-0.tar: is not a readable uncompressed tar file")

    def test_a_truncated_shard(self, root):
        shard = root / "train-000000.tar"
        whole = shard.read_bytes()
        for length in (700, 1600, 2000):
            shard.write_bytes(whole[:length])
            self.refused(root, "train-000000.tar")

    def test_links_and_devices_are_ignored(self, tmp_path):
        with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
                info = tarfile.TarInfo(f"{kind.decode()}.png")
                info.type, info.linkname = kind, "/etc/passwd"
                tar.addfile(info)
        self.refused(tmp_path, "holds no images")

    def test_an_unreadable_image_is_named_with_its_shard(self, tmp_path):
        write_tar(tmp_path / "train-0.tar", [("bad.png", b"not an image")])
        with pytest.raises(UserError, match=r"train-0\.tar/bad\.png: is not a readable image"):
            PairedDataset(tmp_path, "train", augmentation=None).pair(0)

    def test_a_missing_shard(self, root):
        data = PairedDataset(root, "train", augmentation=None)
        (root / "train-000001.tar").unlink()
        assert torch.is_tensor(data[0, 0]["source"])
        with pytest.raises(UserError, match=r"train-000001\.tar/1\.a\.png: the shard cannot be read"):
            data[0, 2]
