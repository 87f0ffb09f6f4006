import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganvas.nn.layers import ReflectPad2d
from ganvas.nn.resnet import ResNetGenerator

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def on_meta(**arguments: object) -> ResNetGenerator:
    with torch.device("meta"):
        return ResNetGenerator(**arguments)


def test_filters_of_the_paper() -> None:
    shapes = [
        (m.in_channels, m.out_channels, *m.kernel_size, m.stride[0])
        for m in on_meta().modules()
        if isinstance(m, CONVOLUTIONS)
    ]
    assert shapes == [
        (3, 64, 7, 7, 1),
        (64, 128, 3, 3, 2),
        (128, 256, 3, 3, 2),
        *[(256, 256, 3, 3, 1)] * 18,
        (256, 128, 3, 3, 2),
        (128, 64, 3, 3, 2),
        (64, 3, 7, 7, 1),
    ]


@pytest.mark.parametrize("resampling", ["strided", "blur"])
@pytest.mark.parametrize("size", [(256, 256), (255, 257), (37, 300), (5, 5), (4, 4), (2, 3), (1, 1)])
def test_any_height_and_width(size: tuple[int, int], resampling: str) -> None:
    network = ResNetGenerator(1, 2, base_channels=2, num_blocks=1, resampling=resampling)
    with torch.no_grad():
        out = network(image(1, 1, *size))
    assert out.shape == (1, 2, *size)
    assert out.isfinite().all()
    assert out.abs().max() <= 1


@pytest.mark.parametrize("norm", ["batch", "instance", "layer", "none"])
@pytest.mark.parametrize("upsampling", ["transpose", "resize"])
def test_variants_keep_the_size(norm: str, upsampling: str) -> None:
    network = ResNetGenerator(base_channels=2, num_blocks=1, norm=norm, upsampling=upsampling)
    assert network(image(2, 3, 12, 17)).shape == (2, 3, 12, 17)


def test_a_size_that_fits_is_not_padded() -> None:
    network = ResNetGenerator(base_channels=2, num_blocks=1)
    x = image(1, 3, 12, 16)
    assert torch.equal(network(x), network.layers(x))


def test_other_sizes_are_reflected_all_around_and_cropped_back() -> None:
    network = ResNetGenerator(base_channels=2, num_blocks=1)
    x = image(1, 3, 13, 10)  # to 16 x 12: 1 row above and 2 below, 1 column on each side
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (1, 2), (1, 1)), mode="reflect"))
    torch.testing.assert_close(network(x), network.layers(padded)[..., 1:14, 1:11])


@pytest.mark.parametrize("num_blocks", [0, 1, 3, 6])
@pytest.mark.parametrize("resampling", ["strided", "blur"])
@pytest.mark.parametrize("norm", ["instance", "layer", "none"])
def test_features_are_the_outputs_of_the_layers(norm: str, resampling: str, num_blocks: int) -> None:
    network = ResNetGenerator(base_channels=2, num_blocks=num_blocks, norm=norm, resampling=resampling)
    x = image(2, 3, 13, 10)
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (1, 2), (1, 1)), mode="reflect"))
    expected = [network.layers[: layer + 1](padded).clone() for layer in network.feature_layers]
    # The padded image, both convolutions that halve it, the first block and, with several, the fifth or the last.
    assert len(expected) == 3 + min(num_blocks, 2)
    assert [each.shape[1] for each in expected] == list(network.feature_channels)
    output, found = network.with_features(x, network.feature_layers)
    assert torch.equal(output, network(x))
    for features in (found, network.features(x, network.feature_layers)):
        for one, other in zip(features, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_no_layer_runs_after_the_last_feature() -> None:
    network = ResNetGenerator(base_channels=2, num_blocks=7)
    network.layers[network.feature_layers[-1] + 1].register_forward_hook(lambda *_: pytest.fail("it ran"))
    network.features(image(1, 3, 8, 8), network.feature_layers)


@pytest.mark.parametrize(("norm", "biases"), [("instance", 24), ("layer", 24), ("none", 24), ("batch", 1)])
def test_biases(norm: str, biases: int) -> None:
    convolutions = [m for m in on_meta(norm=norm).modules() if isinstance(m, CONVOLUTIONS)]
    assert sum(m.bias is not None for m in convolutions) == biases
    assert convolutions[-1].bias is not None


def test_instance_norms_have_no_parameters_and_pads_by_reflection() -> None:
    network = on_meta()
    norms = [m for m in network.modules() if isinstance(m, nn.InstanceNorm2d)]
    assert len(norms) == 23
    assert not any(norm.affine or norm.track_running_stats for norm in norms)
    assert [m.padding for m in network.modules() if isinstance(m, ReflectPad2d)] == [3, *[1] * 18, 3]


def test_dropout_is_in_every_block_if_asked_for() -> None:
    assert not any(isinstance(m, nn.Dropout) for m in on_meta().modules())
    assert [m.p for m in on_meta(dropout=0.5).modules() if isinstance(m, nn.Dropout)] == [0.5] * 9
