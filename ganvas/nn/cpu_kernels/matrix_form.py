"""Stride-2 4x4 convolutions as matrix products, for maps with few positions on a CPU.

At the inner levels of a U-Net a map has a few positions and its convolution millions of weights, so memory traffic
dominates, and general convolution kernels reorder the weights several times a step. In channels-last memory the weights
already are the matrix that maps 4x4 neighborhoods to outputs: one matrix product each computes the output, the input's
gradient and the weights' gradient.

Letters: N images, C channels in, O channels out, h x w positions of the smaller map (the larger one is 2h x 2w).
Maps inside these functions are [N, rows, columns, channels].
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

# Our choice, from measuring both forms at 1 to 4096 positions: up to here the matrix form takes a third to a half of
# the time; from 1,024 positions on the general kernels are faster.
MAX_POSITIONS = 256


class MatrixConv2d(nn.Conv2d):
    """4x4 convolution of stride 2 and padding 1; small maps can be differentiated once only."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [N, C, H, W] to [N, O, H / 2, W / 2]."""
        N, _, H, W = x.shape
        if prefers_matrix_form(self, N * (H // 2) * (W // 2)) and H % 2 == W % 2 == 0:
            return down(x, self.weight)
        return super().forward(x)


class MatrixConvTranspose2d(nn.ConvTranspose2d):
    """4x4 transposed convolution of stride 2 and padding 1; small maps can be differentiated once only."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve [N, C, H, W] to [N, O, 2H, 2W], or to other sizes as `torch.nn.ConvTranspose2d`."""
        N, _, H, W = x.shape
        is_even = output_size is None and self.output_padding == (0, 0)
        if is_even and prefers_matrix_form(self, N * H * W):
            return up(x, self.weight)
        return super().forward(x, output_size)


def prefers_matrix_form(layer: nn.Conv2d | nn.ConvTranspose2d, positions: int) -> bool:
    """Return whether ``layer`` is faster as a matrix product.

    Args:
        layer: The convolution.
        positions: N * h * w, the positions of the smaller map in the batch.
    """
    return (
        not torch.compiler.is_compiling()  # compilers know the general operation; sizes may be symbols
        and positions <= MAX_POSITIONS
        and layer.bias is None
        and layer.weight.is_cpu
        and layer.weight.is_contiguous(memory_format=torch.channels_last)
    )


def down(x: Tensor, weight: Tensor) -> Tensor:
    """Compute ``F.conv2d(x, weight, stride=2, padding=1)``: [N, C, 2h, 2w] and [O, C, 4, 4] to [N, O, h, w]."""
    x, weight = _autocast(x, weight)
    N, _, H, W = x.shape
    out = _Down.apply(x.permute(0, 2, 3, 1), weight.permute(0, 2, 3, 1).flatten(1))  # [N * h * w, O]
    return out.view(N, H // 2, W // 2, -1).permute(0, 3, 1, 2)


def up(x: Tensor, weight: Tensor) -> Tensor:
    """Compute ``F.conv_transpose2d(x, weight, stride=2, padding=1)``: [N, C, h, w], [C, O, 4, 4] to [N, O, 2h, 2w]."""
    x, weight = _autocast(x, weight)
    out = _Up.apply(x.permute(0, 2, 3, 1), weight.permute(0, 2, 3, 1).flatten(1))  # [N, 2h + 2, 2w + 2, O]
    return out[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def _autocast(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Cast both as autocast casts for a convolution; it does not apply inside custom functions."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        return x.to(dtype), weight.to(dtype)
    return x, weight


def _gather(padded: Tensor) -> Tensor:
    """Collect the 4x4 neighborhoods that stride 2 visits: [N, 2h + 2, 2w + 2, C] to [N * h * w, 16 * C]."""
    padded = padded.contiguous()
    N, rows, columns, C = padded.shape
    n, r, c, _ = padded.stride()
    h, w = rows // 2 - 1, columns // 2 - 1
    return padded.as_strided((N, h, w, 4, 4, C), (n, 2 * r, 2 * c, r, c, 1)).reshape(N * h * w, 16 * C)


def _scatter(columns: Tensor, N: int, h: int, w: int) -> Tensor:
    """Sum overlapping neighborhoods, the adjoint of `_gather`: [N * h * w, 16 * C] to [N, 2h + 2, 2w + 2, C]."""
    # Row 2 * i + k of the large map, k in 0..3, is row k % 2 of pair i + k // 2.
    parts = columns.view(N, h, w, 2, 2, 2, 2, -1)  # [N, h, w, row pair, row place, column pair, column place, C]
    out = columns.new_zeros(N, h + 1, 2, w + 1, 2, parts.shape[-1])
    for p in (0, 1):
        for q in (0, 1):
            out[:, p : p + h, :, q : q + w] += parts[:, :, :, p, :, q].transpose(2, 3)
    return out.view(N, 2 * h + 2, 2 * w + 2, -1)


def _pad(x: Tensor) -> Tensor:
    return F.pad(x, (0, 0, 1, 1, 1, 1))


class _Down(torch.autograd.Function):
    """Neighbourhoods times weights; x [N, 2h, 2w, C] and weights [O, 16 * C] to [N * h * w, O]."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weights: Tensor) -> Tensor:
        neighborhoods = _gather(_pad(x))
        ctx.save_for_backward(neighborhoods, weights)
        ctx.size = (x.shape[0], x.shape[1] // 2, x.shape[2] // 2)  # type: ignore[attr-defined]
        return neighborhoods @ weights.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        neighborhoods, weights = ctx.saved_tensors  # type: ignore[attr-defined]
        gradient = gradient.contiguous()
        for_x = _scatter(gradient @ weights, *ctx.size)[:, 1:-1, 1:-1]  # type: ignore[attr-defined]
        return for_x, gradient.t() @ neighborhoods


class _Up(torch.autograd.Function):
    """The adjoint: positions times weights, overlaps summed; x [N, h, w, C], weights [C, 16 * O] to a padded map."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weights: Tensor) -> Tensor:
        N, h, w, C = x.shape
        positions = x.reshape(N * h * w, C)
        ctx.save_for_backward(positions, weights)
        return _scatter(positions @ weights, N, h, w)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        positions, weights = ctx.saved_tensors  # type: ignore[attr-defined]
        N, rows, columns, _ = gradient.shape
        neighborhoods = _gather(gradient)
        for_x = (neighborhoods @ weights.t()).view(N, rows // 2 - 1, columns // 2 - 1, -1)
        return for_x, positions.t() @ neighborhoods
