"""The table of presets: each is trained to its end once, resumed where it was stopped, and evaluated."""

import json

import pytest

import dcgan
from benchmarks import digits
from benchmarks.digits import Options, evaluate
from dcgan.config import preset
from ganvas.training.config import with_options

STEPS = 600  # 120,000 images in batches of 200


def write_run(run, step):
    (run / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    (run / "metrics.jsonl").write_text(json.dumps({"step": step, "seconds": 90.0}))


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Calls of the Python functions, which train nothing but check their options."""
    made = []

    def train(run=tmp_path / "mlp", *, out=None, **options):
        made.append("resume" if out is None else "train")
        with_options(preset(options.pop("preset", None)), {"data": "mnist", **options})
        assert options["steps"] == STEPS
        write_run(run, STEPS)

    monkeypatch.setattr(dcgan, "train", train)
    monkeypatch.setattr(dcgan, "resume", train)
    monkeypatch.setattr(digits, "draw_grid", lambda *_, **__: made.append("sample"))
    monkeypatch.setattr(dcgan, "evaluate", lambda *_, **__: made.append("evaluate") or {"metrics": {}})
    return made


def test_each_preset_is_trained_on_the_same_number_of_images(calls, tmp_path):
    assert evaluate("mlp", Options(tmp_path))["minutes"] == 1.5
    assert calls == ["train", "sample", "evaluate"]


@pytest.mark.parametrize(
    ("step", "expected"), [(150, ["resume", "sample", "evaluate"]), (STEPS, ["sample", "evaluate"])]
)
def test_stopped_runs_are_resumed_and_finished_ones_evaluated(calls, tmp_path, step, expected):
    write_run(tmp_path / "mlp", step)
    (tmp_path / "mlp" / "config.json").write_text("{}")
    evaluate("mlp", Options(tmp_path))
    assert calls == expected
