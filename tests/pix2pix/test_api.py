"""pix2pix from Python: train, resume, evaluate, callbacks, own networks and losses."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import ganvas
import pix2pix
from ganvas.errors import UserError
from ganvas.files import sha256
from ganvas.training.callbacks import StopTraining

TINY = {
    "image_size": 32,
    "levels": 3,
    "base_channels": 4,
    "discriminator_channels": 4,
    "patch_layers": 1,
    "threads": 1,
    "steps": 6,
    "save_every_steps": 2,
    "log_every_steps": 2,
    "sample_every_steps": 3,
    "device": "cpu",
}


class Recorder:
    """Records all calls; may stop the training at a step."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def on_train_start(self):
        self.calls.append(("start",))

    def on_log(self, step, metrics):
        self.calls.append(("log", step, sorted(metrics)))
        if step == self.stop_at:
            raise StopTraining

    def on_images(self, step, image):
        self.calls.append(("images", step, image.dtype, image.ndim))

    def on_checkpoint(self, step, path):
        self.calls.append(("checkpoint", step, path.name))

    def on_train_end(self, result):
        self.calls.append(("end", result.step, result.complete))


class OwnGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return torch.tanh(self.layer(x))


class OwnDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(6, 1, 4, 2, 1)

    def forward(self, x):
        return self.layer(x)


def digest(run):
    return sha256(run / "model" / "model.safetensors")


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_python_and_the_command_line_train_the_same_model(pairs, trained, tmp_path, capsys):
    result = pix2pix.train(pairs, out=tmp_path / "run", **TINY)
    assert digest(tmp_path / "run") == digest(trained)
    assert (result.run, result.step, result.complete, result.exit_code) == (tmp_path / "run", 6, True, 0)
    assert result.metrics["val_l1"] > 0
    image = np.zeros((32, 32, 3), np.uint8)
    assert np.array_equal(result.model.translate(image), ganvas.load(trained).translate(image))
    assert capsys.readouterr().out == ""
    again = pix2pix.evaluate(tmp_path / "run", data=pairs)
    assert again["metrics"]["l1"]["mean"] == pytest.approx(
        pix2pix.evaluate(trained, data=pairs)["metrics"]["l1"]["mean"]
    )


def test_callbacks_are_called_in_order(pairs, tmp_path):
    recorder = Recorder()
    pix2pix.train(pairs, out=tmp_path / "run", callbacks=[recorder], **TINY)
    assert recorder.calls[0] == ("start",)
    assert recorder.calls[-1] == ("end", 6, True)
    assert [call[1:] for call in recorder.calls if call[0] == "images"] == [(step, np.uint8, 3) for step in (3, 6)]
    names = [f"step-{step:08d}" for step in (2, 4, 6)]
    assert [call[2] for call in recorder.calls if call[0] == "checkpoint"] == names
    losses = [call for call in recorder.calls if call[0] == "log" and "loss_g" in call[2]]
    assert [call[1] for call in losses] == [2, 4, 6]


def test_a_callback_stops_the_training_and_a_resume_ends_as_if_it_had_not(pairs, trained, tmp_path):
    result = pix2pix.train(pairs, out=tmp_path / "run", callbacks=[Recorder(stop_at=4)], **TINY)
    assert (result.step, result.complete, result.exit_code) == (4, False, 0)
    resumed = pix2pix.resume(tmp_path / "run")
    assert (resumed.step, resumed.complete) == (6, True)
    assert digest(tmp_path / "run") == digest(trained)


def test_own_networks_and_losses(pairs, tmp_path):
    def brightness(source, output, target):
        return (output.mean() - target.mean()).abs()

    own = {
        "generator": OwnGenerator(),
        "discriminator": OwnDiscriminator(),
        "losses": {"brightness": (2.0, brightness)},
    }
    start = own["generator"].layer.weight.detach().clone()
    result = pix2pix.train(pairs, out=tmp_path / "run", **own, **TINY)
    logged = [line for line in lines(tmp_path / "run") if "loss_g" in line]
    for line in logged:
        expected = line["loss_g_gan"] + 100 * line["loss_g_l1"] + 2 * line["loss_g_brightness"]
        assert line["loss_g"] == pytest.approx(expected, rel=1e-3)
    assert result.model.translate(np.zeros((32, 32, 3), np.uint8)).shape == (32, 32, 3)
    model = ganvas.load(tmp_path / "run", generator=OwnGenerator())
    assert not torch.equal(model.network.layer.weight, start)
    with pytest.raises(UserError, match=r"own class .*OwnGenerator.*ganvas\.load\(path, generator="):
        ganvas.load(tmp_path / "run")
    resumed = pix2pix.resume(tmp_path / "run", steps=8, **{**own, "generator": OwnGenerator()})
    assert resumed.step == 8


def test_mistakes_are_one_message(pairs, trained, tmp_path):
    with pytest.raises(TypeError, match=r"no option 'step'\. Did you mean 'steps'"):
        pix2pix.train(pairs, out=tmp_path / "run", step=3)
    with pytest.raises(UserError, match="steps is 0"):
        pix2pix.train(pairs, out=tmp_path / "run", **{**TINY, "steps": 0})
    with pytest.raises(TypeError, match="is not a callback"):
        pix2pix.train(pairs, out=tmp_path / "run", callbacks=[3], **TINY)
    with pytest.raises(UserError, match="--lr"):
        pix2pix.resume(trained, lr=1.0)
    with pytest.raises(UserError, match="no such file"):
        pix2pix.resume(tmp_path / "nowhere")
