"""A network that is optimized for a CPU is the same function with the same parameters."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ganvas.nn.cpu_kernels import optimize_for_cpu
from ganvas.nn.cpu_kernels.instance_norm import CpuInstanceNorm2d
from ganvas.nn.cpu_kernels.matrix_form import MatrixConv2d, MatrixConvTranspose2d
from ganvas.nn.cpu_kernels.output_conv import FourPositionConv2d
from ganvas.nn.layers import ReflectPad2d
from ganvas.nn.patchgan import PatchDiscriminator
from ganvas.nn.receptive_field import receptive_field
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.unet import UNetGenerator

NETWORKS = {
    "unet": lambda: UNetGenerator(base_channels=4, num_levels=4, dropout=0.0),
    "unet-instance": lambda: UNetGenerator(base_channels=4, num_levels=3, norm="instance", dropout=0.0),
    "resnet": lambda: ResNetGenerator(base_channels=4, num_blocks=1),
    "resnet-resize": lambda: ResNetGenerator(base_channels=4, num_blocks=1, upsampling="resize", norm="batch"),
    "unet-resize": lambda: UNetGenerator(base_channels=4, num_levels=3, upsampling="resize", dropout=0.0),
    "patchgan": lambda: PatchDiscriminator(3, base_channels=4, norm="instance"),
}


def results(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, and gradients of input and parameters under an uneven weighting of the output."""
    x = x.detach().requires_grad_()
    y = network(x)
    upstream = torch.rand(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [x, *network.parameters()], upstream)]


@pytest.mark.parametrize("N", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_are_those_of_torchs_layers(name: str, N: int) -> None:
    network = NETWORKS[name]().double()
    optimized = copy.deepcopy(network).to(memory_format=torch.channels_last)
    optimize_for_cpu(optimized)
    x = torch.rand(N, 3, 32, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = results(optimized, x.contiguous(memory_format=torch.channels_last))
    for one, other in zip(found, results(network, x), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_their_names_stay(name: str) -> None:
    network = NETWORKS[name]()
    before, random = network.state_dict(keep_vars=True), torch.get_rng_state()
    optimize_for_cpu(network)
    after = network.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)
    assert torch.equal(torch.get_rng_state(), random)


def test_which_layers_are_replaced() -> None:
    def fast(network: nn.Module) -> list[type]:
        optimize_for_cpu(network)
        optimize_for_cpu(network)  # again changes nothing
        return [type(m) for m in network.modules() if "cpu_kernels" in type(m).__module__]

    assert fast(UNetGenerator(base_channels=1, num_levels=2)) == [MatrixConv2d] * 2 + [MatrixConvTranspose2d] * 2
    assert fast(ResNetGenerator(base_channels=1, num_blocks=1)) == [CpuInstanceNorm2d] * 7 + [FourPositionConv2d]
    # Discriminators are differentiated twice, which a matrix form does not support.
    assert fast(PatchDiscriminator(base_channels=1)) == []
    assert fast(nn.Sequential(nn.Conv2d(1, 1, 4, 2, 1), nn.InstanceNorm2d(1, affine=True))) == []


def test_padding_and_instance_norm_keep_channels_last_memory() -> None:
    x = torch.rand(2, 4, 6, 5).contiguous(memory_format=torch.channels_last)
    for layer in (ReflectPad2d(1), CpuInstanceNorm2d(4)):
        assert layer(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["unet", "resnet"])
def test_its_receptive_field_can_be_traced(name: str) -> None:
    network = NETWORKS[name]()
    expected = receptive_field(network)
    network.to(memory_format=torch.channels_last)
    optimize_for_cpu(network)
    assert receptive_field(network) == expected
