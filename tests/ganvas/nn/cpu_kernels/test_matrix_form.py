import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ganvas.nn.cpu_kernels import matrix_form
from ganvas.nn.cpu_kernels.matrix_form import MatrixConv2d, MatrixConvTranspose2d

SMALL = st.integers(1, 5)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def results(function: object, x: Tensor, weight: Tensor) -> list[Tensor]:
    """Output, and the gradients of input and weight under an uneven weighting of the output."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    out = function(x, weight)
    loss = (out * normal(*out.shape, seed=2)).sum()
    return [out.detach(), *torch.autograd.grad(loss, (x, weight))]


@given(N=SMALL, C=SMALL, K=SMALL, h=SMALL, w=SMALL, channels_last=st.booleans())
@settings(deadline=None, max_examples=40)
def test_down_equals_torchs_convolution(N: int, C: int, K: int, h: int, w: int, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = normal(N, C, 2 * h, 2 * w, seed=0).contiguous(memory_format=layout)
    weight = normal(K, C, 4, 4, seed=1).contiguous(memory_format=layout)
    ours = results(matrix_form.down, x, weight)
    torchs = results(lambda x, weight: F.conv2d(x, weight, stride=2, padding=1), x, weight)
    for one, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(one, other)


@given(N=SMALL, C=SMALL, K=SMALL, h=SMALL, w=SMALL, channels_last=st.booleans())
@settings(deadline=None, max_examples=40)
def test_up_equals_torchs_transposed_convolution(N: int, C: int, K: int, h: int, w: int, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = normal(N, C, h, w, seed=0).contiguous(memory_format=layout)
    weight = normal(C, K, 4, 4, seed=1).contiguous(memory_format=layout)
    ours = results(matrix_form.up, x, weight)
    torchs = results(lambda x, weight: F.conv_transpose2d(x, weight, stride=2, padding=1), x, weight)
    for one, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(one, other)


def layers() -> list[tuple[nn.Conv2d | nn.ConvTranspose2d, Tensor]]:
    """Both layers without a bias, each with an input that has few positions."""
    return [
        (MatrixConv2d(3, 4, 4, 2, 1, bias=False), torch.rand(1, 3, 8, 6)),
        (MatrixConvTranspose2d(3, 4, 4, 2, 1, bias=False), torch.rand(1, 3, 4, 3)),
    ]


@pytest.mark.parametrize("index", [0, 1])
def test_layers_use_the_matrix_form_for_few_positions(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layers()[index]
    layer.to(memory_format=torch.channels_last)
    calls = []
    for name in ("down", "up"):
        plain = getattr(matrix_form, name)
        monkeypatch.setattr(matrix_form, name, lambda *args, plain=plain, name=name: calls.append(name) or plain(*args))
    fast = layer(x)
    assert calls == [("down", "up")[index]]
    monkeypatch.setattr(matrix_form, "MAX_POSITIONS", 0)
    torch.testing.assert_close(layer(x), fast)
    assert len(calls) == 1


@pytest.mark.parametrize("index", [0, 1])
def test_matrix_form_under_autocast(index: int) -> None:
    layer, x = layers()[index]
    layer.to(memory_format=torch.channels_last)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x)
    assert rounded.dtype == torch.bfloat16
    assert 0 < (rounded.float() - exact).abs().max() < 0.02


@pytest.mark.parametrize("index", [0, 1])
def test_where_the_matrix_form_is_not_used(index: int) -> None:
    layer, _ = layers()[index]
    assert not matrix_form.prefers_matrix_form(layer, 1)  # contiguous weights would have to be reordered
    layer.to(memory_format=torch.channels_last)
    assert matrix_form.prefers_matrix_form(layer, matrix_form.MAX_POSITIONS)
    assert not matrix_form.prefers_matrix_form(layer, matrix_form.MAX_POSITIONS + 1)
    layer.bias = nn.Parameter(torch.zeros(4))
    assert not matrix_form.prefers_matrix_form(layer, 1)


def test_odd_sizes() -> None:
    down = layers()[0][0].to(memory_format=torch.channels_last)
    x = torch.rand(1, 3, 7, 5)
    torch.testing.assert_close(down(x), F.conv2d(x, down.weight, stride=2, padding=1))
    up = MatrixConvTranspose2d(3, 4, 4, 2, 1, output_padding=1, bias=False).to(memory_format=torch.channels_last)
    torch.testing.assert_close(up(x), F.conv_transpose2d(x, up.weight, stride=2, padding=1, output_padding=1))
