"""What the steps of `benchmarks.train_step` share."""

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ganvas.device import choose_precision
from ganvas.nn.cpu_kernels import optimize_for_cpu
from ganvas.training.fabric import compile_network
from ganvas.training.optimizer import Adam

Batch = dict[str, Tensor]
Step = Callable[[Batch], object]


def noise_batch(names: tuple[str, ...], shape: tuple[int, ...], device: str) -> Batch:
    """Make tensors of noise in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=generator).mul(2).sub(1).to(device) for name in names}


def plain_patchgan(in_channels: int, norm: Callable[[int], nn.Module], bias: bool) -> nn.Module:
    """Build the 70x70 PatchGAN of torch's own layers."""
    layers: list[nn.Module] = [nn.Conv2d(in_channels, 64, 4, 2, 1), nn.LeakyReLU(0.2)]
    for inner, outer, stride in ((64, 128, 2), (128, 256, 2), (256, 512, 1)):
        layers += [nn.Conv2d(inner, outer, 4, stride, 1, bias=bias), norm(outer), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 4, 1, 1))


def plain_adam(*networks: nn.Module) -> torch.optim.Adam:
    """Return torch's Adam with the papers' settings."""
    return torch.optim.Adam(chain(*(each.parameters() for each in networks)), lr=2e-4, betas=(0.5, 0.999))


def set_up(networks: list[nn.Module], device: str, *, compiled: bool) -> tuple[list[nn.Module], list[Adam], bool]:
    """Set networks up as a training does.

    Returns:
        The networks to call, their optimizers, and whether to compute in bf16.
    """
    for network in networks:
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimize_for_cpu(network)
    adams = [Adam(network.named_parameters(), 2e-4) for network in networks]
    called = [compile_network(network) if compiled else network for network in networks]
    return called, adams, choose_precision("auto", device) == "bf16"


def channels_last(batch: Batch) -> Batch:
    """Return a batch in the memory layout of a training."""
    return {name: x.to(memory_format=torch.channels_last) for name, x in batch.items()}


def forward_flops(network: nn.Module, *shape: int) -> int:
    """Count the work of a forward pass; the network is on the meta device."""
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(shape, device="meta"))
    return int(counter.get_total_flops())
