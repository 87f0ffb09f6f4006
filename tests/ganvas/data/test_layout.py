"""Where splits lie: every layout, in lower and upper case, alone and beside others; what else lies there."""

import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_scripts.tools.check.command import inspect
from ganvas.data.layout import find_layout, layouts_of, splits
from ganvas.data.listing import describe_unread, images_with_stem, list_folder, list_images
from ganvas.data.pairs import find_pairs, find_stacked_pairs
from ganvas.data.unpaired import are_pairs, find_domains
from ganvas.errors import UserError


def write(folder, *names, size=(8, 4)):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("0.png", "1.png"):
        Image.effect_noise(size, 90).save(folder / name)
    return folder


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("trainA", "trainB"),
        ("traina", "trainb"),
        ("TRAINA", "TRAINB"),
        ("TrainA", "trainB"),
        ("train/a", "train/b"),
        ("train/A", "train/B"),
        ("Train/a", "Train/B"),
        ("A/train", "B/train"),
        ("a/TRAIN", "b/train"),
    ],
)
def test_two_folders_in_every_spelling(tmp_path, a, b):
    folders = [write(tmp_path / name).resolve() for name in (a, b)]
    assert splits(tmp_path) == ["train"]
    pairs = find_pairs(tmp_path, "train")
    assert [(pair.a.parent.resolve(), pair.b.parent.resolve(), pair.name) for pair in pairs] == [
        (*folders, "0"),
        (*folders, "1"),
    ]
    assert [files.folder.resolve() for files in find_domains(tmp_path, "train")] == folders


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        ("trainA", "trainB"),
        ("TRAINB", "TRAINA"),
        ("train/b", "train/a"),
        ("train/A", "train/B"),
        ("B/train", "A/train"),
    ],
)
def test_a_missing_folder_is_named_in_the_spelling_of_the_other(tmp_path, present, missing):
    write(tmp_path / present)
    for find in (find_pairs, find_domains):
        with pytest.raises(UserError) as caught:
            find(tmp_path, "train")
        expected = f"{tmp_path / missing}: there is no such folder, while {tmp_path / present} exists. Both are needed."
        assert str(caught.value) == expected


def test_combined_images_come_before_the_folders_that_they_were_made_of(tmp_path):
    for folder in ("A/train", "B/train", "train", "A/test", "B/test"):
        write(tmp_path / folder)
    assert find_layout(tmp_path, "train").kind == "side by side"
    assert find_layout(tmp_path, "test").kind == "two folders"


def test_a_broken_link_says_where_it_points(tmp_path):
    write(tmp_path / "trainA")
    (tmp_path / "trainB").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError) as caught:
        find_pairs(tmp_path, "train")
    assert f"trainB: is a broken symbolic link to {tmp_path / 'gone'}" in str(caught.value)
    with pytest.raises(UserError, match=r"trainB/sub: lies behind .*trainB, a broken symbolic link to .*gone"):
        list_images(tmp_path / "trainB" / "sub")


FOLDERS = ["train", "Train", "trainA", "TRAINA", "trainB", "train/a", "train/A", "train/b", "train/B"]
FOLDERS += ["A/train", "b/train", "B/train", "train/c", "train/radar"]


NAMES = st.sampled_from(["", "x", "xy", "xyz", "pq", "xX", "gif"])
SPELLINGS = [str, str.lower, str.upper, str.capitalize]
TWO = [("trainA", "trainB"), ("train/a", "train/b"), ("train/A", "train/B"), ("A/train", "B/train")]
# Names that are pairs, domains, or neither; one side may be missing, and another folder may be there.
two_folders = st.builds(
    lambda names, spell_a, spell_b, contents, other: {
        **({} if contents[0] is None else {spell_a(names[0]): contents[0]}),
        **({} if contents[1] is None else {spell_b(names[1]): contents[1]}),
        **other,
    },
    st.sampled_from([*TWO, ("train/radar", "train/b"), ("train/c", "train/d")]),
    st.sampled_from(SPELLINGS),
    st.sampled_from(SPELLINGS),
    st.sampled_from([("xy", "xy")] * 3 + [("xy", "pq")] * 3 + [("xyz", "xy"), ("xX", "pq"), ("x", None), (None, "x")]),
    st.one_of(st.just({}), st.dictionaries(st.sampled_from(FOLDERS), NAMES, max_size=1)),
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(two_folders | st.dictionaries(st.sampled_from(FOLDERS), NAMES, min_size=1, max_size=3))
@pytest.mark.slow
@pytest.mark.essential
def test_check_and_training_accept_the_same_layouts(tmp_path_factory, folders):
    root = tmp_path_factory.mktemp("layout")
    for folder, names in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names if names != "gif" else ():
            write(root / folder, f"{name.lower()}.{'bmp' if name.isupper() else 'png'}")
        if names == "gif":
            (root / folder / "x.gif").touch()
    report, error = None, None
    try:
        report = inspect(root)
    except UserError as caught:
        error = caught
    accepted = report is not None and not report.problems

    def trains(find, *arguments):
        try:
            return len(find(root, "train", *arguments)) > 0
        except UserError:
            return False

    if error is not None:
        assert not trains(find_pairs)
        assert not trains(find_domains)
    elif report.sources:
        *sources, target = report.sources
        assert trains(find_stacked_pairs, sources, target) == accepted
        assert not trains(find_pairs)
    else:
        assert trains(find_domains if report.layout == "unpaired folders" else find_pairs) == accepted, report


class TestNamesInTwoEncodings:
    NFC, NFD = (unicodedata.normalize(form, "caf\u00e9-\u00fc") for form in ("NFC", "NFD"))

    def test_the_two_encodings_are_different_file_names(self, tmp_path):
        assert self.NFC != self.NFD
        assert len(list(write(tmp_path, f"{self.NFC}.png", f"{self.NFD}.png").iterdir())) == 2

    def test_partners_match(self, tmp_path):
        write(tmp_path / "trainA", f"{self.NFC}.png", "cafz.png")
        write(tmp_path / "trainB", f"{self.NFD}.png", "cafz.png")
        pairs = find_pairs(tmp_path, "train")
        assert [(pair.a.name, pair.b.name) for pair in pairs] == [
            ("cafz.png", "cafz.png"),
            (f"{self.NFC}.png", f"{self.NFD}.png"),
        ]
        (tmp_path / "dataset.json").write_text('{"pairs": true}')
        assert are_pairs(tmp_path, "train")
        assert not inspect(tmp_path).problems

    def test_stacks_match(self, tmp_path):
        for folder, name in (("radar", self.NFC), ("sun", self.NFD), ("b", self.NFC)):
            write(tmp_path / "train" / folder, f"{name}.png")
        (pair,) = find_stacked_pairs(tmp_path, "train", ["radar", "sun"], "b")
        assert [path.name for path in pair.more] == [f"{self.NFD}.png"]
        assert images_with_stem(tmp_path / "train" / "sun", self.NFC) == [f"{self.NFD}.png"]
        assert images_with_stem(tmp_path / "train" / "radar", self.NFD) == [f"{self.NFC}.png"]

    def test_both_encodings_in_one_folder_are_refused(self, tmp_path):
        write(tmp_path / "train", f"{self.NFC}.png", f"{self.NFD}.png")
        with pytest.raises(UserError, match="differ only in how their accents are encoded"):
            find_pairs(tmp_path, "train")


class TestUnread:
    def test_other_formats_are_counted_and_side_files_are_not(self, tmp_path):
        names = ["a.png", "b.jfif", "c.GIF", "d.gif", "e.ppm", "f.heic", "noname"]
        side = ["x.json", "x.txt", "x.csv", "a.png.aux.xml", "Thumbs.db", ".hidden.gif", ".DS_Store", "README", "a.tfw"]
        for name in [*names, *side]:
            (tmp_path / name).touch()
        (tmp_path / "sub.gif").mkdir()
        (tmp_path / "sub.gif" / "g.gif").touch()
        found = list_folder(tmp_path)
        assert [path.name for path in found.images] == ["a.png", "b.jfif"]
        assert {suffix: count for suffix, count in found.unread.items() if count} == {
            ".gif": 2,
            ".ppm": 1,
            ".heic": 1,
            "": 1,
        }
        assert list_folder(tmp_path, recursive=True).unread[".gif"] == 3
        assert (
            describe_unread(found.unread) == "Files in other formats are not read: 2 .gif, 1 .ppm, 1 .heic and 1 more."
        )
        assert describe_unread({}) == describe_unread({".gif": 0}) == ""

    def test_unread_files_are_named_for_pairs_and_domains(self, tmp_path):
        for folder in ("trainA", "trainB"):
            write(tmp_path / folder)
            (tmp_path / folder / "x.gif").touch()
        assert find_pairs(tmp_path, "train").unread == {".gif": 2}
        assert [files.unread for files in find_domains(tmp_path, "train")] == [{".gif": 1}] * 2

    @pytest.mark.parametrize("folders", [("train",), ("trainA", "trainB")])
    def test_a_folder_of_unread_files_is_one_message(self, tmp_path, folders):
        for folder in folders:
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "x.gif").touch()
        with pytest.raises(UserError, match=r"holds no images\. Files in other formats are not read: \d \.gif"):
            find_pairs(tmp_path, "train")


def test_a_folder_without_images_counts_only_where_there_is_no_other_layout(tmp_path):
    (tmp_path / "train").mkdir()
    assert [layout.kind for layout in layouts_of(tmp_path, "train")] == ["side by side"]
    write(tmp_path / "A" / "train")
    assert [layout.kind for layout in layouts_of(tmp_path, "train")] == ["two folders"]
