import math

import pytest
import torch
from torch import Tensor, nn

from ganvas.nn.init import initialize_weights
from ganvas.nn.layers import BatchNorm2d
from ganvas.nn.unet import UNetGenerator


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(64, 128, 4),
        BatchNorm2d(4096),
        nn.ConvTranspose2d(128, 64, 4),
        nn.InstanceNorm2d(8),
        nn.Linear(256, 512),
        nn.BatchNorm1d(4096),
    )


def started(start: str, gain: float = 0.02, seed: int = 0) -> nn.Sequential:
    made = network()
    initialize_weights(made, start, gain=gain, generator=torch.Generator().manual_seed(seed))
    return made


def assert_normal(values: Tensor, mean: float, deviation: float) -> None:
    """Both moments within five standard errors, and tails as a normal distribution has them."""
    n = values.numel()
    assert abs(values.mean().item() - mean) < 5 * deviation / math.sqrt(n)
    assert abs(values.std().item() / deviation - 1) < 5 / math.sqrt(2 * n)
    outside = ((values - mean).abs() > 2 * deviation).double().mean().item()
    assert abs(outside - 0.0455) < 5 * math.sqrt(0.0455 * 0.9545 / n)


@pytest.mark.parametrize("gain", [0.02, 0.5])
def test_normal(gain: float) -> None:
    for index in (0, 2, 4):
        assert_normal(started("normal", gain)[index].weight.detach(), 0, gain)


def test_normal_is_the_papers_by_default() -> None:
    made = network()
    initialize_weights(made, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made[0].weight, started("normal", 0.02)[0].weight)


def test_xavier() -> None:
    made = started("xavier", gain=0.5)
    assert_normal(made[0].weight.detach(), 0, 0.5 * math.sqrt(2 / (64 * 16 + 128 * 16)))
    assert_normal(made[4].weight.detach(), 0, 0.5 * math.sqrt(2 / (256 + 512)))


def test_kaiming() -> None:
    made = started("kaiming")
    assert_normal(made[0].weight.detach(), 0, math.sqrt(2 / (64 * 16)))
    assert_normal(made[4].weight.detach(), 0, math.sqrt(2 / 256))


def test_orthogonal() -> None:
    rows = started("orthogonal", gain=0.5)[0].weight.detach().flatten(1)  # [128, 1024]
    torch.testing.assert_close(rows @ rows.T, 0.25 * torch.eye(128), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("start", ["normal", "xavier", "kaiming", "orthogonal"])
def test_norm_scales_and_biases(start: str) -> None:
    made = started(start, gain=0.7)
    for index in (1, 5):
        assert_normal(made[index].weight.detach(), 1, 0.02)  # whatever the convolutions' gain
    for index in (0, 1, 2, 4, 5):
        assert made[index].bias.count_nonzero() == 0


def test_the_generator_decides() -> None:
    first, again, other = started("normal"), started("normal"), started("normal", seed=1)
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c) == (a.dim() == 1 and a.count_nonzero() == 0)


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    made = network()
    torch.set_rng_state(before)
    initialize_weights(made, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_all_layers_of_a_network() -> None:
    unet = UNetGenerator(base_channels=16, num_levels=5)
    initialize_weights(unet, generator=torch.Generator().manual_seed(0))
    weights = torch.cat([p.detach().flatten() for p in unet.parameters() if p.dim() > 1])
    assert_normal(weights, 0, 0.02)
    assert all(p.requires_grad for p in unet.parameters())


def test_unknown_start() -> None:
    with pytest.raises(ValueError, match=r"'uniform'.*'normal', 'xavier', 'kaiming' and 'orthogonal'"):
        initialize_weights(network(), "uniform")
