"""The check of --resume: its trainings are ones that the commands accept, and it passes only what it has tried."""

import subprocess
import sys

import pytest

import cyclegan.__main__
import cyclegan.config
import dcgan.__main__
import dcgan.config
import pix2pix.__main__
import pix2pix.config
from benchmarks import kill_and_resume
from benchmarks.kill_and_resume import Options, command, main
from ganvas.cli.train import parse_train

TRAININGS = {
    "cyclegan": (cyclegan.__main__.Train, cyclegan.config.CycleGanConfig, cyclegan.config),
    "dcgan": (dcgan.__main__.Train, dcgan.config.DcganConfig, dcgan.config),
    "pix2pix": (pix2pix.__main__.Train, pix2pix.config.Pix2PixConfig, pix2pix.config),
}


@pytest.mark.parametrize("model", TRAININGS)
def test_the_trainings_are_ones_that_the_commands_accept(tmp_path, model):
    train, config, module = TRAININGS[model]
    line = command(Options("x", model), tmp_path, resume=False)
    assert line[1:4] == ["-m", model, "train"]
    options = parse_train(model, train, config, (), module.preset, line[4:]).options
    module.check(options)
    assert (options.schedule.steps, options.hardware.threads) == (600, 1)
    assert command(Options("x", model), tmp_path, resume=True)[-1] == "--resume"


def pretend(sleeps):
    """Make trainings of no steps that end at once, or sleep; each has left a whole checkpoint and a model."""

    def start(options, run):
        (run / "checkpoints" / f"step-{options.steps:08d}").mkdir(parents=True, exist_ok=True)
        (run / "model").mkdir(exist_ok=True)
        (run / "model" / "model.safetensors").write_bytes(b"weights")
        process = subprocess.Popen([sys.executable, "-c", sleeps], stderr=subprocess.PIPE, text=True)
        if not sleeps:
            process.wait()
        return process

    return start


def test_bytes_that_no_kill_came_before_prove_nothing(monkeypatch, capsys):
    monkeypatch.setattr(kill_and_resume, "start", pretend(""))
    assert main(["--data", "x", "--kills", "1"]) == 1
    assert "killed 0 times" in (said := capsys.readouterr().out)
    assert "ended before kill 1" in said


def test_a_training_that_fails_is_not_taken_for_a_killed_one(monkeypatch):
    monkeypatch.setattr(kill_and_resume, "start", pretend("raise SystemExit(2)"))
    with pytest.raises(RuntimeError, match="failed with exit code 2"):
        main(["--data", "x"])
