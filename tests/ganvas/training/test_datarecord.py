"""The record of a run's data, compared by names and sizes when the run is resumed."""

import json
import shutil

import numpy as np
import pytest

from ganvas.data.listing import Files, Names
from ganvas.data.shards import Members
from ganvas.errors import UserError
from ganvas.training import datarecord
from ganvas.training.datarecord import DataPart, DataRecord, check_record, record_files, write_record


@pytest.fixture
def root(tmp_path):
    """Two files in each of two splits."""
    for split in ("train", "val"):
        (tmp_path / "set" / split).mkdir(parents=True)
        for name in ("a.png", "b.png"):
            (tmp_path / "set" / split / name).write_bytes(name.encode() * 3)
    return tmp_path / "set"


def record(root):
    found = {}
    for split in ("val", "train"):
        names = sorted(path.name for path in (root / split).iterdir()) if (root / split).is_dir() else []
        if names:
            found[split] = {"a": Files(root / split, names)}
    return record_files(root, found)


def check(caplog, tmp_path, root):
    caplog.clear()
    check_record(tmp_path / "run", record(root))
    return caplog.messages


@pytest.fixture
def recorded(root, tmp_path):
    (tmp_path / "run").mkdir()
    write_record(tmp_path / "run", record(root))
    return tmp_path


def test_copy_is_the_same_data(caplog, recorded, root):
    assert check(caplog, recorded, root) == []
    shutil.copytree(root, recorded / "copy")
    (recorded / "copy" / "train" / "a.png").touch()
    assert check(caplog, recorded, recorded / "copy") == []


def change(root, kind, split):
    folder = root / split
    if kind == "resized":
        (folder / "a.png").write_bytes(b"repaired")
    elif kind == "missing":
        (folder / "a.png").unlink()
    elif kind == "new":
        (folder / "c.png").write_bytes(b"c")
    elif kind == "renamed":
        (folder / "a.png").rename(folder / "z.png")
    else:
        shutil.rmtree(folder)


MESSAGES = {
    "resized": "of another size: a.png",
    "missing": "2 files then, 1 files now, missing: a.png",
    "new": "2 files then, 3 files now, new: c.png",
    "renamed": "missing: a.png, new: z.png",
    "no split": "2 files then, nothing now",
}


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("split", ["train", "val"])
def test_changes_in_the_same_folder(caplog, recorded, root, kind, split):
    change(root, kind, split)
    if split == "train" and kind != "resized":
        with pytest.raises(UserError, match=f"train a: {MESSAGES[kind]}\\."):
            check(caplog, recorded, root)
        return
    (message,) = check(caplog, recorded, root)
    assert f"{split} a: {MESSAGES[kind]}." in message
    write_record(recorded / "run", record(root))  # as a resume does
    assert check(caplog, recorded, root) == []


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("split", ["train", "val"])
def test_changes_in_another_folder_are_refused(caplog, recorded, root, kind, split):
    root.rename(recorded / "moved")
    change(recorded / "moved", kind, split)
    with pytest.raises(UserError, match=f"moved: is not the data that .*run learned from .*set.*{MESSAGES[kind]}"):
        check(caplog, recorded, recorded / "moved")


@pytest.mark.parametrize(("limit", "message"), [(2, "of another size: a.png"), (1, "other content")])
def test_few_files_are_named(caplog, recorded, root, monkeypatch, limit, message):
    monkeypatch.setattr(datarecord, "LISTED", limit)
    write_record(recorded / "run", record(root))
    change(root, "resized", "train")
    assert message in check(caplog, recorded, root)[0]


def test_long_lists_of_names_are_shortened(caplog, recorded, root):
    for number in range(5):
        (root / "train" / f"c{number}.png").write_bytes(b"c")
    with pytest.raises(UserError, match=r"2 files then, 7 files now, new: c0\.png, c1\.png, c2\.png and 2 more"):
        check(caplog, recorded, root)


def test_order_of_files_counts(tmp_path):
    (tmp_path / "run").mkdir()
    one, other = (record_files(tmp_path, {"train": {"a": Files(tmp_path, names)}}) for names in ("ab", "ba"))
    write_record(tmp_path / "run", one)
    with pytest.raises(UserError, match="is not the data"):
        check_record(tmp_path / "run", other)


def test_members_of_shards_are_listed_by_name_and_size(tmp_path):
    def listing(*places):
        shards = [tmp_path / "train-0.tar", tmp_path / "train-1.tar"]
        return list(Members(shards, Names(["x.png", "y.png"]), np.array(places)).listing())

    assert listing([0, 512, 7], [1, 512, 8]) == [("train-0.tar/x.png", 7), ("train-1.tar/y.png", 8)]


def test_other_content_without_files(tmp_path, caplog):
    part = DataPart(training=True, summary="2 images", order="", content="1")
    write_record(tmp_path, DataRecord("digits", {"train": part}))
    check_record(
        tmp_path,
        DataRecord("digits", {"train": DataPart(training=True, summary="2 images", order="", content="2")}),
    )
    assert "train: other content" in caplog.messages[0]


PART = {"training": True, "summary": "2 files", "order": "", "content": "", "sizes": {}}


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        [],
        {"place": "x", "parts": {"train": {"files": 3}}},
        {"place": 5, "parts": {}},
        {"place": "x", "parts": {"train a": PART | {"sizes": [1]}}},
        {"place": "x", "parts": {"train a": PART | {"sizes": {"a.png": "x"}}}},
    ],
)
def test_missing_or_damaged_record(tmp_path, root, content):
    if content is not None:
        (tmp_path / "data.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"data\.json"):
        check_record(tmp_path, record(root))


def test_long_names_in_a_record_are_shortened(tmp_path, root):
    part = PART | {"summary": "x" * 3000, "sizes": {"x" * 3000: 1}}
    parts = {"train a": part} | {f"{number}" * 3000: part for number in range(9)}
    (tmp_path / "data.json").write_text(json.dumps({"place": "z" * 3000, "parts": parts}))
    with pytest.raises(UserError, match=r"missing: x*…") as error:
        check_record(tmp_path, record(root))
    assert len(str(error.value)) < 2000


def test_names_that_are_not_utf8(tmp_path):
    names = ["\udcff.png"]  # a byte that is not UTF-8, as Python reads it from a disk
    write_record(tmp_path, record_files(tmp_path, {"train": {"a": Files(tmp_path, names)}}))
    check_record(tmp_path, record_files(tmp_path, {"train": {"a": Files(tmp_path, names)}}))
    assert json.loads((tmp_path / "data.json").read_text())["parts"]["train a"]["sizes"] == {"\\xff.png": -1}
