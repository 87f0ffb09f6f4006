"""Scripts that start processes to load images."""

import runpy

import pytest

from ganvas.errors import UserError

SCRIPT = """
from types import SimpleNamespace

from ganvas.training.config import HardwareConfig
from ganvas.training.run import loading_workers

def train():
    return loading_workers(HardwareConfig(workers={workers}), SimpleNamespace(device=SimpleNamespace(type="cpu")))

{call}
"""
GUARDED = """if __name__ == "__main__":
    found = train()"""


@pytest.mark.parametrize(
    ("method", "workers", "call", "refused"),
    [
        ("spawn", 1, "found = train()", True),
        ("forkserver", 2, "found = train()", True),
        ("spawn", 2, GUARDED, False),
        ("spawn", 0, "found = train()", False),
        ("spawn", None, "found = train()", False),
        ("fork", 1, "found = train()", False),
    ],
)
def test_script_without_a_main_guard_is_refused_if_processes_are_spawned(
    tmp_path, monkeypatch, method, workers, call, refused
):
    monkeypatch.setattr("multiprocessing.get_start_method", lambda: method)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(workers=workers, call=call))
    if refused:
        with pytest.raises(UserError, match=r'script.py: has no `if __name__ == "__main__":`.*--workers 0'):
            runpy.run_path(str(script), run_name="__main__")
    else:
        assert runpy.run_path(str(script), run_name="__main__")["found"] == (workers or 0)
