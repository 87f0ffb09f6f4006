"""Images cut down the middle; that nothing is lost is in test_combine.py."""

import numpy as np
import pytest

from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.data.pairs import find_pairs


def halves(left, right, width=4, height=4):
    """A image whose halves are of one value each."""
    return np.repeat(np.uint8([[[left] * 3], [[right] * 3]]).reshape(1, 2, 3), width, axis=1).repeat(height, axis=0)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_the_result_is_a_dataset_that_training_reads(run, tmp_path):
    for split, number in (("train", 1), ("train", 2), ("val", 3)):
        write_image(tmp_path / "set" / split / f"{number}.png", halves(number, 100 + number))
    (tmp_path / "set" / "dataset.json").write_text("{}")
    code, out, err = run("split", tmp_path / "set", "--out", tmp_path / "out")
    assert code == 0, err
    assert "3 pairs in trainA, trainB, valA, valB" in out
    pairs = list(find_pairs(tmp_path / "out", "train"))
    assert [pair.name for pair in pairs] == ["1", "2"]
    assert (read_image(pairs[1].a) == 2).all()
    assert (read_image(pairs[1].b) == 102).all()
    assert (tmp_path / "out" / "dataset.json").read_text() == "{}"


def test_a_plain_folder_keeps_its_subfolders(run, tmp_path):
    write_image(tmp_path / "in" / "x.png", halves(1, 2))
    write_image(tmp_path / "in" / "sub" / "y.png", halves(1, 2))
    assert run("split", tmp_path / "in", "--out", tmp_path / "out", "--format", "webp")[0] == 0
    assert files(tmp_path / "out") == ["A/sub/y.webp", "A/x.webp", "B/sub/y.webp", "B/x.webp"]


def test_folders_in_a_split_are_kept(run, tmp_path):
    for place in ("train/x.png", "train/sub/x.png"):
        write_image(tmp_path / "set" / place, halves(1, 2))
    assert run("split", tmp_path / "set", "--out", tmp_path / "out")[0] == 0
    assert files(tmp_path / "out") == ["trainA/sub/x.png", "trainA/x.png", "trainB/sub/x.png", "trainB/x.png"]


def test_all_images_that_cannot_be_split_are_reported(run, tmp_path):
    for number in range(4):
        write_image(tmp_path / "in" / f"{number}.png", halves(1, 2))
    write_image(tmp_path / "in" / "odd.png", halves(1, 2)[:, :7])
    (tmp_path / "in" / "text.jpg").write_text("no image")
    code, out, err = run("split", tmp_path / "in", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "2 of 6" in err
    assert "odd.png: is 7 pixels wide" in err
    assert "text.jpg: is not a readable image" in err
    assert len(files(tmp_path / "out")) == 8


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["trainA/x.png"], None),
        (["trainA/x.png", "trainB/x.png"], "is already split into trainA and trainB"),
        (["val/a/x.png", "val/b/x.png"], "is already split into val/a and val/b"),
        (["train/x.png/"], "hold no A|B images"),
        ([], "no such folder"),
    ],
)
def test_other_datasets_are_refused(run, tmp_path, places, message):
    for each in places:
        if each.endswith("/"):
            (tmp_path / "set" / each).mkdir(parents=True)
        else:
            write_image(tmp_path / "set" / each, halves(1, 2))
    code, _, err = run("split", tmp_path / "set", "--out", tmp_path / "out")
    assert code == (2 if message else 0)
    assert (message or "") in err
