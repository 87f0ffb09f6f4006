"""The options' defaults are the paper's, and the networks built from them those of the reference."""

from dataclasses import replace

import pytest
import torch

from cyclegan.config import CycleGanConfig
from cyclegan.networks import NAMES, build_networks, generator_specs
from ganvas.models.folder import build_generator


def config(data=None, model=None):
    default = CycleGanConfig()
    return replace(default, data=replace(default.data, **(data or {})), model=replace(default.model, **(model or {})))


def built(options):
    return build_networks(options, generator_specs(options, "a", "b"))


def parameters(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def test_defaults_are_the_papers():
    """Zhu et al. 2017, Sec. 4 and 7; the share of the identity loss and the 286 pixels are the published code's."""
    options = CycleGanConfig()
    data, model, optimizer, schedule = options.data, options.model, options.optimizer, options.schedule
    assert (data.image_size, data.load_size, data.flip, data.batch_size) == (256, None, True, 1)
    assert (model.generator, model.norm, model.dropout, model.init) == ("resnet", "instance", 0, "normal")
    assert (model.gan_loss, model.lambda_cycle, model.lambda_identity, model.pool_size) == ("lsgan", 10, 0.5, 50)
    assert (options.discriminator.patch_layers, options.discriminator.discriminator_norm) == (3, "instance")
    assert (optimizer.lr, optimizer.beta1, optimizer.beta2, optimizer.ema) == (2e-4, 0.5, 0.999, 0)
    assert (schedule.schedule, schedule.epochs, schedule.decay_epochs) == ("linear", 100, 100)


@pytest.mark.parametrize(("size", "count"), [(256, 11_378_179), (128, 7_837_699)])
def test_parameter_counts(size, count):
    networks = built(config({"image_size": size}))
    assert {name: parameters(networks[name]) for name in NAMES} == {
        "G_ab": count,
        "G_ba": count,
        "D_a": 2_764_737,
        "D_b": 2_764_737,
    }


@pytest.mark.parametrize(("size", "blocks"), [(64, 6), (128, 6), (129, 9), (512, 9)])
def test_blocks_by_size(size, blocks):
    for options, expected in (({}, blocks), ({"num_blocks": 3}, 3)):
        specs = generator_specs(config({"image_size": size}, options), "a", "b")
        assert {spec.arguments["num_blocks"] for spec in specs.values()} == {expected}


@pytest.mark.parametrize(("size", "count"), [(256, 54_413_955), (512, 54_413_955), (128, 41_828_995), (65, 41_828_995)])
def test_a_unet_has_as_many_levels_as_the_size_needs(size, count):
    specs = generator_specs(config({"image_size": size}, {"generator": "unet", "norm": "batch"}), "a", "b")
    with torch.device("meta"):
        assert {parameters(build_generator(spec)) for spec in specs.values()} == {count}


def test_each_network_has_the_channels_of_its_domains():
    small = {"base_channels": 4, "num_blocks": 1, "lambda_identity": 0}
    networks = built(config({"channels_a": 1, "channels_b": 4}, small))
    a, b = torch.zeros(1, 1, 32, 32), torch.zeros(1, 4, 32, 32)
    assert networks["G_ab"](a).shape == b.shape
    assert networks["G_ba"](b).shape == a.shape
    assert networks["D_a"](a).shape == networks["D_b"](b).shape


def test_the_seed_draws_all_weights():
    small = config(model={"base_channels": 4, "num_blocks": 1})
    first, again, other = built(small), built(small), built(replace(small, seed=1))
    weights = [next(networks["G_ab"].parameters()) for networks in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], next(first["G_ba"].parameters()))
