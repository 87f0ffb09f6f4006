"""Listing and removing checkpoints."""

import pytest

from ganvas.training.checkpoint import checkpoint_folder, list_checkpoints, remove_old


def list_steps(run):
    return [int(folder.name.removeprefix("step-")) for folder in list_checkpoints(run)]


def make(run, steps, *others):
    for name in [*(checkpoint_folder(run, step).name for step in steps), *others]:
        (run / "checkpoints" / name).mkdir(parents=True)


@pytest.mark.parametrize(
    ("steps", "keep", "best", "step", "left"),
    [
        ([100, 200, 300], 2, None, 300, [200, 300]),
        ([100, 200, 300], 1, 100, 300, [100, 300]),
        ([100, 200, 300, 400], 2, 300, 400, [300, 400]),
        ([100, 200, 800], 1, None, 200, [200]),  # 800 was damaged, so training resumed from 100
        ([100, 200, 700, 800], 2, 100, 200, [100, 200]),
        ([99_999_999, 100_000_000], 1, None, 100_000_000, [100_000_000]),  # the longer number would come first as text
    ],
)
def test_newest_and_best_are_kept(tmp_path, steps, keep, best, step, left):
    make(tmp_path, steps)
    remove_old(tmp_path, keep, best, step)
    assert list_steps(tmp_path) == left


def test_other_folders_are_kept(tmp_path):
    copies = ["step-00000200-mine", "step-00000100.bak", "step-12", "mine"]
    make(tmp_path, [100, 200], *copies)
    assert list_steps(tmp_path) == [100, 200]
    remove_old(tmp_path, 1, None, 200)
    assert {folder.name for folder in (tmp_path / "checkpoints").iterdir()} == {"step-00000200", *copies}
