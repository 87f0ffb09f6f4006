"""Instance norm on a CPU, in channels-last memory (Ulyanov et al. 2016, Eq. 2).

torch's own leaves channels-last on a CPU, rounds the statistics of bfloat16 maps to bfloat16, and reads the
channels-last gradient of a single picture as if it were contiguous: wrong weights and no error (torch 2.15). Group norm
with each channel as a group is the same function, without all three. But in channels-last two of its kernels are slow:
the gradient, which took a third of a CycleGAN step at 256 pixels, and maps below 1,024 positions, a third of one at 64.
Their formulas in whole-row operations take a twentieth to a fourth of that time
(`benchmarks.train_step --model cyclegan` measures the step).

Letters in shape comments: N pictures, C channels, H rows, W columns, P = H * W positions; n pictures, p positions of a
piece.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)
SMALL = 1024  # positions; torch's group norm goes through smaller maps channel by channel
PIECE = 1 << 18  # values computed at a time: a megabyte in float32, so that they stay in the cache


def instance_norm(x: Tensor, eps: float) -> Tensor:
    """Normalise each channel of each picture of [N, C, H, W] to mean 0 and variance 1; same shape, type and layout.

    Statistics and gradients of half-precision maps are computed in float32. Can be differentiated twice.
    """
    # A compiler makes kernels of its own, and an exported file has to hold a function that other runtimes know.
    if torch.compiler.is_compiling() or not x.is_contiguous(memory_format=torch.channels_last):
        return _group_norm(x, eps)
    return _InstanceNorm.apply(x, eps)


def _group_norm(x: Tensor, eps: float) -> Tensor:
    scale, shift = _scale_and_shift(x) if x.dtype in HALF else (None, None)
    return F.group_norm(x, x.shape[1], scale, shift, eps)


def _scale_and_shift(x: Tensor) -> tuple[Tensor, Tensor]:
    """Give ones and zeros [C] for group norm: float32 ones make it compute in float32."""
    C, dtype = x.shape[1], _computed_in(x)
    return torch.ones(C, dtype=dtype), torch.zeros(C, dtype=dtype)


def _computed_in(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in HALF else x.dtype


class _InstanceNorm(torch.autograd.Function):
    """Forward the formula or group norm's kernel; backward the formula, or group norm for a second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        N, C, H, W = x.shape
        if H * W < SMALL:
            y, mean, rstd = _normalise(x, eps)
        else:
            y, mean, rstd = torch.native_group_norm(x, *_scale_and_shift(x), N, C, H * W, C, eps)
        ctx.save_for_backward(x, mean.view(N, 1, C), rstd.view(N, 1, C))
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        x, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient has to be a function of x and grad
            (result,) = torch.autograd.grad(_group_norm(x, ctx.eps), x, grad, create_graph=True)
            return result, None
        result = torch.empty_like(x)  # [N, C, H, W], channels-last as x
        for pictures in _pictures(_rows(x), _rows(grad), _rows(result), mean, rstd):
            _gradient(*pictures)
        return result, None


def _normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Give normalised small maps, like [N, C, H, W], and means and one over the deviations, [N, 1, C]."""
    N, C = x.shape[:2]
    y = torch.empty_like(x)
    mean, rstd = torch.empty(2, N, 1, C, dtype=_computed_in(x))
    for x_rows, y_rows, m, r in _pictures(_rows(x), _rows(y), mean, rstd):
        torch.mean(x_rows, 1, keepdim=True, dtype=m.dtype, out=m)
        centred = x_rows - m
        r.copy_((centred.square().mean(1, keepdim=True) + eps).rsqrt())
        y_rows.copy_(centred.mul_(r))
    return y, mean, rstd


def _gradient(x: Tensor, grad: Tensor, result: Tensor, mean: Tensor, rstd: Tensor) -> None:
    """Write some pictures' gradient: rstd * (grad - mean(grad) - x̂ * mean(grad * x̂)), x̂ = (x - mean) * rstd.

    Args:
        x: The pictures [n, P, C].
        grad: Gradient of the normalised pictures, the same shape.
        result: Where to write, the same shape.
        mean: Mean of each channel [n, 1, C], in the type to compute in.
        rstd: One over its deviation, the same shape and type.
    """
    P, C = x.shape[1:]
    pieces = [each.split(max(1, PIECE // C), dim=1) for each in (x, grad, result)]  # [n, p, C] each
    grad_sum, product_sum = torch.zeros_like(mean), torch.zeros_like(mean)
    for x_piece, grad_piece, _ in zip(*pieces, strict=True):
        grad_sum += grad_piece.sum(1, keepdim=True, dtype=mean.dtype)
        product_sum += (x_piece - mean).mul_(grad_piece).sum(1, keepdim=True)
    grad_mean, slope = grad_sum / P, product_sum * rstd.square() / P
    for x_piece, grad_piece, result_piece in zip(*pieces, strict=True):
        result_piece.copy_((grad_piece - grad_mean).sub_((x_piece - mean).mul_(slope)).mul_(rstd))


def _rows(x: Tensor) -> Tensor:
    """View channels-last [N, C, H, W] as [N, P, C]; another layout is copied."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _pictures(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Go through maps [N, P, C], the first of full size, by as many pictures as a piece holds, at least one."""
    at_a_time = max(1, PIECE // maps[0][0].numel())
    return zip(*(each.split(at_a_time) for each in maps), strict=True)
