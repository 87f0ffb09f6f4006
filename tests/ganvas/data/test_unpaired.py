"""Two domains of other lengths: partners, augmentation, layouts, bad folders."""

import numpy as np
import pytest
import torch
from PIL import Image

from ganvas.data.augment import Augmentation
from ganvas.data.skip import SkippingDataset
from ganvas.data.unpaired import UnpairedDataset, are_pairs, find_domains
from ganvas.errors import UserError


def write(folder, values, mode="RGB", size=(20, 20), prefix=""):
    """Write flat images whose gray is their number."""
    folder.mkdir(parents=True)
    for value in values:
        Image.new("L", size, value).convert(mode).save(folder / f"{prefix}{value:03d}.png")


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "trainA", range(0, 50, 10), prefix="a")
    write(tmp_path / "trainB", range(100, 240, 20), prefix="b")
    return tmp_path


def value(image):
    return round(float(image.mean() + 1) * 127.5)


def test_an_epoch_is_the_longer_domain(root):
    data = UnpairedDataset(root, "train", augmentation=None)
    assert len(data) == 7
    for epoch in range(3):
        for index in range(7):
            sample = data[epoch, index]
            assert value(sample["b"]) == 100 + 20 * index
            partner = int(np.random.default_rng([0, epoch, index]).integers(5))
            assert value(sample["a"]) == 10 * partner


def test_either_domain_may_be_the_longer_one(root):
    for extra in range(60, 100, 10):
        Image.new("RGB", (20, 20), (extra,) * 3).save(root / "trainA" / f"a{extra:03d}.png")
    data = UnpairedDataset(root, "train", augmentation=None)
    assert len(data) == 9
    assert [value(data[0, i]["a"]) for i in range(9)] == [0, 10, 20, 30, 40, 60, 70, 80, 90]


def test_partners_change_from_epoch_to_epoch_and_all_are_seen(root):
    data = UnpairedDataset(root, "train", augmentation=None, seed=3)
    seen = [[value(data[epoch, index]["a"]) for index in range(7)] for epoch in range(6)]
    assert len({tuple(each) for each in seen}) == 6
    assert {partner for each in seen for partner in each} == {0, 10, 20, 30, 40}


def test_each_image_has_its_own_augmentation_and_the_key_repeats_it(tmp_path):
    rng = np.random.default_rng(0)
    for domain in ("trainA", "trainB"):
        (tmp_path / domain).mkdir()
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / domain / "x.png")
    (tmp_path / "trainB" / "x.png").write_bytes((tmp_path / "trainA" / "x.png").read_bytes())
    options = {"augmentation": Augmentation(None, 16, flip=True)}
    data, again = (UnpairedDataset(tmp_path, "train", **options) for _ in range(2))
    assert not torch.equal(data[0, 0]["a"], data[0, 0]["b"])
    assert not torch.equal(data[0, 0]["a"], data[1, 0]["a"])
    for domain in "ab":
        assert torch.equal(data[4, 0][domain], again[4, 0][domain])
        assert data[0, 0][domain].shape == (3, 16, 16)


def test_gray_images_among_color_images_are_repeated(root):
    Image.new("L", (20, 20), 77).save(root / "trainA" / "a010.png")
    sample = UnpairedDataset(root, "train", augmentation=None).tensor("a", 1)
    assert sample.shape == (3, 20, 20)
    assert value(sample) == 77


def test_other_layout_and_channels(tmp_path):
    write(tmp_path / "train" / "a", [10, 20], mode="L")
    write(tmp_path / "train" / "b", [30])
    sample = UnpairedDataset(tmp_path, "train", augmentation=None, channels_a=1)[0, 0]
    assert (sample["a"].shape[0], sample["b"].shape[0]) == (1, 3)


def test_equal_names_are_pairs_only_if_dataset_json_says_so(root):
    assert not are_pairs(root, "train")
    for domain in ("testA", "testB"):
        write(root / domain, [1, 2])
    assert not are_pairs(root, "test")  # many sets are numbered
    (root / "dataset.json").write_text('{"pairs": true}')
    assert are_pairs(root, "test")
    assert not are_pairs(root, "train")


class TestBadInput:
    def check(self, root, *message):
        with pytest.raises(UserError) as caught:
            find_domains(root, "train")
        for words in message:
            assert words in str(caught.value)

    def test_no_folder(self, tmp_path):
        self.check(tmp_path / "none", "none", "no such folder", "trainA and")

    def test_one_domain_missing(self, tmp_path):
        write(tmp_path / "trainA", [1])
        self.check(tmp_path, "trainB: there is no such folder, while", "Both are needed")

    def test_an_empty_domain(self, tmp_path):
        write(tmp_path / "trainA", [1])
        write(tmp_path / "trainB", [])
        self.check(tmp_path, "trainB: holds no images")

    def test_a_paired_folder(self, tmp_path):
        write(tmp_path / "train", [1, 2], size=(40, 20))
        self.check(tmp_path, "not divided into two domains", "command pix2pix")

    def test_shards(self, tmp_path):
        (tmp_path / "train-000000.tar").touch()
        self.check(tmp_path, "holds 'train' as shards", "command pix2pix", "DIR/trainA and DIR/trainB")

    def test_no_split(self, tmp_path):
        write(tmp_path / "testA", [1])
        self.check(tmp_path, "no split 'train' (it has: test)")

    def test_an_image_too_small_is_named(self, root):
        data = UnpairedDataset(root, "train", augmentation=Augmentation(None, 32))
        with pytest.raises(UserError, match=r"\.png: the image is 20x20 pixels, smaller than the 32"):
            data[0, 0]["b"]


def test_a_missing_image_is_an_error_or_skipped(root):
    data = UnpairedDataset(root, "train", augmentation=None)
    gone = root / "trainB" / "b140.png"
    gone.unlink()
    with pytest.raises(UserError, match=r"b140\.png: there is no such image"):
        data[0, 2]
    skipping = SkippingDataset(data, len(data))
    sample = skipping[0, 2]
    assert sample["skipped"] == f"{gone}: there is no such image."
    assert value(sample["b"]) == 160
    assert skipping[0, 3]["skipped"] == ""
