import json

import numpy as np
import pytest
from PIL import Image

from ganvas.data import paired
from ganvas.data.augment import Augmentation
from ganvas.data.paired import PairedDataset, dataset_info, find_pairs, splits
from ganvas.errors import UserError

rng = np.random.default_rng(0)
A, B = (rng.integers(0, 256, (3, 20, 24, 3), dtype=np.uint8) for _ in range(2))


def write(layout, root):
    for i in range(3):
        if layout == "side by side":
            (root / "train").mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.concatenate([A[i], B[i]], axis=1)).save(root / "train" / f"{i}.png")
        else:
            for side, picture, suffix in (("A", A[i], "png"), ("B", B[i], "bmp")):
                folder = root / f"train{side}" if layout == "folders" else root / "train" / side.lower()
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(folder / f"{i}.{suffix}")
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


def test_the_cache_decodes_once_within_its_budget_and_changes_nothing(tmp_path, monkeypatch):
    root = write("side by side", tmp_path)
    decoded = []
    original = paired.read_image
    monkeypatch.setattr(paired, "read_image", lambda path, *rest: (decoded.append(path), original(path, *rest))[1])
    whole = 3 * 2 * A[0].nbytes
    results = {}
    for budget in (whole, whole - 1):
        data = PairedDataset(root, "train", augmentation=Augmentation(30, 16), cache_bytes=budget)
        decoded.clear()
        results[budget] = [data[epoch, i]["source"].numpy() for epoch in range(2) for i in range(3)]
        assert len(decoded) == (3 if budget == whole else 6)
    assert all(np.array_equal(x, y) for x, y in zip(*results.values(), strict=True))


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
    with pytest.raises(UserError, match=r"dataset\.json: is no JSON"):
        dataset_info(tmp_path)


def test_published_maps(published_data):
    data = PairedDataset(published_data / "maps", "val", augmentation=Augmentation())
    assert len(data) == 100
    assert data.pair(0)[0].shape == data.pair(0)[1].shape == (286, 286, 3)
    assert data[0, 0]["source"].shape == (3, 256, 256)
