"""The table of presets: each is trained to its end once, goes on where it was stopped, and is evaluated."""

import json

import pytest

from benchmarks import digits
from benchmarks.digits import Options, evaluate

STEPS = 600  # 120,000 images in batches of 200


def write_run(run, step):
    (run / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    (run / "metrics.jsonl").write_text(json.dumps({"step": step, "seconds": 90.0}))


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """The command lines that would be run; none is."""
    given = []

    def pretend(*arguments):
        given.append(arguments)
        if arguments[0] == "train":
            write_run(tmp_path / "mlp", STEPS)
        return json.dumps({"metrics": {}})

    monkeypatch.setattr(digits, "_dcgan", pretend)
    return given


def test_each_preset_is_trained_on_the_same_number_of_images(commands, tmp_path):
    assert evaluate("mlp", Options(tmp_path))["minutes"] == 1.5
    assert [command[0] for command in commands] == ["train", "sample", "evaluate"]
    training = commands[0]
    assert "--resume" not in training
    assert training[training.index("--preset") + 1] == "mlp"
    assert training[training.index("--steps") + 1] == str(STEPS)


def test_stopped_runs_are_resumed(commands, tmp_path):
    write_run(tmp_path / "mlp", 150)
    (tmp_path / "mlp" / "model").mkdir()
    (tmp_path / "mlp" / "config.json").write_text("{}")
    evaluate("mlp", Options(tmp_path))
    assert "--resume" in commands[0]
    assert "--preset" not in commands[0]


def test_finished_runs_are_not_trained_again(commands, tmp_path):
    write_run(tmp_path / "mlp", STEPS)
    evaluate("mlp", Options(tmp_path))
    assert [command[0] for command in commands] == ["sample", "evaluate"]
