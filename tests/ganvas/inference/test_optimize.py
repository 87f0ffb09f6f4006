"""The network that translates fast is the same function as the one that was trained, and leaves that one alone."""

import copy

import pytest
import torch
from torch import nn

from ganvas.inference.optimize import optimized_for_inference
from ganvas.nn.cpu_kernels import optimize_for_cpu
from ganvas.nn.layers import BatchNorm2d, set_norm_statistics
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.resunet import ResUNetGenerator
from ganvas.nn.unet import UNetGenerator

NETWORKS = {
    "unet": lambda norm: UNetGenerator(base_channels=8, num_levels=4, norm=norm),
    "unet-resize": lambda norm: UNetGenerator(base_channels=8, num_levels=3, norm=norm, upsampling="resize"),
    "resnet": lambda norm: ResNetGenerator(base_channels=8, num_blocks=2, norm=norm),
    "resnet-resize": lambda norm: ResNetGenerator(base_channels=8, num_blocks=1, norm=norm, upsampling="resize"),
    "resunet": lambda norm: ResUNetGenerator(base_channels=8, num_levels=2, norm=norm),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Such small networks are slower with more, and much slower when tests share the processor."""
    torch.set_num_threads(1)


def trained(name, norm):
    """A network whose norms have seen something: no statistic and no weight is at its start."""
    torch.manual_seed(0)
    network = NETWORKS[name](norm).to(memory_format=torch.channels_last).eval()
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -1, 1), (module.running_var, 0.2, 3)):
                tensor.uniform_(low, high)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    optimize_for_cpu(network)
    return network


@torch.inference_mode()
def outputs(network, kind=torch.float32, shape=(2, 3, 40, 56)):
    torch.manual_seed(1)
    return network((torch.rand(shape) * 2 - 1).to(kind, memory_format=torch.channels_last))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("statistics", ["running", "picture"])
def test_an_optimized_network_is_the_same_function(name, statistics):
    network = trained(name, "batch")
    set_norm_statistics(network, statistics)
    expected = outputs(network)
    difference = (outputs(optimized_for_inference(network)) - expected).abs().max()
    assert difference <= 1e-5 * expected.abs().max()
    assert expected.std() > 0.05


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"resunet"}))  # its first norms have no convolution before them
def test_only_batch_norms_of_running_statistics_are_folded(name):
    network = trained(name, "batch")
    assert any(isinstance(module, BatchNorm2d) for module in network.modules())
    assert not any(isinstance(module, BatchNorm2d) for module in optimized_for_inference(network).modules())
    kept = trained(name, "instance")
    assert [type(m) for m in optimized_for_inference(kept).modules()] == [type(m) for m in kept.modules()]


def test_the_original_network_is_unchanged_and_shares_weights():
    network = trained("unet", "batch")
    before, types = copy.deepcopy(network.state_dict()), [type(module) for module in network.modules()]
    for bf16 in (False, True):
        outputs(optimized_for_inference(network, bf16=bf16), torch.bfloat16 if bf16 else torch.float32)
    assert [type(module) for module in network.modules()] == types
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert optimized_for_inference(network).down[0][1].weight is network.down[0][1].weight  # its level has no norm


@pytest.mark.parametrize("norm", ["batch", "instance", "layer"])
@pytest.mark.parametrize("name", ["unet", "resnet"])
def test_bfloat16_is_close_and_returns_float32(name, norm):
    network = trained(name, norm)
    expected, found = outputs(network), outputs(optimized_for_inference(network, bf16=True), torch.bfloat16)
    assert found.dtype == torch.float32
    assert 1e-5 < (found - expected).abs().mean() < 0.02
    layers = [
        m
        for m in optimized_for_inference(network, bf16=True).modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]
    assert {layer.weight.dtype for layer in layers} == {torch.bfloat16}
