import pytest
import torch
from torch import Tensor, nn

from ganvas.nn.patchgan import PatchDiscriminator, PixelDiscriminator


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
