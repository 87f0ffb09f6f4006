import pytest
import torch
from torch import Tensor, nn

from ganvas.nn.receptive_field import receptive_field
from ganvas.nn.resunet import PreActivationBlock, ResUNetGenerator


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("size", [(64, 64), (255, 257), (37, 100), (1, 1), (2, 3)])
@pytest.mark.parametrize("norm", ["batch", "instance", "group", "none"])
def test_any_height_and_width(size: tuple[int, int], norm: str) -> None:
    network = ResUNetGenerator(1, 2, base_channels=2, num_levels=3, norm=norm).eval()
    with torch.no_grad():
        out = network(image(1, 1, *size))
    assert out.shape == (1, 2, *size)
    assert out.abs().max() <= 1
    assert out.isfinite().all()


def test_parameters_by_hand() -> None:
    """Weights of 2 levels with 4, 8 and 16 filters."""

    def conv(before: int, after: int, side: int) -> int:
        return after * (before * side**2 + 1)

    def block(before: int, after: int) -> int:
        shortcut = 0 if before == after else conv(before, after, 1)
        return conv(before, after, 3) + conv(after, after, 3) + shortcut + 2 * before + 2 * after  # two group norms

    expected = conv(3, 4, 3)  # stem
    expected += sum(block(width, width) for width in (4, 8, 16))
    expected += conv(4, 8, 4) + conv(8, 16, 4)  # down
    expected += conv(16, 8, 3) + conv(8, 4, 3)  # up
    expected += block(16, 8) + block(8, 4) + 2 * 4 + conv(4, 3, 3)
    network = ResUNetGenerator(base_channels=4, num_levels=2)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_filters_double_up_to_eight_times() -> None:
    with torch.device("meta"):
        network = ResUNetGenerator(base_channels=2, num_levels=5)
    assert [layer.out_channels for layer in network.down] == [4, 8, 16, 16, 16]


def test_a_pixel_of_the_output_sees_the_pixel_of_the_source_at_full_resolution() -> None:
    """Without the inner levels an output pixel still depends on its neighborhood, in steps of one pixel."""
    network = ResUNetGenerator(1, 1, base_channels=2, num_levels=2, norm="none").eval()
    with torch.no_grad():
        for up in network.up:
            for parameter in up.parameters():
                parameter.zero_()
    x = image(1, 1, 32, 32).requires_grad_()
    network(x)[0, 0, 16, 17].backward()
    rows, columns = x.grad[0, 0].nonzero().T
    # Stem, two blocks of two convolutions and the head: 6 of 3x3, so 6 pixels on each side.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 22, 11, 23)


def test_receptive_field_covers_the_coarsest_level() -> None:
    with torch.device("meta"):
        shallow, deep = (ResUNetGenerator(base_channels=1, num_levels=levels) for levels in (2, 3))
    fields = [receptive_field(network).size for network in (shallow, deep)]
    assert fields[0] < fields[1]


def test_a_block_adds_its_shortcut() -> None:
    block = PreActivationBlock(3, 3, norm="none")
    nn.init.zeros_(block.body[-1].weight)
    nn.init.zeros_(block.body[-1].bias)
    x = image(2, 3, 8, 8)
    assert torch.equal(block(x), x)


def test_no_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="num_levels is 0"):
        ResUNetGenerator(num_levels=0)
