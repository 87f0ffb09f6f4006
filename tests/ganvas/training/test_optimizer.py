import pytest
import torch
from torch import nn

from ganvas.training.config import HardwareConfig, OptimizerConfig
from ganvas.training.fabric import make_fabric
from ganvas.training.optimizer import Adam, make_adam
from ganvas.training.trainer import GanNetworks


def reference_adam(w, gradients, lr, beta1, beta2, eps):
    """Kingma and Ba 2015, Algorithm 1, in float64."""
    w, m, v = w.double(), torch.zeros_like(w).double(), torch.zeros_like(w).double()
    for t, g in enumerate(gradients, start=1):
        g = g.double()
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        w = w - lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps)
    return w


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_updates_follow_the_paper_in_any_memory_format(memory_format):
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 7, 4).to(memory_format=memory_format)
    start = {name: p.detach().clone() for name, p in layer.named_parameters()}
    gradients = {name: [torch.randn_like(p).contiguous() for _ in range(4)] for name, p in layer.named_parameters()}
    optimizer = Adam(layer.named_parameters(), 0.01, (0.5, 0.9))
    for t in range(4):
        for name, p in layer.named_parameters():
            p.grad = gradients[name][t].clone()
        optimizer.step()
    for name, p in layer.named_parameters():
        expected = reference_adam(start[name], gradients[name], 0.01, 0.5, 0.9, 1e-8)
        assert (p - start[name]).abs().max() > 0.01
        torch.testing.assert_close(p.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("before", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("after", [torch.contiguous_format, torch.channels_last])
def test_moments_are_restored_in_another_memory_format(before, after):
    torch.manual_seed(1)
    gradients = [torch.randn(6, 4, 4, 4) for _ in range(4)]

    def steps(layer, optimizer, some):
        for g in some:
            layer.weight.grad = g.clone()
            optimizer.step()

    unbroken = nn.Conv2d(4, 6, 4, bias=False).to(memory_format=before)
    broken = nn.Conv2d(4, 6, 4, bias=False).to(memory_format=before)
    broken.load_state_dict(unbroken.state_dict())
    first = Adam(unbroken.named_parameters(), 0.01)
    steps(unbroken, first, gradients)

    half = Adam(broken.named_parameters(), 0.01)
    steps(broken, half, gradients[:2])
    moments = {name: value.contiguous().clone() for name, value in half.state_dict().items()}
    assert moments["weight.exp_avg"].shape == (6, 4, 4, 4)

    resumed = nn.Conv2d(4, 6, 4, bias=False).to(memory_format=after)
    resumed.load_state_dict(broken.state_dict())
    rest = Adam(resumed.named_parameters(), 0.01)
    rest.load_state_dict(moments)
    steps(resumed, rest, gradients[2:])
    torch.testing.assert_close(resumed.weight, unbroken.weight, rtol=0, atol=0)


def test_restored_moments_are_on_the_device_of_their_parameter():
    """On the meta device, as a stand-in for a GPU: the fused kernel reads the step count there."""
    trained = nn.Conv2d(3, 4, 3)
    optimizer = Adam(trained.named_parameters(), 0.01)
    for p in trained.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    elsewhere = nn.Conv2d(3, 4, 3, device="meta")
    restored = Adam(elsewhere.named_parameters(), 0.01)
    restored.load_state_dict(optimizer.state_dict())
    moments = restored.state_dict()
    assert moments.keys() == optimizer.state_dict().keys()
    assert {value.device.type for value in moments.values()} == {"meta"}


def test_restored_moments_are_copies():
    layer = nn.Conv2d(3, 4, 3)
    optimizer = Adam(layer.named_parameters(), 0.01)
    moments = {
        f"{name}.{key}": torch.ones(()) if key == "step" else torch.ones_like(p)
        for name, p in layer.named_parameters()
        for key in ("step", "exp_avg", "exp_avg_sq")
    }
    optimizer.load_state_dict(moments)
    for p in layer.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert optimizer.state_dict()["weight.step"] == 2
    assert moments["weight.step"] == 1


def test_moments_of_another_network_are_refused():
    a, b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 5, 3)
    optimizer = Adam(a.named_parameters(), 0.01)
    for p in a.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    with pytest.raises(ValueError, match=r"exp_avg of weight is \(4, 3, 3, 3\)"):
        Adam(b.named_parameters(), 0.01).load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match="does not have"):
        Adam(nn.Sequential(b).named_parameters(), 0.01).load_state_dict(optimizer.state_dict())


def test_parameter_without_gradient_is_unchanged():
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3))
    before = layers[1].weight.detach().clone()
    optimizer = Adam(layers.named_parameters(), 0.1)
    layers[0](torch.randn(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    assert torch.equal(layers[1].weight, before)
    assert all(p.grad is None for p in layers.parameters())


def test_discriminators_may_have_a_learning_rate_of_their_own():
    layer, options = torch.nn.Linear(2, 2), OptimizerConfig(lr=1e-3, lr_discriminator=4e-3)
    assert (make_adam(layer, options).lr, make_adam(layer, options, is_discriminator=True).lr) == (1e-3, 4e-3)
    assert make_adam(layer, OptimizerConfig(lr=1e-3), is_discriminator=True).lr == 1e-3
    hardware = HardwareConfig(device="cpu")
    modules = {"G": torch.nn.Conv2d(3, 3, 1), "D": torch.nn.Conv2d(6, 1, 1)}
    networks = GanNetworks(make_fabric(hardware), modules, {"a2b": "G"}, options, hardware)
    assert {name: optimizer.lr for name, optimizer in networks.optimizers.items()} == {"G": 1e-3, "D": 4e-3}
