"""Instance norm on a CPU, in channels-last memory (Ulyanov et al. 2016, Eq. 2).

torch's own leaves channels-last on a CPU, rounds the statistics of bfloat16 maps to bfloat16, and reads the
channels-last gradient of a single image as if it were contiguous: wrong weights and no error (torch 2.15). Its group
norm with each channel as a group has none of these faults, and two others in channels-last: it takes the variance as a
difference of two sums, of which nothing is left on a nearly flat map; and its gradient, and maps below 1,024 positions,
are so slow that they took a third of a CycleGAN step. So here are the formulas, piece by piece
(`benchmarks.train_step --model cyclegan` measures the step).

Batch norm of one image is its instance norm, and torch's channels-last kernel of that is the fastest way. It adds up
in float32 one value after another, which is exact enough where values have the 8 bits of bfloat16 and are not too many.

Letters in shape comments: N images, C channels, H rows, W columns, P = H * W positions; n images, p positions of a
piece.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)
EXACT = 1 << 16  # values of 8 bits of which float32, with its 24, holds any sum of like ones
PIECE = 1 << 18  # values computed at a time: a megabyte in float32, so that they stay in the cache


def instance_norm(x: Tensor, eps: float) -> Tensor:
    """Normalize each channel of each image of [N, C, H, W] to mean 0 and variance 1; same shape, type and layout.

    Statistics and gradients of half-precision maps are computed in float32. Can be differentiated twice.
    """
    # A compiler makes kernels of its own, and an exported file has to hold a function that other runtimes know.
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined]
    if traced or not x.numel() or not x.is_contiguous(memory_format=torch.channels_last):
        return _group_norm(x, eps)
    return _InstanceNorm.apply(x, eps)


def _group_norm(x: Tensor, eps: float) -> Tensor:
    C, scale, shift = x.shape[1], None, None
    if x.dtype in HALF:  # float32 parameters make it compute in float32
        scale, shift = torch.ones(C, device=x.device), torch.zeros(C, device=x.device)
    return F.group_norm(x, C, scale, shift, eps)


class _InstanceNorm(torch.autograd.Function):
    """Forward and backward by the formulas; for a second derivative, backward by group norm's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        N, C = x.shape[:2]
        y = torch.empty_like(x, memory_format=torch.channels_last)  # [N, C, H, W]
        dtype = torch.float32 if x.dtype in HALF else x.dtype
        mean, rstd = torch.empty(2, N, 1, C, dtype=dtype, device=x.device)
        if _has_exact_sums(x):
            scale, shift = torch.ones_like(mean[0, 0]), torch.zeros_like(mean[0, 0])
            for one, *out in zip(_channels_last(x).split(1), y.split(1), mean[:, 0], rstd[:, 0], strict=True):
                torch.native_batch_norm(one, scale, shift, None, None, True, 0.0, eps, out=tuple(out))
        else:
            for pictures in _pictures(_rows(x), _rows(y), mean, rstd):
                _normalise(eps, *pictures)
        ctx.save_for_backward(x, mean, rstd)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        x, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient has to be a function of x and grad
            own = x.view_as(x)  # hooks on x itself are for the outer pass
            (result,) = torch.autograd.grad(_group_norm(own, ctx.eps), own, grad, create_graph=True)
            return result, None
        result = torch.empty_like(x, memory_format=torch.channels_last)
        if _has_exact_sums(x):
            scale, (x, grad) = torch.ones_like(mean[0, 0]), map(_channels_last, (x, grad))
            kernel, options = torch.ops.aten.native_batch_norm_backward, (True, ctx.eps, [True, False, False])
            for one, *given in zip(result.split(1), grad.split(1), x.split(1), mean[:, 0], rstd[:, 0], strict=True):
                upstream, source, *statistics = given
                one.copy_(kernel(upstream, source, scale, None, None, *statistics, *options)[0])
        else:
            for pictures in _pictures(_rows(x), _rows(grad), _rows(result), mean, rstd):
                _gradient(*pictures)
        return result, None


def _has_exact_sums(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16 and x[0, 0].numel() <= EXACT


def _channels_last(x: Tensor) -> Tensor:
    """Give [N, C, H, W] in channels-last memory, by its own strides.

    A single image, or channel, is contiguous by others as well, from which the kernel takes a slower, rougher way.
    """
    _, C, H, W = x.shape
    return x.contiguous(memory_format=torch.channels_last).as_strided(x.shape, (H * W * C, 1, W * C, C))


def _normalise(eps: float, x: Tensor, y: Tensor, mean: Tensor, rstd: Tensor) -> None:
    """Write normalized images and their statistics.

    Args:
        eps: Added to the variances.
        x: The images [n, P, C].
        y: Where to write them, the same shape.
        mean: Where to write the means [n, 1, C], in the type to compute in.
        rstd: Where to write one over the deviations, the same shape and type.
    """
    # Mean and squares around it, piece by piece, joined as by Chan et al. 1983 (Eq. 2.1): nothing cancels.
    count, squares = 0, torch.zeros_like(mean)
    mean.zero_()
    for piece in _positions(x):  # [n, p, C]
        p = piece.shape[1]
        piece_mean = piece.mean(1, keepdim=True, dtype=mean.dtype)
        shift = piece_mean - mean
        squares += (piece - piece_mean).square_().sum(1, keepdim=True)
        squares += shift.square() * (count * p / (count + p))
        mean += shift * (p / (count + p))
        count += p
    rstd.copy_((squares / count + eps).rsqrt())
    for x_piece, y_piece in zip(_positions(x), _positions(y), strict=True):
        y_piece.copy_((x_piece - mean).mul_(rstd))


def _gradient(x: Tensor, grad: Tensor, result: Tensor, mean: Tensor, rstd: Tensor) -> None:
    """Write some images' gradient: rstd * (grad - mean(grad) - x̂ * mean(grad * x̂)), x̂ = (x - mean) * rstd.

    Args:
        x: The images [n, P, C].
        grad: Gradient of the normalized images, the same shape.
        result: Where to write, the same shape.
        mean: Mean of each channel [n, 1, C], in the type to compute in.
        rstd: One over its deviation, the same shape and type.
    """
    P = x.shape[1]
    grad_sum, product_sum = torch.zeros_like(mean), torch.zeros_like(mean)
    for x_piece, grad_piece in zip(_positions(x), _positions(grad), strict=True):
        grad_sum += grad_piece.sum(1, keepdim=True, dtype=mean.dtype)
        product_sum += (x_piece - mean).mul_(grad_piece).sum(1, keepdim=True)
    grad_mean, slope = grad_sum / P, product_sum * rstd.square() / P
    for x_piece, grad_piece, result_piece in zip(_positions(x), _positions(grad), _positions(result), strict=True):
        result_piece.copy_((grad_piece - grad_mean).sub_((x_piece - mean).mul_(slope)).mul_(rstd))


def _rows(x: Tensor) -> Tensor:
    """View channels-last [N, C, H, W] as [N, P, C]; another layout is copied."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _pictures(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Go through maps [N, P, C], the first of full size, by as many images as a piece holds, at least one."""
    at_a_time = max(1, PIECE // maps[0][0].numel())
    return zip(*(each.split(at_a_time) for each in maps), strict=True)


def _positions(x: Tensor) -> tuple[Tensor, ...]:
    """Cut images [n, P, C] by positions into pieces [n, p, C]; several images are one piece already."""
    return x.split(max(1, PIECE // x.shape[2]), dim=1)
