"""A digit model in other runtimes: the same images from the same noise, and a file that says what it takes."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dcgan.data import DIGITS
from dcgan.model import load_sampler, save_sampler
from ganvas.errors import UserError
from ganvas.inference.onnx import OnnxTranslator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

MODELS = {
    "plain": {"preset": "dcgan", "base_channels": 8, "channels": 3},
    "labels joined": {"preset": "dcgan", "base_channels": 8, "num_classes": 10, "latent": "uniform"},
    "labels multiplied": {"preset": "conditional", "num_classes": 10, "base_channels": None},
    "a tutorial's": {"preset": "dcgan-5x5", "norm": "none", "pixel_range": "unit", "base_channels": None},
}


@pytest.fixture
def save(save_model):
    """Save a model that draws images with contrast, and has averages as a training leaves them; give its sampler."""

    def run(folder, **changed):
        sampler = load_sampler(save_model(folder, **changed))
        torch.manual_seed(0)
        with torch.no_grad():
            for weight in (parameter for parameter in sampler.generator.parameters() if parameter.ndim > 1):
                weight.mul_(4)  # as they start they draw nearly flat images
        for module in sampler.generator.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                torch.nn.init.normal_(module.running_mean, 0, 0.3)
                torch.nn.init.uniform_(module.running_var, 0.2, 2)
        save_sampler(folder, sampler.config, sampler.generator, "")
        return load_sampler(folder)

    return run


@pytest.mark.parametrize("name", MODELS)
def test_onnx_runtime_draws_the_same_images(dcgan, save, tmp_path, name):
    sampler = save(tmp_path / "model", **MODELS[name])
    path = tmp_path / "x.onnx"
    code, out, err = dcgan("export", tmp_path / "model", path, "--json")
    assert (code, err) == (0, "")
    assert 0 < json.loads(out)["largest difference"] <= 1e-4
    onnx.checker.check_model(onnx.load(path), full_check=True)

    latents, labels = sampler.latents(7, seed=5), sampler.cycled_labels(7)
    inputs = {"latents": latents.numpy()} | ({} if labels is None else {"labels": labels.numpy()})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (images,) = session.run(["pictures"], inputs)
    about = json.loads(session.get_modelmeta().custom_metadata_map["ganvas"])
    black, white = about["value_range"]
    got = np.rint((images - black) / (white - black) * 255).clip(0, 255)
    expected = sampler.draw(latents, labels).numpy()
    assert np.abs(got - expected).max() <= 1
    assert expected.std() > 1  # something is drawn
    assert (about["kind"], about["latent_dim"]) == ("dcgan", 8)
    assert about["latent"] == ("U(-1, 1)" if MODELS[name].get("latent") == "uniform" else "N(0, 1)")
    assert about["classes"] == (list(DIGITS) if labels is not None else [])


def test_a_program_of_torch_draws_the_same_images(dcgan, save, tmp_path):
    sampler = save(tmp_path / "model", **MODELS["labels joined"])
    code, out, err = dcgan("export", tmp_path / "model", tmp_path / "x.pt2")
    assert (code, err) == (0, "")
    assert "largest difference: " in out
    program = torch.export.load(tmp_path / "x.pt2").module()
    inputs = sampler.latents(5, seed=1), sampler.cycled_labels(5)
    with torch.no_grad():
        torch.testing.assert_close(program(*inputs), sampler.generator(*inputs), rtol=0, atol=1e-5)


def test_bad_input_leaves_nothing(dcgan, save, tmp_path):
    save(tmp_path / "model", **MODELS["plain"])
    for model, name, message in (
        ("model", "x.pth", "ends with .onnx or .pt2"),
        ("nowhere", "x.onnx", "no such folder"),
    ):
        code, out, err = dcgan("export", tmp_path / model, tmp_path / name)
        assert (code, out) == (2, "")
        assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_onnx_translator_refuses_a_sampler(dcgan, save, tmp_path):
    save(tmp_path / "model", **MODELS["plain"])
    assert dcgan("export", tmp_path / "model", tmp_path / "x.onnx")[0] == 0
    with pytest.raises(UserError, match="generates images from noise and translates none"):
        OnnxTranslator(tmp_path / "x.onnx")
