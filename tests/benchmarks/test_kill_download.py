"""The benchmark's own check, with a few kills; GANVAS_KILLS=100 asks for more."""

import os

import pytest

from benchmarks import kill_download
from benchmarks.kill_download import PATHS, finish, main, make_files, offered, pack, read_files, serving
from data_scripts.sets.catalog import FOLDERS

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("GANVAS_KILLS", "8"))  # two for each kind of archive


def test_killed_downloads_are_finished_clean(monkeypatch, capfd):
    assert main(["--kills", str(KILLS), "--pictures", "40", "--seconds", "0.2"]) == 0
    out = capfd.readouterr().out
    assert f"{KILLS // 2 * 2} kills: " in out
    assert out.endswith(" 0 faults\n")


@pytest.mark.parametrize(("layout", "magic"), [("unpaired", b"PK"), ("paired", b"\x1f\x8b")])
def test_both_kinds_of_archive_are_fetched(layout, magic, tmp_path):
    files = make_files(layout, 9)
    archive = pack(layout, files)
    assert archive.startswith(magic)
    with serving({PATHS[layout]: archive}, 0.0) as server:
        wanted = offered(server, layout, has_digest=False)
        finish(wanted, tmp_path / "set")
    assert read_files(tmp_path / "set") == files
    assert {name.partition("/")[0] for name in files} == set(FOLDERS[layout])


def test_a_partial_dataset_is_a_fault(monkeypatch, capfd):
    def kill(wanted, out, after):
        (out / "train").mkdir(parents=True, exist_ok=True)
        return "done"

    monkeypatch.setattr(kill_download, "kill", kill)
    monkeypatch.setattr(kill_download, "finish", lambda wanted, out: None)
    assert main(["--kills", "4", "--pictures", "4", "--seconds", "0"]) == 1
    out = capfd.readouterr().out
    assert out.count("partial=True, wrong=True") == 2
    assert out.endswith(" 2 faults\n")
