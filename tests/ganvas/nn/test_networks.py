"""Properties that all networks share: sizes, work, and gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ganvas.nn.patchgan import PatchDiscriminator, PixelDiscriminator
from ganvas.nn.resnet import ResNetGenerator
from ganvas.nn.resunet import ResUNetGenerator
from ganvas.nn.unet import UNetGenerator


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (UNetGenerator, 54_413_955),
        (lambda: UNetGenerator(num_levels=7), 41_828_995),
        (ResNetGenerator, 11_378_179),
        (lambda: ResNetGenerator(num_blocks=6), 7_837_699),
        (lambda: ResNetGenerator(resampling="blur"), 11_378_179),
        (PatchDiscriminator, 2_768_705),
        (lambda: PatchDiscriminator(3, norm="instance"), 2_764_737),
        (lambda: PatchDiscriminator(3, norm="instance", resampling="blur"), 2_764_737),
    ],
)
def test_parameter_counts(build: Callable[[], nn.Module], parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in build().parameters() if p.requires_grad) == parameters


@pytest.mark.parametrize(
    ("build", "channels", "gigaflops"),
    [(UNetGenerator, 3, 12.1), (ResNetGenerator, 3, 99.1), (PatchDiscriminator, 6, 6.4)],
)
def test_work_of_a_forward_pass(build: Callable[[], nn.Module], channels: int, gigaflops: float) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build().eval()(torch.empty(1, channels, 256, 256))
    assert counter.get_total_flops() / 1e9 == pytest.approx(gigaflops, abs=0.05)


@pytest.mark.parametrize("norm", ["batch", "instance", "group", "none"])
@pytest.mark.parametrize(
    "build",
    [
        lambda norm: UNetGenerator(base_channels=4, num_levels=4, norm=norm, dropout=0.0),
        lambda norm: ResNetGenerator(base_channels=4, num_blocks=2, norm=norm),
        lambda norm: ResUNetGenerator(base_channels=4, num_levels=2, norm=norm),
        lambda norm: ResNetGenerator(base_channels=4, num_blocks=2, norm=norm, resampling="blur"),
        lambda norm: PatchDiscriminator(3, base_channels=4, norm=norm),
        lambda norm: PatchDiscriminator(3, base_channels=4, norm=norm, resampling="blur"),
        lambda norm: PixelDiscriminator(3, base_channels=4, norm=norm),
    ],
)
def test_gradients_reach_every_parameter(build: Callable[[str], nn.Module], norm: str) -> None:
    def uniform(*shape: int, seed: int) -> Tensor:
        return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    network = build(norm)
    output = network(uniform(2, 3, 32, 32, seed=0))
    # An uneven weighting: the gradient of a plain sum vanishes in batch norm.
    (output * uniform(*output.shape, seed=1)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A bias before an instance norm has no effect, so its gradient is only rounding.
        if parameter.dim() > 1 or norm != "instance":
            assert parameter.grad.abs().max() > 0, name
