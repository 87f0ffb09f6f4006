import contextlib
import errno
import multiprocessing
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganvas import files
from ganvas.errors import UserError
from ganvas.files import (
    HOST,
    new_file,
    new_folder,
    read_consistently,
    recover_folder,
    require_writable,
    sha256,
    temporary_folder,
    write_file,
)


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_appears_complete(tmp_path):
    target = tmp_path / "deep" / "model"
    with new_folder(target) as aside:
        (aside / "x").write_text("1")
        assert not target.exists()
    assert content(target) == {"x": "1"}
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_writable_paths(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "new", tmp_path / "deep" / "er" / "new"):
        require_writable(place)
    for place in (tmp_path, tmp_path / "new", tmp_path / "deep" / "er" / "new"):
        require_writable(place, is_folder=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("place", "is_folder", "message"),
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
def test_unwritable_paths_are_refused_first(tmp_path, monkeypatch, place, is_folder, message):
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir()
    locked = tmp_path / "locked"  # by a stand-in for os.access: to root, every folder is open
    monkeypatch.setattr(os, "access", lambda path, mode: path != locked and mode == os.W_OK | os.X_OK)
    with pytest.raises(UserError, match=message):
        require_writable(tmp_path / place, is_folder=is_folder)


def test_a_folder_is_replaced_atomically(tmp_path):
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


def test_a_reader_repairs_a_killed_replacement(tmp_path, killed):
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
def test_only_leftovers_of_killed_processes_are_removed(tmp_path, killed, next_run, kind, name):
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


def test_a_concurrent_reader_gets_one_complete_version(tmp_path):
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


def test_a_missing_folder_is_reported_at_once(tmp_path):
    def read():
        raise UserError("nothing there")

    start = time.monotonic()
    with pytest.raises(UserError, match="nothing there"):
        read_consistently([tmp_path / "model"], read)
    assert time.monotonic() - start < files.REREAD_SECONDS / 4


def test_a_file_of_the_longest_name_is_written_and_two_at_a_time(tmp_path):
    names = [f"{'x' * 250}{number}.png" for number in range(2)]
    with new_file(tmp_path / names[0]) as one, new_file(tmp_path / names[1]) as other:
        one.write_text("0")
        other.write_text("1")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {names[0]: "0", names[1]: "1"}


def test_write_file_replaces_atomically(tmp_path, monkeypatch):
    write_file(tmp_path / "x", b"old")
    monkeypatch.setattr(files.Path, "replace", lambda *a: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space")))
    with pytest.raises(UserError, match="No space"):
        write_file(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_sha256_of_the_standards_example(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, Appendix B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
