import pytest
import torch
from torch import nn

from ganvas.nn.layers import BatchNorm2d
from ganvas.training.ema import Ema


def network(value):
    layer = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def test_average_follows_its_formula():
    ema, expected = Ema(network(0.0), 0.9), 0.0
    for t in range(200):
        value = float(t % 7)
        keep = min(0.9, (1 + t) / (10 + t))
        expected = keep * expected + (1 - keep) * value
        ema.update(network(value))
        assert ema.network.weight.item() == pytest.approx(expected, abs=1e-5)
    assert int(ema.updates) == 200


def test_first_weights_are_soon_forgotten():
    ema = Ema(network(1000.0), 0.999)
    for _ in range(60):
        ema.update(network(1.0))
    assert 1.0 <= ema.network.weight.item() < 1.01


def test_average_is_restored_exactly():
    torch.manual_seed(0)
    values = torch.randn(30).tolist()
    unbroken = Ema(network(0.0), 0.95)
    for value in values:
        unbroken.update(network(value))
    first = Ema(network(0.0), 0.95)
    for value in values[:13]:
        first.update(network(value))
    second = Ema(network(5.0), 0.95)
    second.network.load_state_dict(first.network.state_dict())
    second.updates = first.updates
    for value in values[13:]:
        second.update(network(value))
    assert torch.equal(unbroken.network.weight, second.network.weight)


def test_running_statistics_are_averaged_and_counts_copied():
    norm = BatchNorm2d(2)
    ema = Ema(nn.Sequential(norm), 0.5)
    norm(torch.randn(4, 2, 8, 8) * 3 + 5)
    ema.update(nn.Sequential(norm))
    keep = min(0.5, 1 / 10)
    torch.testing.assert_close(ema.network[0].running_mean, (1 - keep) * norm.running_mean)
    assert int(ema.network[0].num_batches_tracked) == 1


def test_average_has_no_gradients_and_leaves_the_network_unchanged():
    layer = network(2.0)
    ema = Ema(layer, 0.9)
    ema.update(layer)
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())
    assert layer.weight.requires_grad
    assert layer.weight.item() == 2.0
