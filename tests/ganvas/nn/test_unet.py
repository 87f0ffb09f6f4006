import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ganvas.nn.unet import UNetGenerator

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def on_meta(**arguments: object) -> UNetGenerator:
    with torch.device("meta"):
        return UNetGenerator(**arguments)


def test_full_size_256() -> None:
    with torch.no_grad():
        out = UNetGenerator().eval()(image(1, 3, 256, 256))
    assert out.shape == (1, 3, 256, 256)
    assert out.abs().max() <= 1
    assert out.std() > 0


@pytest.mark.parametrize("size", [(256, 256), (600, 600), (255, 257), (37, 1024), (1, 1), (2, 3)])
def test_any_height_and_width(size: tuple[int, int]) -> None:
    network = UNetGenerator(1, 2, base_channels=2)
    with torch.no_grad():
        out = network(image(1, 1, *size))
    assert out.shape == (1, 2, *size)
    assert out.isfinite().all()


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("upsampling", ["transpose", "resize"])
@pytest.mark.parametrize("num_levels", [1, 2, 5])
def test_variants_keep_the_size_in_training(norm: str, upsampling: str, num_levels: int) -> None:
    network = UNetGenerator(base_channels=2, num_levels=num_levels, norm=norm, upsampling=upsampling)
    assert network(image(1, 3, 2**num_levels, 33)).shape == (1, 3, 2**num_levels, 33)


def without_padding(network: UNetGenerator, x: Tensor) -> Tensor:
    """The network as the paper draws it, for sizes that fit."""
    skips = []
    for down in network.down:
        x = down(x)
        skips.append(x)
    x = network.up[0](skips[-1].clone())
    for up, skip in zip(network.up[1:], reversed(skips[:-1]), strict=True):
        x = up(torch.cat([skip, x], 1))
    return x.tanh()


def test_a_size_that_fits_is_not_padded() -> None:
    network = UNetGenerator(base_channels=4, num_levels=3).eval()
    x = image(2, 3, 32, 24)
    assert torch.equal(network(x), without_padding(network, x))


def test_other_sizes_are_reflected_all_around_and_cropped_back() -> None:
    network = UNetGenerator(base_channels=4, num_levels=4).eval()
    x = image(1, 3, 13, 5)  # to 16 x 16: 1 row above and 2 below, 5 columns left and 6 right
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (1, 2), (5, 6)), mode="reflect"))
    torch.testing.assert_close(network(x), without_padding(network, padded)[..., 1:14, 5:10])


def test_skips_reach_the_output() -> None:
    # Without its inner levels the network still sees the image through the outermost skip.
    network = UNetGenerator(base_channels=4, num_levels=3, norm="none").eval()
    with torch.no_grad():
        for layer in network.up[:-1]:
            for parameter in layer.parameters():
                parameter.zero_()
        first, second = network(image(1, 3, 8, 8)), network(image(1, 3, 8, 8, seed=1))
    assert (first - second).abs().max() > 1e-3


def test_channels_and_filters_of_the_paper() -> None:
    network = on_meta(in_channels=5, out_channels=4)
    down = [(block[1].in_channels, block[1].out_channels) for block in network.down]
    up = [(block[1].in_channels, block[1].out_channels) for block in network.up]
    assert down == [(5, 64), (64, 128), (128, 256), (256, 512), *[(512, 512)] * 4]
    assert up == [(512, 512), *[(1024, 512)] * 3, (1024, 256), (512, 128), (256, 64), (128, 4)]


def test_biases_with_batch_norm() -> None:
    with_bias = [name for name, m in on_meta().named_modules() if isinstance(m, CONVOLUTIONS) and m.bias is not None]
    assert with_bias == ["up.7.1"]


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_biases_without_batch_norm(norm: str) -> None:
    convolutions = [m for m in on_meta(norm=norm).modules() if isinstance(m, CONVOLUTIONS)]
    assert len(convolutions) == 16
    assert all(m.bias is not None for m in convolutions)


def test_norms_are_everywhere_but_at_both_ends() -> None:
    network = on_meta()
    assert [isinstance(block[2], nn.BatchNorm2d) for block in network.down] == [False, *[True] * 6, False]
    assert [isinstance(block[2], nn.BatchNorm2d) for block in network.up] == [*[True] * 7, False]


def dropping(network: UNetGenerator) -> list[int]:
    return [i for i, block in enumerate(network.up) if any(isinstance(m, nn.Dropout) and m.p == 0.5 for m in block)]


def test_dropout_is_where_the_paper_has_it() -> None:
    assert dropping(on_meta()) == [0, 1, 2]
    assert dropping(on_meta(dropout_levels=(1, 2, 3))) == [1, 2, 3]  # as in the incumbent's weights
    assert dropping(on_meta(num_levels=2)) == [0]  # never on the image itself
    assert dropping(on_meta(dropout=0.0)) == []
    assert not any(isinstance(m, nn.Dropout) for block in on_meta().down for m in block.modules())


def test_dropout_is_noise_in_training_only() -> None:
    network = UNetGenerator(base_channels=4, num_levels=4, norm="instance")
    x = image(1, 3, 32, 32)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_slopes_of_the_activations() -> None:
    network = on_meta()
    assert [m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)] == [0.2] * 7
    assert sum(isinstance(m, nn.ReLU) for m in network.modules()) == 8


def test_at_least_one_level() -> None:
    with pytest.raises(ValueError, match="num_levels is 0"):
        UNetGenerator(num_levels=0)
