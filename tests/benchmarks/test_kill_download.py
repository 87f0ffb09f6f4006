"""The benchmark's own check, with a few kills; GANVAS_KILLS=100 asks for more."""

import os
import sys

from benchmarks.kill_download import main

KILLS = int(os.environ.get("GANVAS_KILLS", "5"))


def test_killed_downloads_are_finished_clean(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["kill_download", "--kills", str(KILLS), "--pictures", "40", "--seconds", "0.2"])
    assert main() == 0
    out = capfd.readouterr().out
    assert f"{KILLS} kills: " in out
    assert out.endswith("0 faults\n")
