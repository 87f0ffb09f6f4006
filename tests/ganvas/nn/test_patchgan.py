import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganvas.nn.patchgan import PatchDiscriminator, PixelDiscriminator, add_spectral_norm, make_discriminator


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def on_meta(*channels: int, **arguments: object) -> PatchDiscriminator:
    with torch.device("meta"):
        return PatchDiscriminator(*channels, **arguments)


def test_256_pixels_give_30_logits_a_side() -> None:
    with torch.no_grad():
        assert PatchDiscriminator()(image(1, 6, 256, 256)).shape == (1, 1, 30, 30)


@pytest.mark.parametrize("num_layers", range(1, 7))
def test_one_to_six_layers(num_layers: int) -> None:
    network = PatchDiscriminator(2, base_channels=2, num_layers=num_layers)
    with torch.no_grad():
        assert network(image(2, 2, 256, 320)).shape == (2, 1, 256 // 2**num_layers - 2, 320 // 2**num_layers - 2)


@pytest.mark.parametrize(
    ("num_layers", "widths"),
    [(1, [64, 128, 1]), (3, [64, 128, 256, 512, 1]), (6, [64, 128, 256, 512, 512, 512, 512, 1])],
)
def test_filters_double_up_to_eight_times(num_layers: int, widths: list[int]) -> None:
    convolutions = [m for m in on_meta(num_layers=num_layers).modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == widths
    assert [m.stride for m in convolutions] == [(2, 2)] * num_layers + [(1, 1)] * 2
    assert {m.kernel_size for m in convolutions} == {(4, 4)}


@pytest.mark.parametrize("num_layers", [0, 7])
def test_other_numbers_of_layers_are_refused(num_layers: int) -> None:
    with pytest.raises(ValueError, match=f"num_layers is {num_layers}; .* 1 to 6"):
        PatchDiscriminator(num_layers=num_layers)


@pytest.mark.parametrize("num_layers", range(1, 7))
def test_smallest_image(num_layers: int) -> None:
    network = PatchDiscriminator(1, base_channels=1, num_layers=num_layers, norm="none")
    smallest = 3 * 2**num_layers
    assert network.min_size == smallest
    assert network(image(1, 1, smallest, smallest)).shape == (1, 1, 1, 1)
    for size in ((smallest - 1, 400), (400, smallest - 1)):
        with pytest.raises(ValueError, match=rf"{size[0]}x{size[1]}.*at least {smallest}"):
            network(image(1, 1, *size))
    # One pixel less would indeed leave nothing.
    with pytest.raises(RuntimeError, match="size"):
        network.layers(image(1, 1, smallest - 1, smallest - 1))


@pytest.mark.parametrize(
    ("norm", "biased"), [("batch", [True, False, False, False, True]), ("instance", [True] * 5), ("none", [True] * 5)]
)
def test_biases(norm: str, biased: list[bool]) -> None:
    assert [m.bias is not None for m in on_meta(norm=norm).modules() if isinstance(m, nn.Conv2d)] == biased


def test_first_and_last_convolution_have_no_norm() -> None:
    kinds = [type(m).__name__ for m in on_meta().modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.LeakyReLU)]
    whole = ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds == ["Conv2d", "LeakyReLU", *whole * 3, "Conv2d"]
    assert {m.negative_slope for m in on_meta().modules() if isinstance(m, nn.LeakyReLU)} == {0.2}


def test_logits_are_unbounded() -> None:
    network = PatchDiscriminator(1, base_channels=1, num_layers=1, norm="none")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    assert network(torch.ones(1, 1, 16, 16)).max() > 10
    assert network(-100 * torch.ones(1, 1, 16, 16)).min() < -10


def test_pixel_discriminator_scores_each_pixel_by_itself() -> None:
    network = PixelDiscriminator(4, base_channels=3).eval()
    x = image(2, 4, 5, 7)
    before = network(x)
    assert before.shape == (2, 1, 5, 7)
    x[0, :, 2, 3] = 0.9
    changed = (network(x) != before).nonzero()
    assert changed.tolist() == [[0, 0, 2, 3]]


def test_pixel_discriminators_filters() -> None:
    with torch.device("meta"):
        network = PixelDiscriminator()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.bias is not None) for m in convolutions] == [
        (6, 64, True),
        (64, 128, False),
        (128, 1, True),
    ]
    # 6 * 64 + 64, 64 * 128, batch norm's 2 * 128, 128 + 1
    assert sum(p.numel() for p in network.parameters()) == 448 + 8192 + 256 + 129


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_can_be_differentiated_twice(norm: str) -> None:
    # A gradient penalty needs it, also in channels-last.
    network = PatchDiscriminator(3, base_channels=4, norm=norm).to(memory_format=torch.channels_last)
    x = image(1, 3, 32, 32).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    first = next(network.parameters())
    assert first.grad is not None
    assert first.grad.abs().max() > 0


# ---- Several scales, features, spectral norm ----


def test_each_scale_scores_the_image_at_half_the_size() -> None:
    torch.manual_seed(0)
    network = make_discriminator(3, base_channels=2, num_layers=2, norm="none", num_scales=3)
    x = image(2, 3, 128, 96)
    outputs = network(x)
    assert [scale[-1].shape for scale in outputs] == [(2, 1, 30, 22), (2, 1, 14, 10), (2, 1, 6, 4)]
    smaller = torch.from_numpy(x.numpy().reshape(2, 3, 32, 4, 24, 4).mean(axis=(3, 5)))  # 4x4 means
    torch.testing.assert_close(outputs[2][-1], network.scales[2](smaller))


def test_features_are_the_activations_before_the_logits() -> None:
    network = make_discriminator(3, base_channels=2, num_layers=3, norm="batch", return_features=True)
    (features,) = network(image(2, 3, 64, 64))
    assert [feature.shape[1:] for feature in features] == [(2, 32, 32), (4, 16, 16), (8, 8, 8), (16, 7, 7), (1, 6, 6)]
    assert all(feature.min() < 0 for feature in features[:-1])  # LeakyReLU's
    assert torch.equal(features[-1], network.scales[0](image(2, 3, 64, 64)))


def test_smallest_image_of_several_scales() -> None:
    network = make_discriminator(3, base_channels=1, num_layers=1, norm="none", num_scales=2)
    assert network.min_size == 12
    assert network(image(1, 3, 12, 12))[1][-1].shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match=r"11x12.*at least 12"):
        network(image(1, 3, 11, 12))


def test_spectral_norm_bounds_each_convolution_and_keeps_its_weights() -> None:
    network = make_discriminator(3, base_channels=8, num_layers=2, norm="spectral")
    before = [m.weight.detach().clone() for m in network.modules() if isinstance(m, nn.Conv2d)]
    add_spectral_norm(network, torch.Generator().manual_seed(0))
    for _ in range(30):  # one power iteration each
        network(image(1, 3, 32, 32))
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    for module, weight in zip(convolutions, before, strict=True):
        largest = np.linalg.svd(weight.flatten(1).numpy(), compute_uv=False)[0]
        torch.testing.assert_close(module.weight, weight / largest, rtol=1e-2, atol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def test_spectral_norm_draws_from_its_own_generator() -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(7)
        network = make_discriminator(3, base_channels=2, num_layers=1, norm="spectral")
        before = torch.get_rng_state()
        add_spectral_norm(network, torch.Generator().manual_seed(seed))
        assert torch.equal(torch.get_rng_state(), before)
        states.append(network.state_dict()["layers.0.0.parametrizations.weight.0._v"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
