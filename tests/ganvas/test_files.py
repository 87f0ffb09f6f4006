import errno
import os
import stat

import pytest
import torch

from ganvas import files
from ganvas.errors import UserError
from ganvas.files import (
    new_file,
    new_folder,
    read_json,
    recover_folder,
    require_writable,
    sha256,
    write_file,
    write_json,
)
from ganvas.tensorfile import load_tensors, save_tensors


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "model"
    with new_folder(target) as aside:
        (aside / "x").write_text("1")
        assert not target.exists()
    assert content(target) == {"x": "1"}
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_places_that_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "new", tmp_path / "deep" / "er" / "new"):
        require_writable(place)
    for place in (tmp_path, tmp_path / "new", tmp_path / "deep" / "er" / "new"):
        require_writable(place, is_folder=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("place", "is_folder", "said"),
    [
        ("", False, "is a folder. Give the name of a file"),
        ("file", True, "is a file. Give the name of a folder"),
        ("file/x", False, r"x: cannot be written \(Not a directory\)"),
        ("file/deep/x", True, r"x: cannot be written \(Not a directory\)"),
        ("locked/x", False, r"x: cannot be written \(Permission denied\)"),
        ("locked", True, r"locked: cannot be written \(Permission denied\)"),
        ("locked/deep/x", True, r"x: cannot be written \(Permission denied\)"),
    ],
)
def test_places_that_cannot_be_written_are_refused_before_the_work(tmp_path, monkeypatch, place, is_folder, said):
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir()
    locked = tmp_path / "locked"  # by a stand-in for os.access: to root, every folder is open
    monkeypatch.setattr(os, "access", lambda path, mode: path != locked and mode == os.W_OK | os.X_OK)
    with pytest.raises(UserError, match=said):
        require_writable(tmp_path / place, is_folder=is_folder)


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for names in ("ab", "bc"):
        with new_folder(tmp_path / "model") as aside:
            for name in names:
                (aside / name).write_text(names)
    assert content(tmp_path / "model") == {"b": "bc", "c": "bc"}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("other")])
def test_a_failure_leaves_the_old_folder_alone(tmp_path, error):
    with new_folder(tmp_path / "model") as aside:
        (aside / "x").write_text("old")
    with pytest.raises((UserError, RuntimeError)), new_folder(tmp_path / "model") as aside:
        (aside / "x").write_text("half")
        raise error
    assert content(tmp_path / "model") == {"x": "old"}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_death_between_the_two_renames_is_mended(tmp_path, monkeypatch):
    with new_folder(tmp_path / "model") as aside:
        (aside / "x").write_text("old")

    class Death(BaseException):
        pass

    original, calls = files.Path.rename, []

    def die(self, target):
        calls.append(self)
        if len(calls) == 2:
            raise Death
        return original(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "rename", die)
        patch.setattr(files.shutil, "rmtree", lambda *a, **k: None)
        with pytest.raises(Death), new_folder(tmp_path / "model") as aside:
            (aside / "x").write_text("new")
    assert not (tmp_path / "model").exists()
    recover_folder(tmp_path / "model")
    assert content(tmp_path / "model") == {"x": "old"}
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_death_left_is_removed_whatever_the_folder_is_called(tmp_path):
    for name in ("model", "model[1]"):
        (tmp_path / f".{name}.new-x").mkdir()
    recover_folder(tmp_path / "model[1]")
    assert [path.name for path in tmp_path.iterdir()] == [".model.new-x"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_what_is_written_can_be_shared(tmp_path):
    with new_folder(tmp_path / "model") as aside:
        save_tensors(aside / "w.safetensors", {"w": torch.zeros(2)})
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE((tmp_path / "model" / "w.safetensors").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o755


def test_a_file_of_the_longest_name_is_written_and_two_at_a_time(tmp_path):
    names = [f"{'x' * 250}{number}.png" for number in range(2)]
    with new_file(tmp_path / names[0]) as one, new_file(tmp_path / names[1]) as other:
        one.write_text("0")
        other.write_text("1")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {names[0]: "0", names[1]: "1"}


def test_write_file_replaces_whole(tmp_path, monkeypatch):
    write_file(tmp_path / "x", b"old")
    monkeypatch.setattr(files.Path, "replace", lambda *a: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space")))
    with pytest.raises(UserError, match="No space"):
        write_file(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_json_round_trip_and_errors(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1, "ü"]})
    assert read_json(tmp_path / "x.json", "a test") == {"a": [1, "ü"]}
    for name, text in (("list", "[1]"), ("torn", '{"a": '), ("binary", None)):
        path = tmp_path / name
        path.write_bytes(b"\xff\xfe\x00") if text is None else path.write_text(text)
        with pytest.raises(UserError, match=name):
            read_json(path, "a test")
    with pytest.raises(UserError, match=r"no such file; expected a test"):
        read_json(tmp_path / "nothing", "a test")
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "nan.json", {"a": float("nan")})  # no file that other programs cannot read


def test_sha256_of_the_standards_example(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, Appendix B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_tensors_in_any_layout(tmp_path):
    weights = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    save_tensors(tmp_path / "x", {"w": weights, "half": weights.bfloat16()})
    loaded = load_tensors(tmp_path / "x")
    assert torch.equal(loaded["w"], weights)
    assert loaded["half"].dtype == torch.bfloat16


@pytest.mark.parametrize("content", [None, b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{not json at al", b"\xff" * 100])
def test_tensors_that_are_none(tmp_path, content):
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match="is missing" if content is None else "is damaged"):
        load_tensors(tmp_path / "x")


def test_a_disk_that_is_full_for_tensors(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        save_tensors(tmp_path / "nowhere" / "x", {"w": torch.zeros(1)})
