"""Long lists: right whatever the names are, and small."""

import contextlib
import os
import pickle
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganvas.data.listing import Files, Names, is_picture, picture_names, stem
from ganvas.data.paired import find_pairs
from ganvas.errors import UserError

MANY = 50_000  # the million itself is measured by benchmarks.load --listing


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_names_come_back_as_they_were(names):
    packed = pickle.loads(pickle.dumps(Names(names)))
    assert len(packed) == len(names)
    assert list(packed) == names
    assert [packed[i] for i in range(len(names))] == names
    for outside in (-1, len(names)):
        with pytest.raises(IndexError):
            packed[outside]


@pytest.mark.skipif(os.name == "nt", reason="names on Windows are text")
def test_names_that_are_no_text_come_back(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    assert list(Files(tmp_path, [name])) == [tmp_path / name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", True),
        ("a.b.TIFF", True),
        ("a.npy", True),
        (".a.png", False),
        (".png", False),
        ("png", False),
        ("a.txt", False),
        ("a.png.part", False),
        ("", False),
    ],
)
def test_what_is_a_picture(name, expected):
    assert is_picture(name) == expected


def test_pictures_are_listed_in_the_order_of_their_names(tmp_path):
    for name in ("b.png", "a-b.png", "a.jpg", ".hidden.png", "B.png", "notes.txt"):
        (tmp_path / name).touch()
    assert picture_names(tmp_path) == ["B.png", "a-b.png", "a.jpg", "b.png"]
    assert sorted(picture_names(tmp_path), key=stem) == ["B.png", "a.jpg", "a-b.png", "b.png"]


class Entry:
    """What a system tells of a file in a folder."""

    def __init__(self, name):
        self.name = name

    def is_dir(self):
        return False


@pytest.fixture
def many_names(tmp_path, monkeypatch):
    """Make folders that seem to hold many names: DIR/train, or the sides of it."""

    def listed(folder):
        suffix = ".png" if str(folder).endswith("B") else ".jpg"
        names = (f"picture-{number * 7919 % MANY:07d}{suffix}" for number in range(MANY))
        return contextlib.nullcontext(map(Entry, names))

    def make(*folders):
        for folder in folders:
            (tmp_path / folder).mkdir()
        monkeypatch.setattr(os, "scandir", listed)
        return tmp_path

    return make


@pytest.mark.parametrize("folders", [["train"], ["trainA", "trainB"]])
def test_a_long_folder_opens_within_ten_seconds_and_500_mb_a_million(many_names, folders):
    root = many_names(*folders)
    began = time.process_time()
    find_pairs(root, "train")
    seconds = time.process_time() - began
    tracemalloc.start()
    pairs = find_pairs(root, "train")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pairs) == MANY
    assert pairs[1234].name == "picture-0001234"
    assert seconds < 10 * MANY / 1e6 * len(folders)
    assert peak < 500e6 * MANY / 1e6
    assert held < 40 * MANY * len(folders)  # 19 bytes a name and 8 for its place


def test_a_name_used_twice_among_many_is_found(many_names, monkeypatch):
    root = many_names("train")
    original = os.scandir

    def with_double(folder):
        with original(folder) as entries:
            return contextlib.nullcontext([*entries, Entry("picture-0000005.tif")])

    monkeypatch.setattr(os, "scandir", with_double)
    with pytest.raises(UserError, match=r"picture-0000005\.jpg and picture-0000005\.tif differ only in the suffix"):
        find_pairs(root, "train")


def test_a_folder_that_is_named_like_a_picture_is_none(tmp_path):
    (tmp_path / "x.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")  # listed, so that whoever reads it says so
    assert picture_names(tmp_path) == ["gone.png"]
