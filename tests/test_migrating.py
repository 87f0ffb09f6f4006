"""What docs/migrating.md names: all flags of the other tool, and options of ours that are there."""

import re
from pathlib import Path

import pytest

from cyclegan.__main__ import main as cyclegan
from data_scripts.__main__ import main as data_scripts
from pix2pix.__main__ import main as pix2pix

PAGE = (Path(__file__).parents[1] / "docs" / "migrating.md").read_text(encoding="utf-8")
FLAG = re.compile(r"--[a-zA-Z][\w-]*")
# pytorch-CycleGAN-and-pix2pix: its options/*.py, and what its models and datasets add.
THEIRS = """
    dataroot name gpu_ids checkpoints_dir model input_nc output_nc ngf ndf netD netG n_layers_D norm init_type init_gain
    no_dropout dataset_mode direction serial_batches num_threads batch_size load_size crop_size max_dataset_size
    preprocess no_flip display_winsize epoch load_iter verbose suffix use_wandb wandb_project_name display_freq
    display_ncols display_id display_server display_env display_port update_html_freq print_freq no_html
    save_latest_freq save_epoch_freq save_by_iter continue_train epoch_count phase n_epochs n_epochs_decay beta1 lr
    gan_mode pool_size lr_policy lr_decay_iters results_dir aspect_ratio eval num_test model_suffix lambda_L1 lambda_A
    lambda_B lambda_identity
"""


@pytest.fixture
def ours(in_process):
    """All flags that our commands' helps name."""
    commands = [
        *((main, name) for main in (pix2pix, cyclegan) for name in ("train", "translate", "evaluate", "report")),
        *((data_scripts, name) for name in ("resize", "grayscale")),
    ]
    return {flag for main, name in commands for flag in FLAG.findall(in_process(main)(name, "--help")[1])}


def cells(number):
    """Return one column of all tables, without their headings."""
    rows = [re.split(r" ?\| ?", line) for line in PAGE.splitlines() if line.startswith("| ")]
    return [row[number] for row in rows if row[1] not in ("there", "---")]


def test_every_flag_of_theirs_is_named():
    assert set(FLAG.findall(" ".join(cells(1)))) == {f"--{name}" for name in THEIRS.split()}


def test_every_flag_of_ours_is_there(ours):
    named = set(FLAG.findall(" ".join(cells(2))))
    assert len(named) > 30
    assert named <= ours
