"""The transposed form of a resize convolution is the same function of input, weights and bias."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ganvas.nn.cpu_kernels import optimize_for_cpu, resize_conv
from ganvas.nn.cpu_kernels.resize_conv import TransposedResizeConv2d
from ganvas.nn.layers import ResizeConv2d


@pytest.fixture
def transposed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Takes the transposed form at any size, and counts its uses."""
    uses = []
    plain = resize_conv.F.conv_transpose2d

    def counted(*arguments: Tensor | None, **options: int) -> Tensor:
        uses.append(1)
        return plain(*arguments, **options)

    monkeypatch.setattr(resize_conv, "MIN_POSITIONS", 1)
    monkeypatch.setattr(resize_conv.F, "conv_transpose2d", counted)
    yield uses
    assert uses


def build(C: int, C_out: int, *, bias: bool, dtype: torch.dtype = torch.float64) -> tuple[nn.Sequential, nn.Module]:
    """A plain resize convolution and the optimized one with the same weights."""
    fast = ResizeConv2d(C, C_out, bias=bias).to(dtype)
    plain = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(C, C_out, 3, padding=1, bias=bias)).to(dtype)
    plain.load_state_dict(fast.state_dict())
    optimize_for_cpu(fast)
    assert isinstance(fast, TransposedResizeConv2d)
    return plain, fast


def results(network: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    y = network(x)
    upstream = torch.rand(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [x, *network.parameters()], upstream)]


@pytest.mark.usefixtures("transposed")
def test_outputs_and_gradients_at_any_size() -> None:
    @given(st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.integers(1, 7)] * 2), st.booleans(), st.booleans())
    def check(counts: tuple[int, int, int], size: tuple[int, int], bias: bool, is_channels_last: bool) -> None:
        N, C, C_out = counts
        plain, fast = build(C, C_out, bias=bias)
        memory = torch.channels_last if is_channels_last else torch.contiguous_format
        x = torch.randn(N, C, *size, dtype=torch.float64).contiguous(memory_format=memory)
        for found, expected in zip(results(fast.to(memory_format=memory), x), results(plain, x), strict=True):
            torch.testing.assert_close(found, expected)

    check()


@pytest.mark.usefixtures("transposed")
def test_it_can_be_differentiated_twice() -> None:
    _, fast = build(2, 3, bias=True)
    assert torch.autograd.gradgradcheck(fast, torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True))


@pytest.mark.usefixtures("transposed")
def test_bfloat16_is_as_near_to_float32_as_the_plain_form() -> None:
    plain, fast = build(16, 8, bias=True, dtype=torch.float32)
    x = torch.randn(2, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = plain(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            errors = [(each(x).float() - exact).std() / exact.std() for each in (fast, plain)]
    assert 1e-4 < errors[0] < 1.5 * errors[1] < 0.02


def test_small_maps_take_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = build(2, 3, bias=True)
    side = math.ceil(resize_conv.MIN_POSITIONS**0.5)
    monkeypatch.setattr(resize_conv.F, "conv_transpose2d", None)
    small = torch.randn(1, 2, side - 1, side - 1, dtype=torch.float64)
    torch.testing.assert_close(fast(small), plain(small))
    with pytest.raises(TypeError):
        fast(torch.zeros(1, 2, side, side, dtype=torch.float64))


def test_traced_and_compiled_it_is_the_plain_form() -> None:
    plain, fast = build(2, 3, bias=True)
    x = torch.randn(1, 2, 40, 40, dtype=torch.float64)
    program = torch.export.export(fast, (x,))
    targets = {str(node.target) for node in program.graph.nodes}
    assert any("upsample_nearest" in each for each in targets)
    assert not any("transpose" in each for each in targets)
    torch.testing.assert_close(program.module()(x), plain(x))
