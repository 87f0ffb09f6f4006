"""Outputs that destroy nothing, and images that fail without stopping the others."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from data_scripts.tools.folder_ops import by_name, find_images, in_parallel, prepare_output, suffix_for, write_folder
from ganvas.data.raster import Raster
from ganvas.data.tiff_tags import Tags
from ganvas.errors import UserError
from ganvas.files import HOST

GRAY = Raster.from_array(np.zeros((2, 3, 1), np.uint8))


@pytest.fixture
def folder(tmp_path):
    """A folder with a image and a subfolder."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("x.png", "sub/y.jpg", "notes.txt", ".hidden.png"):
        (tmp_path / "in" / name).write_bytes(b"")
    return tmp_path / "in"


class TestRoom:
    @pytest.mark.parametrize("out", ["in", "in/sub", ".", "in/../in"])
    def test_an_output_in_the_input_or_around_it_is_refused(self, folder, out):
        with pytest.raises(UserError, match="overlap"):
            prepare_output(folder.parent / out, [folder], overwrite=True)

    def test_links_are_followed(self, folder):
        (folder.parent / "other").mkdir()
        link = folder.parent / "other" / "link"
        link.symlink_to(folder, target_is_directory=True)
        for out, source in ((link, folder), (folder, link), (folder / "sub", link), (folder.parent, link)):
            with pytest.raises(UserError, match="overlap"):
                prepare_output(out, [source], overwrite=True)

    def test_a_name_in_capitals_is_the_same_folder_on_such_file_systems(self, folder, monkeypatch):
        (folder.parent / "IN").mkdir(exist_ok=True)  # on Linux another one
        assert prepare_output(folder.parent / "IN" / "x", [folder], overwrite=False)
        identify = Path.samefile
        monkeypatch.setattr(Path, "samefile", lambda one, other: identify(Path(str(one).replace("IN", "in")), other))
        with pytest.raises(UserError, match="overlap"):
            prepare_output(folder.parent / "IN" / "x", [folder], overwrite=False)

    def test_a_new_or_empty_folder_is_accepted_and_a_file_refused(self, folder):
        (folder.parent / "in2").mkdir()
        for name in ("in2", "in3"):
            assert prepare_output(folder.parent / name, [folder], overwrite=False) == folder.parent.resolve() / name
        with pytest.raises(UserError, match="is a file"):
            prepare_output(folder / "x.png", [], overwrite=True)

    def test_existing_output_is_replaced_only_on_request(self, tmp_path):
        for name in ("x.png", "dataset.json", ".DS_Store"):
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(UserError, match="--overwrite"):
            prepare_output(tmp_path, [], overwrite=False)
        prepare_output(tmp_path, [], overwrite=True)

    def test_files_other_than_images_are_never_replaced(self, folder):
        (folder / ".hidden.png").unlink()
        with pytest.raises(UserError, match=r"notes\.txt"):
            prepare_output(folder, [], overwrite=True)
        assert (folder / "x.png").exists()

    def test_links_to_other_files_are_never_replaced(self, folder, tmp_path):
        (tmp_path / "out" / "sub").mkdir(parents=True)
        (tmp_path / "out" / "x.png").symlink_to(folder / "x.png")
        prepare_output(tmp_path / "out", [], overwrite=True)
        (tmp_path / "out" / "sub" / "link").symlink_to(folder, target_is_directory=True)
        with pytest.raises(UserError, match="link"):
            prepare_output(tmp_path / "out", [], overwrite=True)

    def test_leftovers_of_a_killed_process_are_removed(self, tmp_path):
        leftover = tmp_path / f".out.new-{HOST}-abc"
        (leftover / "new").mkdir(parents=True)
        (leftover / "new" / "x.png").write_bytes(b"")
        (leftover / "owner.lock").touch()
        leftover.chmod(0o700)
        os.utime(leftover, (0, 0))
        prepare_output(tmp_path / "out", [], overwrite=False)
        assert list(tmp_path.iterdir()) == []


class TestNames:
    def test_images_in_subfolders_are_found_and_hidden_ones_skipped(self, folder):
        (folder / ".cache").mkdir()
        (folder / ".cache" / "z.png").write_bytes(b"")
        assert find_images(folder) == [folder / "sub" / "y.jpg", folder / "x.png"]

    def test_a_folder_without_images_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="holds no images"):
            find_images(tmp_path)

    def test_names_are_relative_paths_without_suffix(self, folder):
        files = [folder / "a.b.png", folder / "sub" / "y.jpg"]
        assert by_name(folder, files) == {"a.b": files[0], "sub/y": files[1]}

    @pytest.mark.parametrize(
        ("one", "other"), [("x.png", "x.jpg"), ("x.png", "X.png"), ("caf\u00e9.png", "cafe\u0301.png")]
    )
    def test_names_that_collide_on_some_file_system_are_refused(self, folder, one, other):
        with pytest.raises(UserError, match=f"{one} and {other}"):
            by_name(folder, [folder / one, folder / other])


@pytest.mark.parametrize(
    ("dtype", "channels", "alpha", "suffix", "expected"),
    [
        (np.uint8, 3, "none", ".jpg", ".jpg"),
        (np.uint8, 4, "straight", ".png", ".png"),
        (np.uint8, 4, "none", ".png", ".tif"),
        (np.uint8, 4, "premultiplied", ".png", ".tif"),
        (np.uint8, 4, "straight", ".jpg", ".tif"),
        (np.uint16, 3, "none", ".png", ".png"),
        (np.uint16, 3, "none", ".jpg", ".tif"),
        (np.uint16, 2, "straight", ".png", ".tif"),
        (np.float32, 1, "none", ".png", ".tif"),
        (np.uint8, 5, "none", ".png", ".tif"),
        (np.float32, 5, "none", ".npy", ".npy"),
    ],
)
def test_the_output_format_depends_on_dtype_channels_and_alpha(dtype, channels, alpha, suffix, expected):
    image = Raster(np.zeros((1, 1, channels), dtype), Tags(), np.zeros((1, 1), bool), alpha)
    assert suffix_for(image, suffix) == expected


def test_work_is_parallel_and_results_are_ordered(monkeypatch):
    monkeypatch.setattr("data_scripts.tools.folder_ops.os.cpu_count", lambda: 2)
    both = threading.Barrier(2, timeout=10)  # passes only when two are at work

    def work(number):
        both.wait()
        return number * number

    assert list(in_parallel(work, range(6), "working")) == [0, 1, 4, 9, 16, 25]


def test_more_work_than_fits_in_the_queue(monkeypatch):
    monkeypatch.setattr("data_scripts.tools.folder_ops.BATCH", 3)
    assert list(in_parallel(str, range(8), "working")) == list("01234567")


class TestWriting:
    def test_a_failure_is_reported_and_the_others_are_written(self, tmp_path):
        def make(number):
            if number in (2, 4):
                raise UserError(f"{number}: is broken")
            yield f"sub/{number}.png", GRAY
            yield f"{number}.txt", b"text"

        with pytest.raises(UserError) as error:
            write_folder(tmp_path / "out", range(5), make, title="making")
        assert "2 of 5" in str(error.value)
        assert [line.strip() for line in str(error.value).splitlines()[1:]] == ["2: is broken", "4: is broken"]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.txt", "1.txt", "3.txt", "sub"]
        assert sorted(path.name for path in (tmp_path / "out" / "sub").iterdir()) == ["0.png", "1.png", "3.png"]

    def test_a_missing_file_is_a_failure(self, tmp_path):
        gone = tmp_path / "gone.png"
        with pytest.raises(UserError, match=r"gone\.png: cannot be read \(No such file or directory\)"):
            write_folder(tmp_path / "out", [gone], lambda path: [("x.png", path.read_bytes())], title="making")

    def test_if_all_fail_an_existing_folder_is_kept(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old.png").write_bytes(b"old")

        def make(number):
            raise UserError("broken")

        with pytest.raises(UserError, match="not written"):
            write_folder(tmp_path / "out", [1, 2], make, title="making")
        assert [path.name for path in tmp_path.rglob("*")] == ["out", "old.png"]

    def test_an_existing_folder_is_replaced_atomically(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old.png").write_bytes(b"old")
        assert write_folder(tmp_path / "out", [1], lambda _: [("new.png", GRAY)], title="making") == []
        assert [path.name for path in tmp_path.rglob("*")] == ["out", "new.png"]

    def test_skipped_images_are_reported(self, tmp_path):
        left_out = write_folder(
            tmp_path / "out", range(4), lambda n: [(f"{n}.png", GRAY)] if n % 2 else [], title="making"
        )
        assert left_out == [0, 2]
        with pytest.raises(UserError, match="nothing could be made of 2 images: they are dull"):
            write_folder(tmp_path / "other", range(2), lambda _: [], title="making", skip_reason="they are dull")

    def test_an_unwritable_output_stops_everything(self, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(UserError, match="cannot be written"):
            write_folder(tmp_path / "file" / "out", [1], lambda _: [("x.png", GRAY)], title="making")
        with pytest.raises(UserError, match="cannot be written"):
            write_folder(tmp_path / "out", [1], lambda _: [("x", b""), ("x/y.png", b"")], title="making")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    @pytest.mark.parametrize("places", [("x.tif", "x.tif"), ("sub/x.png", "sub/X.PNG")])
    def test_of_two_images_with_one_output_the_second_is_reported(self, tmp_path, places):
        with pytest.raises(UserError, match=r"1 of 2 failed:\n.*is the output of two images"):
            write_folder(tmp_path / "out", places, lambda place: [(place, GRAY)], title="making")
        assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 1

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only to root")
    def test_a_read_only_output_folder(self, tmp_path):
        tmp_path.chmod(0o555)
        try:
            with pytest.raises(UserError, match="cannot be written"):
                write_folder(tmp_path / "out", [1], lambda _: [("x.png", GRAY)], title="making")
        finally:
            tmp_path.chmod(0o755)

    def test_dataset_json_is_copied_or_written(self, tmp_path):
        for number, (given, expected) in enumerate([({"a": 1}, '{\n  "a": 1\n}\n'), (b"{ }", "{ }")]):
            out = tmp_path / str(number)
            write_folder(out, [1], lambda _: [("x.png", GRAY)], title="making", description=given)
            assert (out / "dataset.json").read_text() == expected
