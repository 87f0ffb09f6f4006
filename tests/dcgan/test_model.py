"""A digit model on disk and in use."""

import json
from dataclasses import replace

import pytest
import torch

from dcgan.model import load_sampler
from ganvas.errors import UserError
from ganvas.models.folder import load_model
from ganvas.models.tensors import load_tensors


def test_the_model_is_the_average_of_the_best_step(trained):
    sampler = load_sampler(trained)
    step = sampler.config.training["step"]
    averaged = load_tensors(trained / "checkpoints" / f"step-{step:08d}" / "G_ema.safetensors")
    for name, value in sampler.generator.state_dict().items():
        assert torch.equal(value, averaged[name]), name


def test_a_seed_draws_the_same_images_in_batches_of_any_size(trained):
    sampler = load_sampler(trained)
    z = sampler.latents(10, seed=3)
    assert torch.equal(z, sampler.latents(10, seed=3))
    assert not torch.equal(z, sampler.latents(10, seed=4))
    one, many = sampler.draw(z, batch_size=3), sampler.draw(z)
    assert one.dtype == torch.uint8
    assert one.shape == (10, 1, 28, 28)
    assert (one.int() - many.int()).abs().max() <= 1  # rounding of sums in another order


def test_labels_are_used_or_cycled(trained_conditional):
    sampler = load_sampler(trained_conditional)
    assert sampler.cycled_labels(12).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    z = sampler.latents(1, seed=0).expand(2, -1)
    with torch.no_grad():  # the few steps of this run move no value by a whole step of 8 bits
        first, second = sampler.generator(z, torch.tensor([1, 7]))
    assert not torch.equal(first, second)
    assert torch.equal(sampler.sample(12, seed=0), sampler.sample(12, seed=0, labels=sampler.cycled_labels(12)))


@pytest.mark.parametrize("step", [4, 6])
def test_a_checkpoint_is_its_runs_model_at_its_own_step(trained, step):
    config = load_sampler(trained / "checkpoints" / f"step-{step:08d}").config
    assert config == replace(load_sampler(trained).config, training={"step": step})


def test_model_of_another_module_is_refused(trained, tmp_path):
    with pytest.raises(UserError, match="is a model of dcgan"):
        load_model(trained)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"format_version": 1, "kind": "pix2pix"}))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is a model of pix2pix"):
        load_sampler(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "vae"}, "preset is 'vae'"),
        ({"image_size": 30}, r"config\.json: image_size is 30; allowed are 28, 16, 32, 64 and 128\. Copy the model"),
        ({"extra_layers": 1}, r"config\.json: only dcgan-5x5 takes extra_layers"),
        ({"preset": "mlp", "image_size": 32}, r"config\.json: .*28 x 28 gray"),
        ({"base_channels": 8}, "do not fit"),
        ({"base_channels": -4}, "base_channels is -4"),
        ({"latent_dim": 0}, "latent_dim is 0"),
        ({"weights_sha256": "0" * 64}, "is damaged"),
        ({"wings": 2}, "wings: there is no such option"),
    ],
)
def test_invalid_model_config_is_refused(trained, tmp_path, change, message):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((trained / "model" / name).read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=message) as error:
        load_sampler(folder)
    assert "--" not in str(error.value)  # no advice for a training
