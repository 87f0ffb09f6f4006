"""The lock on a run's folder; tests of bad input in pix2pix hold it from another process."""

import os
from types import SimpleNamespace

import pytest

from ganvas.errors import UserError
from ganvas.training.lock import LOCK, locked_run

ONE_PROCESS = SimpleNamespace(is_global_zero=True, broadcast=lambda value: value)


@pytest.mark.skipif(os.name == "nt", reason="Windows asks for a permission to create links")
def test_a_symbolic_link_in_place_of_the_lock_changes_no_other_file(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "mine.txt")
    with locked_run(tmp_path / "run", ONE_PROCESS):
        assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_check_that_fails_releases_the_lock(tmp_path):
    def fails():
        raise UserError("holds a run already")

    with pytest.raises(UserError, match="holds a run already"), locked_run(tmp_path, ONE_PROCESS, check=fails):
        pass
    with locked_run(tmp_path, ONE_PROCESS):
        pass
