"""The layers that all networks share: stride-2 4x4 convolutions, LeakyReLU 0.2, norms, reflection padding.

Radford et al. 2016 (DCGAN) set the pattern: strided convolutions instead of pooling, batch norm, LeakyReLU in the
encoder. Isola et al. 2017 (Sec. 6.1) and Zhu et al. 2017 (Sec. 7) build their networks from it.

Letters in shape comments: N images, C channels, H rows, W columns.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "instance", "group", "layer", "none"]
Upsampling = Literal["transpose", "resize"]
Resampling = Literal["strided", "blur"]
Statistics = Literal["running", "picture"]

GROUP_CHANNELS = 16  # of a group norm: Wu and He 2018, Sec. 4.1
LEAKY_SLOPE = 0.2  # Isola et al. 2017, Sec. 6.1; Radford et al. 2016, Sec. 3


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that can normalize each image by its own statistics in eval mode.

    ``statistics`` "running" is the usual batch norm. "picture" normalizes each image by its own mean and variance, then
    applies the learned scale and shift: what the authors of pix2pix do at test time with a batch of one (Isola et al.
    2017, Sec. 3.4), here for any batch size.
    """

    statistics: Statistics = "running"

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the channels of [N, C, H, W]."""
        if self.training or self.statistics == "running":
            return super().forward(x)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


def set_norm_statistics(network: nn.Module, statistics: Statistics) -> None:
    """Set what every `BatchNorm2d` of ``network`` normalizes by in eval mode."""
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            module.statistics = statistics


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each pixel (Ba et al. 2016), without scale and shift.

    With norms over the whole image, a generator can write one huge value to shrink all others, which draws a blob
    (Karras et al. 2020, Sec. 2), and single-color images lose their color. This norm has neither problem.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each pixel of [N, C, H, W] to mean 0 and deviation 1 over its channels."""
        return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Build the norm layer of a block; instance norm is not affine, as in the CycleGAN paper's code.

    Group norm has 16 channels a group (Wu and He 2018).
    """
    if norm == "batch":
        return BatchNorm2d(channels)
    if norm == "instance":
        return nn.InstanceNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(channels, max(1, channels // GROUP_CHANNELS)), channels)
    if norm == "layer":
        return LayerNorm2d()
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"norm is {norm!r}; allowed are 'batch', 'instance', 'group', 'layer' and 'none'")


def needs_bias(norm: Norm) -> bool:
    """Return whether a convolution before this norm has a bias; batch norm has a shift of its own."""
    return norm != "batch"


def reflect_positions(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """Return the indices that pad ``size`` pixels by reflection, also by more than ``size``: [before + size + after].

    Reflection does not repeat the border pixel, so the period is 2 * size - 2; a single pixel is repeated. Python
    arithmetic would fix ``size`` to that of the example image when the network is exported.
    """
    n = torch.full((1,), size, device=device)
    period = (2 * n - 2).clamp(min=1)
    i = torch.arange(-before, size + after, device=device)
    i = i - period * torch.div(i, period, rounding_mode="floor")
    return torch.where(i < n, i, period - i)


def reflect_pad(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pad [N, C, H, W] by reflection, also where the padding is wider than the image.

    Equal to ``F.pad(mode="reflect")`` where that is allowed (padding smaller than the side).
    """
    H, W = x.shape[-2:]
    if not torch.compiler.is_compiling() and max(top, bottom) < H and max(left, right) < W:
        return F.pad(x, (left, right, top, bottom), mode="reflect")  # keeps channels-last memory
    x = x.index_select(-2, reflect_positions(H, top, bottom, x.device))  # [N, C, top + H + bottom, W]
    return x.index_select(-1, reflect_positions(W, left, right, x.device))  # [N, C, …, left + W + right]


class ReflectPad2d(nn.Module):
    """Reflection padding of ``padding`` pixels on each side, for images of any size."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """Pad [N, C, H, W] to [N, C, H + 2 * padding, W + 2 * padding]."""
        return reflect_pad(x, self.padding, self.padding, self.padding, self.padding)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows in parentheses."""
        return str(self.padding)


def pad_to_multiple(x: Tensor, multiple: int, *, at_least: int = 1) -> tuple[Tensor, int, int]:
    """Pad [N, C, H, W] by reflection to sides that ``multiple`` divides, half of it before and half after.

    Args:
        x: Images.
        multiple: Divisor of both sides of the result.
        at_least: Minimum side of the result, a multiple of ``multiple``.

    Returns:
        The padded images, and the rows above and columns left of the original, for cropping the output.
    """
    H, W = x.shape[-2:]
    rows, columns = (_maximum(-side % multiple, at_least - side) for side in (H, W))
    top, left = rows // 2, columns // 2
    if is_exporting() or rows or columns:  # an exported network must not depend on whether the example needed padding
        x = reflect_pad(x, left, columns - left, top, rows - top)
    return x, top, left


def is_exporting() -> bool:
    """Return whether the network is being exported; torch 2.6 reports only compiling, which includes it."""
    return getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()


def _maximum(a: int, b: int) -> int:
    """Return the maximum, also of the symbols that sizes are during export; ``max`` would fix them to the example."""
    return torch.sym_max(a, b)  # type: ignore[return-value]


class BlurPool2d(nn.Module):
    """Halve height and width without aliasing: blur by [1, 2, 1] along both axes, then take every second position.

    Reference: Zhang 2019 (Making Convolutional Networks Shift-Invariant Again), Sec. 3.2.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C, ceil(H / 2), ceil(W / 2)]; borders are reflected."""
        x = reflect_pad(x, 1, 1, 1, 1)
        # [1, 2, 1] / 4 is [1, 1] / 2 twice: poolings have kernels for every precision and memory layout.
        return F.avg_pool2d(F.avg_pool2d(x, 2, stride=1), 2)


def make_blurred_upsampling() -> nn.Module:
    """Build a layer that doubles height and width by the filter [1, 3, 3, 1] / 4, which is bilinear interpolation."""
    return nn.Upsample(scale_factor=2, mode="bilinear")


class DownBlock(nn.Sequential):
    """Halve height and width: convolution 4x4 stride 2, norm, LeakyReLU 0.2; with "blur" at stride 1, then blurred."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: Norm = "batch",
        bias: bool | None = None,
        resampling: Resampling = "strided",
    ) -> None:
        bias = needs_bias(norm) if bias is None else bias
        stride = 1 if resampling == "blur" else 2
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=4, stride=stride, padding=1, bias=bias),
            make_norm(norm, out_channels),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
        )
        if resampling == "blur":
            self.append(BlurPool2d())


class UpBlock(nn.Sequential):
    """Double height and width (plus 1 if ``odd``): ReLU, transposed convolution 4x4 stride 2, norm, dropout.

    ``upsampling="resize"`` is a `ResizeConv2d` instead.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm: Norm = "batch",
        dropout: float = 0.0,
        upsampling: Upsampling = "transpose",
        bias: bool | None = None,
        odd: bool = False,
    ) -> None:
        bias = needs_bias(norm) if bias is None else bias
        super().__init__(
            nn.ReLU(inplace=True),
            make_upsampling(in_channels, out_channels, upsampling=upsampling, bias=bias, odd=odd),
            make_norm(norm, out_channels),
        )
        if dropout:
            self.append(nn.Dropout(dropout))


def make_upsampling(
    in_channels: int, out_channels: int, *, upsampling: Upsampling, bias: bool, odd: bool = False
) -> nn.Module:
    """Build an upsampling layer: [N, C_in, H, W] to [N, C_out, 2H, 2W], or to 2H + 1, 2W + 1 if ``odd``."""
    if upsampling == "transpose":
        return nn.ConvTranspose2d(
            in_channels, out_channels, kernel_size=4, stride=2, padding=1, output_padding=int(odd), bias=bias
        )
    if upsampling == "resize" and not odd:
        return ResizeConv2d(in_channels, out_channels, bias=bias)
    raise ValueError(f"upsampling is {upsampling!r}; allowed are 'transpose' and, for even sizes, 'resize'")


class ResizeConv2d(nn.Sequential):
    """Double height and width by nearest neighbors, then convolve 3x3: no checkerboard artifacts.

    Every output pixel depends on the same number of weights (Odena et al. 2016).
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias),
        )


class ResidualBlock(nn.Module):
    """Two reflection-padded 3x3 convolutions with norm, added to the input (Johnson et al. 2016; Zhu et al. 2017)."""

    def __init__(self, channels: int, *, norm: Norm = "instance", dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ReflectPad2d(1),
            nn.Conv2d(channels, channels, kernel_size=3, bias=needs_bias(norm)),
            make_norm(norm, channels),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout) if dropout else nn.Identity(),
            ReflectPad2d(1),
            nn.Conv2d(channels, channels, kernel_size=3, bias=needs_bias(norm)),
            make_norm(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        return x + self.body(x)
