import json
import os
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from ganvas.data import shards
from ganvas.data.augment import Augmentation
from ganvas.data.dataset_info import dataset_info, domain_names
from ganvas.data.decode_cache import temporary_decode_cache
from ganvas.data.encode import write_image
from ganvas.data.layout import splits
from ganvas.data.paired import PairedDataset
from ganvas.data.pairs import find_pairs
from ganvas.errors import UserError

rng = np.random.default_rng(0)
A, B = (rng.integers(0, 256, (3, 20, 24, 3), dtype=np.uint8) for _ in range(2))


def write(layout, root):
    for i in range(3):
        if layout == "side by side":
            (root / "train").mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.concatenate([A[i], B[i]], axis=1)).save(root / "train" / f"{i}.png")
        else:
            for side, image, suffix in (("A", A[i], "png"), ("B", B[i], "bmp")):
                folder = root / f"train{side}" if layout == "folders" else root / "train" / side.lower()
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / f"{i}.{suffix}")
    return root


@pytest.mark.parametrize("layout", ["side by side", "folders", "subfolders"])
def test_layouts_and_directions(tmp_path, layout):
    root = write(layout, tmp_path)
    assert splits(root) == ["train"]
    forward, back = (PairedDataset(root, "train", augmentation=None, direction=way) for way in ("a2b", "b2a"))
    assert len(forward) == 3
    for i in range(3):
        assert forward.name(i) == str(i)
        source, target = forward.pair(i)
        assert np.array_equal(source, A[i])
        assert np.array_equal(target, B[i])
        assert np.array_equal(back.pair(i)[0], B[i])
        item = forward[7, i]
        assert item["index"] == i
        assert item["source"].shape == (3, 20, 24)
        assert np.allclose(item["target"].permute(1, 2, 0), B[i] / 127.5 - 1, atol=1e-6)


def test_unequal_channels(tmp_path):
    for side, mode in (("a", "L"), ("b", "RGB")):
        (tmp_path / "train" / side).mkdir(parents=True)
        Image.new(mode, (8, 8)).save(tmp_path / "train" / side / "x.png")
    forward = PairedDataset(tmp_path, "train", augmentation=None, source_channels=1)
    assert [forward[0, 0][name].shape[0] for name in ("source", "target")] == [1, 3]
    back = PairedDataset(tmp_path, "train", augmentation=None, direction="b2a", target_channels=1)
    assert [back[0, 0][name].shape[0] for name in ("source", "target")] == [3, 1]


@pytest.mark.parametrize("direction", ["a2b", "b2a"])
def test_unequal_channels_of_one_side_by_side_file(tmp_path, direction):
    (tmp_path / "train").mkdir()
    Image.fromarray(A[0][..., 0]).save(tmp_path / "train" / "x.png")
    pair = PairedDataset(tmp_path, "train", augmentation=None, direction=direction, target_channels=1)[0, 0]
    assert [pair[name].shape for name in ("source", "target")] == [(3, 20, 12), (1, 20, 12)]
    Image.fromarray(A[0]).save(tmp_path / "train" / "x.png")
    with pytest.raises(UserError, match=r"x\.png: has 3 channels, 1 are expected"):
        PairedDataset(tmp_path, "train", augmentation=None, direction=direction, target_channels=1).pair(0)


def spread(layout, root, a, b):
    """Write one pair in a layout."""
    if layout == "folders":
        for side, image in (("A", a), ("B", b)):
            write_image(root / f"train{side}" / "x.png", image)
        return
    if layout in ("side by side", "shard, side by side"):
        write_image(root / "train" / "x.png", np.concatenate([a, b], axis=1))
    else:
        for side, image in (("a", a), ("b", b)):
            write_image(root / "train" / f"x.{side}.png", image)
    if layout.startswith("shard"):
        with tarfile.open(root / "train-0.tar", "w") as tar:
            for path in sorted((root / "train").iterdir()):
                tar.add(path, path.name)
        shutil.rmtree(root / "train")


@pytest.mark.parametrize("direction", ["a2b", "b2a"])
@pytest.mark.parametrize(("source", "target"), [(4, 4), (4, 3), (3, 4), (3, 3), (2, 2), (2, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("layout", ["side by side", "folders", "shard, side by side", "shard, two files"])
@pytest.mark.slow
def test_alpha_is_a_channel_only_if_it_is_counted(tmp_path, layout, source, target, direction):
    C = 2 if 2 in (source, target) else 4
    images = np.random.default_rng(3).integers(0, 256, (2, 6, 9, C), dtype=np.uint8)
    spread(layout, tmp_path, *images)
    channels = {"source_channels": source, "target_channels": target}
    found = PairedDataset(tmp_path, "train", augmentation=None, direction=direction, **channels).pair(0)
    for image, wanted, given in zip(found, (source, target), images[:: 1 if direction == "a2b" else -1], strict=True):
        colors, alpha = given[..., :-1].astype(float), given[..., -1:] / 255
        expected = given if wanted == C else colors * alpha + 255 * (1 - alpha)
        assert image.shape == (6, 9, wanted)
        assert np.abs(image - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("layout", ["side by side", "folders", "shard, side by side", "shard, two files"])
def test_alpha_is_not_invented(tmp_path, layout):
    spread(layout, tmp_path, A[0], B[0])
    with pytest.raises(UserError, match="has 3 channels, 4 are expected"):
        PairedDataset(tmp_path, "train", augmentation=None, source_channels=4, target_channels=4).pair(0)


def test_names_that_differ_only_in_the_suffix_are_refused(tmp_path):
    for layout in ("side by side", "folders"):
        root = write(layout, tmp_path / layout)
        folder = root / ("train" if layout == "side by side" else "trainA")
        Image.fromarray(A[0]).save(folder / "0.tif")
        with pytest.raises(UserError, match=r"0\.png and 0\.tif differ only in the suffix"):
            find_pairs(root, "train")


def test_images_of_different_sizes_train_together_and_the_smallest_is_named(tmp_path):
    for i, (width, height) in enumerate([(40, 30), (24, 50), (16, 16)]):
        for side in "AB":
            (tmp_path / f"train{side}").mkdir(exist_ok=True)
            Image.new("RGB", (width, height), (i, i, i)).save(tmp_path / f"train{side}" / f"{i}.png")
    scaled = PairedDataset(tmp_path, "train", augmentation=Augmentation(26, 20))
    assert {scaled[0, i]["source"].shape for i in range(3)} == {(3, 20, 20)}
    native = PairedDataset(tmp_path, "train", augmentation=Augmentation(None, 20))
    assert {native[0, i]["target"].shape for i in range(2)} == {(3, 20, 20)}
    with pytest.raises(UserError, match=r"2\.png: the image is 16x16 pixels, smaller than the 20"):
        native[0, 2]


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are decoded from here on."""
    files = []
    original = shards.read_raster

    def read(path, *rest, **options):
        files.append(path.stem)
        return original(path, *rest, **options)

    monkeypatch.setattr(shards, "read_raster", read)
    return files


@pytest.mark.parametrize("augmentation", [None, Augmentation(30, 16), Augmentation(None, 16), Augmentation(20, 20)])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.float32])
def test_the_cache_changes_nothing_and_each_file_is_decoded_once(tmp_path, decoded, augmentation, depth):
    (tmp_path / "train").mkdir()
    for i in range(3):
        both = np.concatenate([A[i], B[i]], axis=1).astype(depth) / (256 if depth == np.float32 else 1)
        np.save(tmp_path / "train" / f"{i}.npy", both.astype(depth))
    with temporary_decode_cache(10**7) as cache:
        cached, fresh = (PairedDataset(tmp_path, "train", augmentation=augmentation, cache=s) for s in (cache, None))
        for epoch in range(3):
            for i in range(3):
                one, other = cached[epoch, i], fresh[epoch, i]
                assert torch.equal(one["source"], other["source"])
                assert torch.equal(one["target"], other["target"])
    assert sorted(decoded) == sorted([*"012" * 3, *"012"])


def test_images_that_do_not_fit_into_the_cache_are_decoded_each_time(tmp_path, decoded):
    (tmp_path / "train").mkdir()
    for i, size in enumerate([(2, 1), (200, 100), (200, 100), (400, 100), (2, 1)]):
        Image.new("RGB", size).save(tmp_path / "train" / f"{i}.png")
    with temporary_decode_cache(100_000) as cache:  # one of 60,000 bytes and the small ones
        data = PairedDataset(tmp_path, "train", augmentation=None, cache=cache)
        for _ in range(3):
            for i in range(5):
                data[0, i]
    assert [decoded.count(str(i)) for i in range(5)] == [1, 1, 3, 3, 1]


def test_a_changed_file_is_decoded_again_and_a_missing_one_is_an_error(tmp_path, decoded):
    root = write("folders", tmp_path)
    with temporary_decode_cache(10**7) as cache:
        data = PairedDataset(root, "train", augmentation=None, cache=cache)
        before = data[0, 1]["target"]
        changed = root / "trainB" / "1.bmp"
        Image.fromarray(B[2]).save(changed)  # of the same size
        os.utime(changed, ns=(0, 10**18))
        assert torch.equal(data[0, 1]["target"], data[0, 2]["target"])
        assert not torch.equal(data[0, 1]["target"], before)
        changed.unlink()
        with pytest.raises(UserError, match=r"1\.bmp: there is no such image"):
            data[0, 1]


def test_directions_and_channels_have_separate_cache_entries(tmp_path):
    root = write("side by side", tmp_path)
    Image.fromarray(A[0][..., 0]).save(root / "train" / "0.png")
    with temporary_decode_cache(10**7) as cache:
        options = [
            {"direction": "a2b"},
            {"direction": "b2a"},
            {"direction": "a2b", "target_channels": 1},
        ]
        shapes = []
        for each in options:
            cached, fresh = (
                PairedDataset(root, "train", augmentation=None, cache=s, **each)[0, 0] for s in (cache, None)
            )
            assert torch.equal(cached["source"], fresh["source"])
            assert torch.equal(cached["target"], fresh["target"])
            shapes.append([cached[name].shape[0] for name in ("source", "target")])
    assert shapes == [[3, 3], [3, 3], [3, 1]]


def test_missing_halves_are_named(tmp_path):
    root = write("folders", tmp_path)
    for name in "pqrst":
        Image.new("RGB", (4, 4)).save(root / "trainA" / f"{name}.png")
    (root / "trainB" / "0.bmp").unlink()
    with pytest.raises(UserError, match=r"only in .*trainA: 0, p, q and 3 more\)"):
        find_pairs(root, "train")


def test_absent_splits_and_folders(tmp_path):
    root = write("folders", tmp_path / "set")
    with pytest.raises(UserError, match=r"no split 'val' \(it has: train\)"):
        find_pairs(root, "val")
    with pytest.raises(UserError, match="no such folder"):
        find_pairs(tmp_path / "nowhere", "train")


def test_incomplete_datasets_and_empty_folders(tmp_path):
    (tmp_path / "one" / "trainA").mkdir(parents=True)
    with pytest.raises(UserError, match=r"trainB: there is no such folder, while .*trainA exists"):
        find_pairs(tmp_path / "one", "train")
    (tmp_path / "one" / "trainB").mkdir()
    with pytest.raises(UserError, match=r"trainA and .*trainB: holds no images"):
        find_pairs(tmp_path / "one", "train")
    (tmp_path / "two" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="train: holds no images"):
        find_pairs(tmp_path / "two", "train")


def test_halves_of_different_size(tmp_path):
    for side, size in (("A", (8, 6)), ("B", (8, 7))):
        (tmp_path / f"train{side}").mkdir()
        Image.new("RGB", size).save(tmp_path / f"train{side}" / "x.png")
    with pytest.raises(UserError, match=r"differ in size \(8x6 and 8x7\)"):
        PairedDataset(tmp_path, "train", augmentation=None).pair(0)


def test_sizes_that_do_not_fit(tmp_path):
    (tmp_path / "train").mkdir()
    Image.new("RGB", (7, 4)).save(tmp_path / "train" / "x.png")
    data = PairedDataset(tmp_path, "train", augmentation=None)
    with pytest.raises(UserError, match="7 pixels wide"):
        data.pair(0)


def test_dataset_info(tmp_path):
    assert dataset_info(tmp_path) == {}
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "x"}))
    assert dataset_info(tmp_path)["name"] == "x"
    (tmp_path / "dataset.json").write_text("[")
    with pytest.raises(UserError, match=r"dataset\.json: is not valid JSON"):
        dataset_info(tmp_path)


def test_published_maps(published_data):
    data = PairedDataset(published_data / "maps", "val", augmentation=Augmentation())
    assert len(data) == 100
    assert data.pair(0)[0].shape == data.pair(0)[1].shape == (286, 286, 3)
    assert data[0, 0]["source"].shape == (3, 256, 256)


@pytest.mark.parametrize(
    "layouts", [("side by side", "folders"), ("side by side", "subfolders"), ("folders", "subfolders")]
)
def test_two_layouts_at_once_are_refused(tmp_path, layouts):
    for layout in layouts:
        write(layout, tmp_path)
    with pytest.raises(UserError, match="train is there in more than one layout"):
        find_pairs(tmp_path, "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"domains": ["map", "terrain"]}', "domains is"),
        ('{"domains": {"a": 5}}', "a is 5"),
        ('{"domains": {"a": "\\ud800"}}', "half a character"),
        ('{"domains": {"a": "two\\nlines"}}', "in one line"),
        ('{"domains": {"a": "' + "x" * 201 + '"}}', "at most 200 characters"),
        ('{"name": {}}', "name is {}"),
        ('{"license": 5}', "license is 5"),
        ('{"licence": 5}', "license is 5"),
        ("[" * 100_000, "nested too deeply"),
        ('{"legend": ' + "9" * 5000 + "}", "a number has 5000 digits"),
    ],
)
def test_an_invalid_dataset_json_is_refused_before_training(tmp_path, text, message):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(UserError, match=rf"dataset\.json: .*{message}"):
        dataset_info(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"domains": {}}', '{"domains": {"a": "map"}, "more": [1], "name": "x"}'])
def test_dataset_json_may_have_other_keys(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    assert dataset_info(tmp_path) == json.loads(text)
    assert domain_names(dataset_info(tmp_path)) == ("map" if "map" in text else "A", "B")
