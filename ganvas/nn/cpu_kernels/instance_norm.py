"""Instance norm on a CPU, in channels-last memory (Ulyanov et al. 2016, Eq. 2).

torch's own (2.15) leaves channels-last memory on a CPU, rounds the statistics of bfloat16 maps to bfloat16, and reads
the channels-last gradient of a single image as if it were contiguous: wrong weights and no error. Its group norm, with
each channel as a group, has two other problems in channels-last memory: it computes the variance as a difference of two
sums, which cancels on nearly constant maps; and it is slow (a third of a CycleGAN step). So the formulas are computed
here, chunk by chunk (`benchmarks.train_step --model cyclegan` measures the step).

Batch norm of one image is its instance norm, and torch's channels-last kernel for it is the fastest. It accumulates in
float32 one value after another, which is accurate enough for bfloat16 maps that are not too large.

Letters in shape comments: N images, C channels, H rows, W columns, P = H * W positions; n images, p positions of a
chunk.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)
MAX_EXACT = 1 << 16  # values of 8 bits whose sum float32, with 24 bits, holds
CHUNK = 1 << 18  # values computed at a time: a megabyte in float32, which fits into the cache


class CpuInstanceNorm2d(nn.InstanceNorm2d):
    """Instance norm without affine parameters that keeps channels-last memory and computes in float32 on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the channels of [N, C, H, W]."""
        return instance_norm(x, self.eps) if x.is_cpu and x.dim() == 4 else super().forward(x)


def instance_norm(x: Tensor, eps: float) -> Tensor:
    """Normalize each channel of each image of [N, C, H, W] to mean 0 and variance 1; twice differentiable.

    Statistics and gradients of half-precision maps are computed in float32.
    """
    # Compilers generate kernels of their own, and an exported file must hold an operator that other runtimes know.
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined]
    if traced or not x.numel() or not x.is_contiguous(memory_format=torch.channels_last):
        return _group_norm(x, eps)
    return _InstanceNorm.apply(x, eps)


def _group_norm(x: Tensor, eps: float) -> Tensor:
    C, scale, shift = x.shape[1], None, None
    if x.dtype in HALF:  # with float32 parameters it computes in float32
        scale, shift = torch.ones(C, device=x.device), torch.zeros(C, device=x.device)
    return F.group_norm(x, C, scale, shift, eps)


class _InstanceNorm(torch.autograd.Function):
    """Forward and backward by the formulas; second derivatives by those of group norm."""

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
            for images in _image_chunks(_rows(x), _rows(y), mean, rstd):
                _normalize(eps, *images)
        ctx.save_for_backward(x, mean, rstd)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        x, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient must be a function of x and grad
            own = x.view_as(x)  # hooks on x belong to the outer pass
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
            for images in _image_chunks(_rows(x), _rows(grad), _rows(result), mean, rstd):
                _gradient(*images)
        return result, None


def _has_exact_sums(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16 and x[0, 0].numel() <= MAX_EXACT


def _channels_last(x: Tensor) -> Tensor:
    """Return [N, C, H, W] in channels-last memory with canonical strides.

    Other strides of a single image, or channel, count as channels-last as well, but select a slower kernel.
    """
    _, C, H, W = x.shape
    return x.contiguous(memory_format=torch.channels_last).as_strided(x.shape, (H * W * C, 1, W * C, C))


def _normalize(eps: float, x: Tensor, y: Tensor, mean: Tensor, rstd: Tensor) -> None:
    """Normalize images x [n, P, C] into y, and write their means and reciprocal standard deviations [n, 1, C]."""
    # Merge means and squared deviations chunk by chunk (Chan et al. 1983, Eq. 2.1), which does not cancel.
    count, squares = 0, torch.zeros_like(mean)
    mean.zero_()
    for (chunk,) in _position_chunks(x):  # [n, p, C]
        p = chunk.shape[1]
        chunk_mean = chunk.mean(1, keepdim=True, dtype=mean.dtype)
        shift = chunk_mean - mean
        squares += (chunk - chunk_mean).square_().sum(1, keepdim=True)
        squares += shift.square() * (count * p / (count + p))
        mean += shift * (p / (count + p))
        count += p
    rstd.copy_((squares / count + eps).rsqrt())
    for x_chunk, y_chunk in _position_chunks(x, y):
        y_chunk.copy_((x_chunk - mean).mul_(rstd))


def _gradient(x: Tensor, grad: Tensor, result: Tensor, mean: Tensor, rstd: Tensor) -> None:
    """Write rstd * (grad - mean(grad) - x̂ * mean(grad * x̂)) with x̂ = (x - mean) * rstd to ``result``.

    x, grad and result are [n, P, C]; mean and rstd are [n, 1, C].
    """
    P = x.shape[1]
    grad_sum, product_sum = torch.zeros_like(mean), torch.zeros_like(mean)
    for x_chunk, grad_chunk in _position_chunks(x, grad):
        grad_sum += grad_chunk.sum(1, keepdim=True, dtype=mean.dtype)
        product_sum += (x_chunk - mean).mul_(grad_chunk).sum(1, keepdim=True)
    grad_mean, slope = grad_sum / P, product_sum * rstd.square() / P
    for x_chunk, grad_chunk, result_chunk in _position_chunks(x, grad, result):
        result_chunk.copy_((grad_chunk - grad_mean).sub_((x_chunk - mean).mul_(slope)).mul_(rstd))


def _rows(x: Tensor) -> Tensor:
    """View channels-last [N, C, H, W] as [N, P, C]; other layouts are copied."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _image_chunks(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split maps along N, by as many images [P, C] of the first map as a chunk holds, at least one."""
    at_a_time = max(1, CHUNK // maps[0][0].numel())
    return zip(*(each.split(at_a_time) for each in maps), strict=True)


def _position_chunks(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split maps [n, P, C] along P into chunks [n, p, C]; several images fit into one chunk."""
    at_a_time = max(1, CHUNK // maps[0].shape[2])
    return zip(*(each.split(at_a_time, dim=1) for each in maps), strict=True)
