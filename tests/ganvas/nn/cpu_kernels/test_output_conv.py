import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ganvas.nn.cpu_kernels.output_conv import FourPositionConv2d


@given(N=st.integers(1, 2), C=st.integers(1, 5), k=st.integers(1, 7), height=st.integers(0, 5), width=st.integers(0, 5))
def test_it_is_torchs_convolution(N: int, C: int, k: int, height: int, width: int) -> None:
    layer = FourPositionConv2d(3, C, k).double()
    x = torch.rand(N, 3, k + height, k + width, dtype=torch.float64, requires_grad=True)
    upstream = torch.rand(N, C, height + 1, width + 1, dtype=torch.float64)
    expected = F.conv2d(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    leaves = [x, layer.weight, layer.bias]
    found, wanted = (torch.autograd.grad(y, leaves, upstream) for y in (layer(x), expected))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("channels", "side", "joins"), [(3, 12, True), (4, 12, True), (5, 12, False), (3, 13, False)])
def test_positions_are_joined_where_that_fills_the_kernels(
    channels: int, side: int, joins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, convolve = [], F.conv2d

    def recorded(x: Tensor, weight: Tensor, *args: object, **options: object) -> Tensor:
        shapes.append(weight.shape)
        return convolve(x, weight, *args, **options)

    monkeypatch.setattr(F, "conv2d", recorded)
    FourPositionConv2d(8, channels, 7)(torch.rand(1, 8, side, side))
    assert shapes == [(4 * channels, 8, 8, 8) if joins else (channels, 8, 7, 7)]


@pytest.mark.slow
def test_it_is_exported_as_one_plain_convolution() -> None:
    sizes = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),)
    program = torch.export.export(FourPositionConv2d(3, 3, 7), (torch.rand(2, 3, 14, 16),), dynamic_shapes=sizes)
    assert [str(node.target) for node in program.graph.nodes if node.op == "call_function"] == ["aten.conv2d.default"]
