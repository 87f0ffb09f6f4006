"""The shards that are written: every file in them as it was, always alike, whole or not at all."""

import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from ganvas.data.pairs import find_pairs


@pytest.fixture
def root(tmp_path):
    """Five pairs in two folders and two A|B images, with names that have dots."""
    for number in range(5):
        for side, suffix in (("A", "png"), ("B", "webp")):
            (tmp_path / "set" / f"train{side}").mkdir(parents=True, exist_ok=True)
            image = Image.new("RGB", (4, 4), (number, 0, ord(side)))
            image.save(tmp_path / "set" / f"train{side}" / f"img.{number}.{suffix}")
    (tmp_path / "set" / "test").mkdir()
    for number in range(2):
        Image.new("RGB", (8, 4), (number, 0, 0)).save(tmp_path / "set" / "test" / f"x{number}.jpg")
    (tmp_path / "set" / "dataset.json").write_text(json.dumps({"name": "small"}))
    return tmp_path / "set"


def samples_of(shard):
    """Group a shard's members as WebDataset does: the key ends at the first dot."""
    found = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            found.setdefault(key, {})[suffix] = tar.extractfile(member).read()
    return found


def test_files_are_packed_unchanged(run, root, tmp_path):
    code, out, err = run("shards", root, tmp_path / "out", "--pairs-per-shard", 2)
    assert code == 0, err
    assert "train: 5 pairs in 3 shards" in out
    assert "test: 2 pairs in 1 shards" in out
    shards = sorted((tmp_path / "out").glob("train-*.tar"))
    assert [shard.name for shard in shards] == [f"train-{number:06d}.tar" for number in range(3)]
    samples = [samples_of(shard) for shard in shards]
    assert [len(each) for each in samples] == [2, 2, 1]
    together = {key: files for each in samples for key, files in each.items()}
    for number in range(5):
        for side, suffix in (("A", "png"), ("B", "webp")):
            original = (root / f"train{side}" / f"img.{number}.{suffix}").read_bytes()
            assert together[f"img_{number}"][f"{side.lower()}.{suffix}"] == original
    (test,) = (tmp_path / "out").glob("test-*.tar")
    assert samples_of(test) == {
        f"x{number}": {"jpg": (root / "test" / f"x{number}.jpg").read_bytes()} for number in (0, 1)
    }
    assert json.loads((tmp_path / "out" / "dataset.json").read_text()) == {"name": "small"}
    assert len(list((tmp_path / "out").glob("*.tar.index.json"))) == 4


def test_the_printed_train_command_works(run, root, tmp_path):
    out = run("shards", root, tmp_path / "my shards")[1]
    assert out.splitlines()[-1] == f"pix2pix train --data '{tmp_path / 'my shards'}' --out RUN"


def test_pairs_are_shuffled_deterministically(run, tmp_path):
    (tmp_path / "set" / "train").mkdir(parents=True)
    for number in range(40):
        Image.fromarray(np.zeros((2, 4), np.uint8)).save(tmp_path / "set" / "train" / f"{number:02d}.png")
    for out in ("one", "two"):
        assert run("shards", tmp_path / "set", tmp_path / out)[0] == 0
    names = [pair.name for pair in find_pairs(tmp_path / "one", "train")]
    assert sorted(names) == [f"{number:02d}" for number in range(40)]
    assert names != sorted(names)
    one, two = (tmp_path / out / "train-000000.tar" for out in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_shards_can_be_packed_again(run, root, tmp_path):
    assert run("shards", root, tmp_path / "out", "--pairs-per-shard", 2)[0] == 0
    assert run("shards", tmp_path / "out", tmp_path / "again")[0] == 0
    (shard,) = (tmp_path / "again").glob("train-*.tar")
    before = [samples_of(each) for each in (tmp_path / "out").glob("train-*.tar")]
    assert samples_of(shard) == {key: files for each in before for key, files in each.items()}


class TestBadInput:
    def refused(self, result, *message):
        code, _, err = result
        assert code == 2, err
        assert err.count("error:") == 1
        for words in message:
            assert words in err, err

    def test_the_output_folder_exists(self, run, root, tmp_path):
        (tmp_path / "out").mkdir()
        self.refused(run("shards", root, tmp_path / "out"), "out: already exists")

    def test_no_dataset(self, run, tmp_path):
        self.refused(run("shards", tmp_path / "nowhere", tmp_path / "out"), "no such folder")
        self.refused(run("shards", tmp_path, tmp_path / "out"), "no split 'train'")

    def test_no_pairs(self, run, root, tmp_path):
        (root / "trainB" / "img.3.webp").unlink()
        self.refused(run("shards", root, tmp_path / "out"), "without a partner", "img.3")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("per_shard", [1, 1000])
    def test_names_that_differ_in_a_dot(self, run, root, tmp_path, per_shard):
        for side in "AB":
            Image.new("RGB", (4, 4)).save(root / f"train{side}" / "img_3.png")
        first, second = root / "trainA" / "img.3.png", root / "trainA" / "img_3.png"
        self.refused(
            run("shards", root, tmp_path / "out", "--pairs-per-shard", per_shard),
            f"{first} and {second} would both be img_3",
        )
        assert not (tmp_path / "out").exists()

    def test_a_size_out_of_range(self, run, root, tmp_path):
        self.refused(run("shards", root, tmp_path / "out", "--pairs-per-shard", 0), "pairs-per-shard is 0")

    def test_a_file_that_cannot_be_read(self, run, root, tmp_path):
        broken = root / "test" / "x1.jpg"
        broken.unlink()
        broken.symlink_to("nowhere")
        self.refused(run("shards", root, tmp_path / "out"), "x1.jpg: cannot be read")
        assert not (tmp_path / "out").exists()
