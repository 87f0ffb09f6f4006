"""Digits in idx files: damaged, unbalanced and doubled ones."""

import gzip
import json

import numpy as np
import pytest

from ganvas.data.digits import FILES

TRAIN, TRAIN_LABELS = FILES["train"]
TEST, TEST_LABELS = FILES["test"]


@pytest.fixture
def check(run):
    return lambda *arguments: run("check", *arguments)


def write_idx(path, values, *, packed=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    content = head + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if packed else content)


def random_images(count, seed, side=28):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side), dtype=np.uint8)


@pytest.fixture
def digits(tmp_path):
    """Thirty training and ten test images, three and one of each class."""
    for split, count in (("train", 30), ("test", 10)):
        images, labels = FILES[split]
        write_idx(tmp_path / images, random_images(count, count), packed=split == "test")
        write_idx(tmp_path / labels, np.arange(count) % 10)
    return tmp_path


def test_a_summary_lists_splits_and_classes(check, digits):
    code, out, err = check(digits)
    assert code == 0, err
    assert f"{digits}: digits" in out
    assert "train: 30 images; all 28x28; all 8-bit grayscale" in out
    assert "of each class: 0 3, 1 3, 2 3, 3 3, 4 3, 5 3, 6 3, 7 3, 8 3, 9 3" in out
    assert "Nothing is wrong." in out


@pytest.mark.parametrize("place", ["raw", "MNIST/raw", "FashionMNIST/raw"])
def test_files_are_found_where_torchvision_keeps_them(check, digits, place):
    (digits / place).mkdir(parents=True)
    for name in (TRAIN, TRAIN_LABELS, TEST, TEST_LABELS):
        next(iter(digits.glob(f"{name}*"))).rename(digits / place / name)
    code, out, _ = check(digits, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["layout"] == "digits"
    assert {name: split["pictures"] for name, split in report["folders"].items()} == {"train": 30, "test": 10}
    assert report["folders"]["test"]["classes"] == {str(number): 1 for number in range(10)}


def replaced(name, values):
    return lambda folder: write_idx(folder / name, values)


DAMAGES = {
    "missing": (lambda folder: (folder / TEST_LABELS).unlink(), f"{TEST_LABELS}: is missing"),
    "cut": (lambda folder: (folder / TRAIN).write_bytes((folder / TRAIN).read_bytes()[:-5]), "is cut short"),
    "another magic": (lambda folder: (folder / TRAIN).write_bytes(b"\0\0\x0d\x03" + bytes(12)), "begins with 00 00 0d"),
    "fewer labels": (replaced(TRAIN_LABELS, np.arange(29) % 10), "train: there are 29 labels for 30 images"),
    "a wrong label": (replaced(TRAIN_LABELS, np.array([*range(10)] * 2 + [*range(9)] + [77])), "label 29 is 77"),
    "a class missing": (replaced(TRAIN_LABELS, np.arange(30) % 9), "train: has no image of 9"),
    "another size": (replaced(TRAIN, random_images(30, 30, 32)), "train: images are 32x32"),
    "a blank": (
        replaced(TRAIN, np.concatenate([random_images(29, 30), np.zeros((1, 28, 28))])),
        "train: 1 images are blank (29)",
    ),
    "twice": (
        replaced(TRAIN, np.concatenate([random_images(20, 30), random_images(10, 30)])),
        "10 groups of images with the same content within a split (train 0 = train 20,",
    ),
    "in both": (
        replaced(TRAIN, np.concatenate([random_images(29, 30), random_images(10, 10)[9:]])),
        "1 groups of images with the same content across splits (train 29 = test 9)",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_kind_of_damage_is_reported(check, digits, damage):
    for file in digits.glob("*.gz"):
        (digits / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    do, message = DAMAGES[damage]
    do(digits)
    code, out, _ = check(digits)
    assert code == 1
    assert message in out
    assert "1 problems:" in out


def test_one_image_with_two_labels(check, digits):
    write_idx(digits / TRAIN, np.concatenate([random_images(29, 30), random_images(1, 30)]))
    code, out, _ = check(digits)
    assert code == 1
    assert "have different labels (train 0 = train 29 as 0 and 9)" in out


def test_unbalanced_classes_are_a_note(check, digits):
    write_idx(digits / TRAIN_LABELS, np.array([*range(10), *[3] * 20]))
    code, out, _ = check(digits)
    assert code == 0
    assert "train: classes are unbalanced, 21 of 3 and 1 of 0" in out


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.slow
def test_published_digits(check, published_data, name):
    code, out, _ = check(published_data / name, "--json")
    report = json.loads(out)
    assert code == 0
    assert {split: found["pictures"] for split, found in report["folders"].items()} == {"train": 60000, "test": 10000}
    train = report["folders"]["train"]["classes"]
    # Counts of LeCun's own page for MNIST; Fashion-MNIST is balanced by design.
    assert train["1"] == {"mnist": 6742, "fashion-mnist": 6000}[name]
    assert train["5"] == {"mnist": 5421, "fashion-mnist": 6000}[name]
    assert report["identical"] == []
