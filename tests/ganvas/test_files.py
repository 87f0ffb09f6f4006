import contextlib
import errno
import json
import multiprocessing
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ganvas import files
from ganvas.errors import UserError
from ganvas.files import (
    HOST,
    encode_text,
    new_file,
    new_folder,
    read_consistently,
    recover_folder,
    require_writable,
    sha256,
    temporary_folder,
    write_file,
)
from ganvas.json_files import parse_json, read_json, write_json
from ganvas.models.tensors import load_tensors, save_tensors


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


ENDLESS = """
import sys, time
from pathlib import Path
from ganvas import files
from ganvas.files import *
kind, target = sys.argv[1], Path(sys.argv[2])
def wait():
    print("ready", flush=True)
    time.sleep(60)
if kind == "between":  # the two renames of `new_folder`
    rename = Path.rename
    Path.rename = lambda self, other: wait() if self.name == "new" else rename(self, other)
    with new_folder(target) as aside:
        (aside / "x").write_text("new")
else:
    temporary = lambda path: temporary_folder(path.name, path.parent)
    with {"folder": new_folder, "file": new_file, "temporary": temporary}[kind](target) as aside:
        if kind == "file":
            aside.touch()
        wait()
"""


@pytest.fixture
def killed():
    """Start a process that is then killed while it writes; ``alive`` keeps it until the test ends."""
    processes = []

    def start(kind, target, *, alive=False):
        process = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, kind, str(target)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        processes.append(process)
        process.stdout.readline()
        if not alive:
            process.kill()
            process.wait()

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def next_run(monkeypatch):
    """Clean up as a process that starts a minute later."""
    monkeypatch.setattr(files, "_swept", set())
    monkeypatch.setattr(files, "YOUNG", -1)


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_kill_between_the_two_renames_is_repaired_at_once(tmp_path, killed):
    with new_folder(tmp_path / "model") as aside:
        (aside / "x").write_text("old")
    killed("between", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    recover_folder(tmp_path / "model")
    assert content(tmp_path / "model") == {"x": "old"}


def test_a_reader_repairs_it_too(tmp_path, killed):
    with new_folder(tmp_path / "model") as aside:
        (aside / "x").write_text("old")
    killed("between", tmp_path / "model")
    assert read_consistently([tmp_path / "model"], lambda: (tmp_path / "model" / "x").read_text()) == "old"


def test_a_failure_between_the_two_renames_leaves_the_old_folder(tmp_path, monkeypatch):
    with new_folder(tmp_path / "model") as aside:
        (aside / "x").write_text("old")
    rename = Path.rename

    def fail(self, target):
        if self.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(UserError, match="Input/output error"), new_folder(tmp_path / "model") as aside:
        (aside / "x").write_text("new")
    assert content(tmp_path / "model") == {"x": "old"}
    assert not hidden(tmp_path)


MAKERS = {
    "folder": lambda path: recover_folder(path),
    "file": lambda path: write_file(path, b""),
    "temporary": lambda path: contextlib.ExitStack().enter_context(temporary_folder(path.name, path.parent)),
}


@pytest.mark.parametrize("name", ["model", "model[1]"])
@pytest.mark.parametrize("kind", MAKERS)
def test_the_next_run_removes_what_a_killed_process_left_and_nothing_of_a_living_one(
    tmp_path, killed, next_run, kind, name
):
    killed(kind, tmp_path / name, alive=True)
    (living,) = tmp_path.iterdir()
    killed(kind, tmp_path / name)
    (dead,) = {*tmp_path.iterdir()} - {living}
    MAKERS[kind](tmp_path / name)
    assert living.exists()
    assert not dead.exists()


def leftover(folder, name, *, lock=True, age=0.0, mode=0o700):
    path = folder / name
    path.mkdir()
    if lock:
        (path / "owner.lock").touch()
    path.chmod(mode)
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.mark.parametrize(
    ("name", "options", "stays"),
    [
        (f"x-{HOST}-1", {"age": 61}, False),
        (f"x-{HOST}-1", {"age": 30}, True),  # its owner may be about to lock it
        (f"x-{HOST}-1", {"age": 61, "lock": False}, True),  # made where there are no locks
        (f"x-{HOST}-1", {"age": 86_460, "lock": False}, False),
        ("x-0badcafe-1", {"age": 61}, True),  # another machine, whose locks this one may not see
        ("x-0badcafe-1", {"age": 86_460}, False),
        pytest.param(
            f"x-{HOST}-1",
            {"age": 61, "mode": 0o777},
            True,
            marks=pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions"),
        ),  # others may have put anything there
    ],
)
def test_what_counts_as_abandoned(tmp_path, monkeypatch, name, options, stays):
    monkeypatch.setattr(files, "_swept", set())
    path = leftover(tmp_path, name, **options)
    with temporary_folder("x-", tmp_path):
        assert path.exists() == stays


@pytest.mark.parametrize(
    ("name", "age", "stays"),
    [
        (f".new-{HOST}-999999999-{'0' * 16}.png", 61, False),
        (f".new-{HOST}-999999999-{'0' * 16}", 61, False),
        (f".new-{HOST}-999999999-{'0' * 16}.png", 30, True),
        (f".new-{HOST}-{os.getpid()}-{'0' * 16}.png", 61, True),  # at work, or another process of that number
        (f".new-{HOST}-{os.getpid()}-{'0' * 16}.png", 86_460, False),
        (f".new-0badcafe-999999999-{'0' * 16}.png", 61, True),  # another machine
        (f".new-0badcafe-999999999-{'0' * 16}.png", 86_460, False),
        (".new-york.png", 86_460, True),
    ],
    ids=range(8),
)
def test_which_files_count_as_abandoned(tmp_path, monkeypatch, name, age, stays):
    monkeypatch.setattr(files, "_swept", set())
    (tmp_path / name).touch()
    os.utime(tmp_path / name, (time.time() - age,) * 2)
    write_file(tmp_path / "x", b"")
    assert (tmp_path / name).exists() == stays


@pytest.mark.skipif(os.name == "nt", reason="makes links")
def test_links_and_folders_of_others_are_left_alone(tmp_path, monkeypatch, next_run):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "owner.lock").write_text("mine")
    (tmp_path / f"x-{HOST}-link").symlink_to(victim)
    trap = leftover(tmp_path, f"x-{HOST}-trap", lock=False)
    (trap / "owner.lock").symlink_to(victim / "owner.lock")
    foreign = leftover(tmp_path, f"x-{HOST}-foreign")
    with temporary_folder("x-", tmp_path):
        assert (victim / "owner.lock").read_text() == "mine"
        assert (tmp_path / f"x-{HOST}-link").is_symlink()
        assert not foreign.exists()
    foreign = leftover(tmp_path, f"x-{HOST}-foreign")
    monkeypatch.setattr(files, "_swept", set())
    monkeypatch.setattr(os, "geteuid", lambda: foreign.stat().st_uid + 1)
    with temporary_folder("x-", tmp_path):
        assert foreign.exists()


@pytest.mark.skipif(os.name == "nt", reason="makes links")
def test_a_link_stays_and_the_folder_behind_it_is_replaced(tmp_path):
    disk, run = tmp_path / "disk", tmp_path / "run"
    disk.mkdir()
    run.mkdir()
    (run / "model").symlink_to("../disk/model", target_is_directory=True)
    for number in range(3):  # the first of them makes the folder
        with new_folder(run / "model") as aside:
            (aside / "x").write_text(str(number))
        assert content(run / "model") == {"x": str(number)}
        assert (run / "model").is_symlink()
    recover_folder(run / "model")
    assert [path.name for path in disk.iterdir()] == ["model"]
    assert [path.name for path in run.iterdir()] == ["model"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
def test_folders_and_files_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with new_folder(tmp_path / "model") as aside:
            (aside / "x").touch()
        write_file(tmp_path / "y", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((tmp_path / "model" / "x").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "y").stat().st_mode) == 0o666 & ~umask


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot sync folders")
def test_names_are_synced_after_the_rename(tmp_path, monkeypatch):
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(os.fstat(number).st_ino), sync(number)))
    write_file(tmp_path / "x", b"1")
    assert synced == [(tmp_path / "x").stat().st_ino, tmp_path.stat().st_ino]
    synced.clear()
    with new_folder(tmp_path / "model") as aside:
        (aside / "x").touch()
    model = tmp_path / "model"
    assert synced == [(model / "x").stat().st_ino, model.stat().st_ino, tmp_path.stat().st_ino]


def replace_for_ever(folder, stop):
    number = 0
    while not stop.is_set():
        number += 1
        with new_folder(folder) as aside:
            for name in "ab":
                (aside / name).write_text(str(number))
        time.sleep(0.002)


def test_a_reader_beside_a_writer_gets_one_whole_version(tmp_path):
    folder = tmp_path / "model"
    context = multiprocessing.get_context("fork" if os.name != "nt" else "spawn")
    stop = context.Event()
    writer = context.Process(target=replace_for_ever, args=(folder, stop))
    writer.start()
    try:
        while not folder.exists():
            time.sleep(0.001)

        def read():
            first = (folder / "a").read_text()
            time.sleep(0.001)
            return first, (folder / "b").read_text()

        found = [read_consistently([folder], read) for _ in range(100)]
    finally:
        stop.set()
        writer.join()
    assert all(a == b for a, b in found)
    assert len(set(found)) > 1  # the writer was at work


def test_what_is_not_there_is_told_at_once(tmp_path):
    def read():
        raise UserError("nothing there")

    start = time.monotonic()
    with pytest.raises(UserError, match="nothing there"):
        read_consistently([tmp_path / "model"], read)
    assert time.monotonic() - start < files.REREAD_SECONDS / 4


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_tensors_are_written_as_any_file_is(tmp_path):
    save_tensors(tmp_path / "w.safetensors", {"w": torch.zeros(2)})
    (tmp_path / "plain").touch()
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


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


NOT_JSON = {
    "deep": (b"[" * 100_000, "nested too deeply"),
    "deep objects": (b'{"a":' * 100_000, "nested too deeply"),
    "long number": (b'{"a": ' + b"9" * 5000 + b"}", "a number has 5000 digits"),
    "infinity": (b'{"a": Infinity}', "Infinity is not a JSON value"),
    "not a number": (b'{"a": [NaN]}', "NaN is not a JSON value"),
    "large": (b'{"a": 1e999}', "the number 1e999 is too large"),
    "half a character": (b'{"a": [{"b": "\\ud800"}]}', "half a character"),
    "half a character in a key": (b'{"\\uD83D": 1}', "half a character"),
    "latin-1": ('{"a": "ü"}'.encode("latin-1"), "is no JSON"),
}


@pytest.mark.parametrize(("text", "message"), NOT_JSON.values(), ids=NOT_JSON)
def test_json_that_nothing_can_use_is_one_message(tmp_path, text, message):
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(UserError, match=f"x.json: .*{message}.*; expected a test"):
        read_json(tmp_path / "x.json", "a test")


@pytest.mark.parametrize("text", ['{"a": 1' + "0" * 99 + ', "b": "\\ud83d\\ude00", "c": 1e308}', '[[["\\\\ud800"]]]'])
def test_unusual_json_that_is_good(text):
    assert parse_json(text) == json.loads(text)


def test_a_large_file_is_not_read_as_json(tmp_path, monkeypatch):
    monkeypatch.setattr("ganvas.json_files.MAX_BYTES", 100)
    (tmp_path / "x.json").write_text('{"a": "' + "x" * 92 + '"}')
    with pytest.raises(UserError, match="more than 0 MiB"):
        read_json(tmp_path / "x.json", "a test")
    (tmp_path / "x.json").write_text('{"a": "' + "x" * 91 + '"}')
    assert len(read_json(tmp_path / "x.json", "a test")["a"]) == 91


def test_a_file_name_that_is_not_utf8_survives_json_and_is_an_escape_in_text(tmp_path):
    name = os.fsdecode(b"na\xefve") if os.name != "nt" else "na\udcefve"
    write_json(tmp_path / "x.json", {name: name})
    assert read_json(tmp_path / "x.json", "a test") == {name: name}
    assert encode_text(name) == b"na\\udcefve"
    write_file(tmp_path / "card.md", name)
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == "na\\udcefve"


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
