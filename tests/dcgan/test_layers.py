"""Keras's 'same' padding, against the rule and against sums written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dcgan.layers import SameConv2d, SameConvTranspose2d, same_padding


@pytest.mark.parametrize(
    ("kernel", "stride", "size", "expected"),
    [  # what TensorFlow does, from the documents' layers
        (4, 2, 28, (1, 1)),
        (4, 2, 14, (1, 1)),
        (4, 2, 7, (1, 2)),
        (3, 2, 28, (0, 1)),
        (3, 2, 14, (0, 1)),
        (3, 2, 7, (1, 1)),
        (5, 2, 28, (1, 2)),
        (5, 2, 14, (1, 2)),
        (5, 2, 7, (2, 2)),
        (4, 1, 14, (1, 2)),
        (3, 1, 14, (1, 1)),
        (2, 3, 9, (0, 0)),
    ],
)
def test_padding_of_the_tutorials(kernel, stride, size, expected):
    assert same_padding(size, kernel, stride) == expected


def convolved(x, weight, stride):
    """A 'same' convolution of [H, W] by [k, k], written out: every output reads its pixels, zeros beyond the border."""
    (H, W), k = x.shape, weight.shape[0]
    rows, columns = -(-H // stride), -(-W // stride)
    top = max((rows - 1) * stride + k - H, 0) // 2
    left = max((columns - 1) * stride + k - W, 0) // 2
    out = torch.zeros(rows, columns)
    for row in range(rows):
        for column in range(columns):
            for i in range(k):
                for j in range(k):
                    y, z = row * stride + i - top, column * stride + j - left
                    if 0 <= y < H and 0 <= z < W:
                        out[row, column] += x[y, z] * weight[i, j]
    return out


@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
def test_convolution_is_the_sum_written_out(kernel, stride, H, W):
    torch.manual_seed(kernel * 100 + H)
    layer, x = SameConv2d(1, 1, kernel, stride), torch.randn(1, 1, H, W)
    expected = convolved(x[0, 0], layer.weight.detach()[0, 0], stride) + layer.bias.detach()
    torch.testing.assert_close(layer(x)[0, 0].detach(), expected, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 6), st.integers(1, 3), st.integers(1, 9))
def test_the_transposed_convolution_is_the_adjoint(kernel, stride, size):
    """<conv(x), y> = <x, adjoint(y)> for the same weights."""
    if kernel < stride:
        return  # pixels that no output reads; no such layer is built
    torch.manual_seed(kernel * 100 + size)
    down = SameConv2d(2, 3, kernel, stride).double()
    up = SameConvTranspose2d(3, 2, kernel, stride, output_size=size).double()
    up.weight.data = down.weight.data
    for layer in (down, up):
        torch.nn.init.zeros_(layer.bias)
    x = torch.randn(1, 2, size, size, dtype=torch.double)
    y = torch.randn(1, 3, -(-size // stride), -(-size // stride), dtype=torch.double)
    assert up(y).shape == x.shape
    torch.testing.assert_close((down(x) * y).sum(), (x * up(y)).sum())


def test_a_3x3_stride_2_layer_drops_the_last_row_and_column():
    layer = SameConvTranspose2d(1, 1, 3, 2, output_size=4)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    corner = torch.tensor([[0.0, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    assert layer(corner)[0, 0].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_a_transposed_layer_refuses_another_size():
    with pytest.raises(ValueError, match=r"input is \(3, 3\); 4 x 4 gives 7 x 7"):
        SameConvTranspose2d(1, 1, 5, 2, output_size=7)(torch.zeros(1, 1, 3, 3))
