"""The layers that all networks share: stride-2 4x4 convolutions, LeakyReLU 0.2, norms, mirrored padding.

Radford et al. 2016 (DCGAN) set the pattern: strided convolutions instead of pooling, batch norm, LeakyReLU in what
goes down. Isola et al. 2017 (Sec. 6.1) and Zhu et al. 2017 (Sec. 7) build their networks from it.

Letters in shape comments: N images, C channels, H rows, W columns.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganvas.nn.cpu_kernels import matrix_form
from ganvas.nn.cpu_kernels.instance_norm import instance_norm

Norm = Literal["batch", "instance", "none"]
Upsampling = Literal["transpose", "resize"]
Statistics = Literal["running", "picture"]

CHANNELS_AT_A_TIME = 16  # of float32 in 512 bits
LEAKY_SLOPE = 0.2  # Isola et al. 2017, Sec. 6.1; Radford et al. 2016, Sec. 3


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that can use each image's own statistics once training is over.

    ``statistics`` matters in eval mode only. "running" is the usual batch norm: averages gathered in training.
    "image" normalizes each image by its own mean and variance, then applies the learned scale and shift: what the
    authors of pix2pix do at test time with a batch of one (Isola et al. 2017, Sec. 3.4), here for any batch size.
    """

    statistics: Statistics = "running"

    def forward(self, x: Tensor) -> Tensor:
        """Normalize [N, C, H, W] by channel; same shape out."""
        if self.training or self.statistics == "running":
            return super().forward(x)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class InstanceNorm2d(nn.InstanceNorm2d):
    """Instance norm that stays in channels-last memory and computes its statistics in float32, also on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each channel of each image of [N, C, H, W]; same shape out.

        Raises:
            ValueError: Another shape.
        """
        if x.device.type != "cpu":
            return super().forward(x)
        if x.dim() != 4 or x.shape[1] != self.num_features:
            raise ValueError(f"images must be [N, {self.num_features}, H, W], not {list(x.shape)}")
        return instance_norm(x, self.eps)


def set_norm_statistics(network: nn.Module, statistics: Statistics) -> None:
    """Choose what every batch norm of ``network`` normalizes by in eval mode."""
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            module.statistics = statistics


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """Build the norm layer of a block; instance norm is not affine, as in the CycleGAN paper's code."""
    if norm == "batch":
        return BatchNorm2d(channels)
    if norm == "instance":
        return InstanceNorm2d(channels)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"norm is {norm!r}; allowed are 'batch', 'instance' and 'none'")


def needs_bias(norm: Norm) -> bool:
    """Tell whether a convolution before this norm has a bias: batch norm's own shift makes one useless."""
    return norm != "batch"


class DownConv2d(nn.Conv2d):
    """Stride-2 4x4 convolution: [N, C_in, H, W] to [N, C_out, H / 2, W / 2].

    A plain ``nn.Conv2d(in, out, 4, stride=2, padding=1)`` but for the way small maps are computed on a CPU. It can be
    differentiated once; a discriminator with a gradient penalty needs the plain one.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        N, _, H, W = x.shape
        if matrix_form.prefers_matrix_form(self, N * (H // 2) * (W // 2)) and H % 2 == W % 2 == 0:
            return matrix_form.down(x, self.weight)
        return super().forward(x)


class UpConv2d(nn.ConvTranspose2d):
    """Stride-2 4x4 transposed convolution: [N, C_in, H, W] to [N, C_out, 2H, 2W], or to 2H + 1, 2W + 1 if ``odd``.

    A plain ``nn.ConvTranspose2d(in, out, 4, stride=2, padding=1)`` but for the way small maps are computed on a CPU.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True, *, odd: bool = False) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size=4, stride=2, padding=1, output_padding=int(odd), bias=bias
        )
        self.odd = odd

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve; ``output_size`` is there for the signature of the base class."""
        N, _, H, W = x.shape
        if output_size is None and not self.odd and matrix_form.prefers_matrix_form(self, N * H * W):
            return matrix_form.up(x, self.weight)
        return super().forward(x, output_size)


class OutputConv2d(nn.Conv2d):
    """Convolution of stride 1 to the few channels of a image: [N, C_in, H, W] to [N, C_out, H - k + 1, W - k + 1].

    A plain ``nn.Conv2d(in, out, k)`` but for the way it is computed on a CPU, whose kernels make 16 channels at a time
    and would make them for nothing.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        if not self._fills_kernels(x):
            return super().forward(x)
        # Four neighboring positions as channels: kernels one larger, at each of its four places, with stride 2.
        places = [F.pad(self.weight, (right, 1 - right, below, 1 - below)) for below in (0, 1) for right in (0, 1)]
        weight = torch.stack(places, dim=1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        return F.pixel_shuffle(F.conv2d(x, weight, bias, stride=2), 2)

    def _fills_kernels(self, x: Tensor) -> bool:
        if _is_exporting() or torch.jit.is_tracing():  # type: ignore[no-untyped-call, attr-defined]  # sizes are no numbers then
            return False
        outputs = [side - k + 1 for side, k in zip(x.shape[-2:], self.kernel_size, strict=True)]
        is_even = all(side % 2 == 0 for side in outputs)
        return is_even and x.device.type == "cpu" and 4 * self.out_channels <= CHANNELS_AT_A_TIME


def reflect_positions(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """Where to read a row of ``size`` pixels from ``-before`` to ``size + after - 1``, mirrored as often as needed.

    The mirror does not repeat the border pixel, so the period is 2 * size - 2; a single pixel repeats. Written so that
    it also exports with a symbolic size: no Python arithmetic that would fix the size of the example image.
    """
    n = torch.full((1,), size, device=device)
    period = (2 * n - 2).clamp(min=1)
    i = torch.arange(-before, size + after, device=device)
    i = i - period * torch.div(i, period, rounding_mode="floor")
    return torch.where(i < n, i, period - i)


def reflect_pad(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pad [N, C, H, W] by mirroring, also where the padding is wider than the image.

    Equal to ``F.pad(mode="reflect")`` where that is allowed (padding smaller than the side).
    """
    H, W = x.shape[-2:]
    if not torch.compiler.is_compiling() and max(top, bottom) < H and max(left, right) < W:
        return F.pad(x, (left, right, top, bottom), mode="reflect")  # stays in channels-last memory
    x = x.index_select(-2, reflect_positions(H, top, bottom, x.device))  # [N, C, top + H + bottom, W]
    return x.index_select(-1, reflect_positions(W, left, right, x.device))  # [N, C, …, left + W + right]


class ReflectPad2d(nn.Module):
    """Mirrored padding of ``padding`` pixels on each side, for images of any size."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """Take [N, C, H, W], give [N, C, H + 2 * padding, W + 2 * padding]."""
        return reflect_pad(x, self.padding, self.padding, self.padding, self.padding)

    def extra_repr(self) -> str:
        """Show the padding where the module is printed."""
        return str(self.padding)


def pad_to_multiple(x: Tensor, multiple: int, *, at_least: int = 1) -> tuple[Tensor, int, int]:
    """Pad [N, C, H, W] by mirroring until ``multiple`` divides both sides, half of it before and half after.

    Args:
        x: Images.
        multiple: What must divide both sides.
        at_least: Least side of the result, a multiple of ``multiple``.

    Returns:
        The padded images, and the rows above and columns left of the original, for cropping the output.
    """
    H, W = x.shape[-2:]
    rows, columns = (_larger(-side % multiple, at_least - side) for side in (H, W))
    top, left = rows // 2, columns // 2
    if _is_exporting() or rows or columns:  # an exported network must not remember that the example needed some
        x = reflect_pad(x, left, columns - left, top, rows - top)
    return x, top, left


def _is_exporting() -> bool:
    """Tell whether sizes are symbols now; torch 2.6 tells only compiling, of which exporting is a kind."""
    return getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()


def _larger(a: int, b: int) -> int:
    """Give the larger number; while a network is exported they are symbols, which ``max`` would fix to the example."""
    return torch.sym_max(a, b)  # type: ignore[return-value]


class DownBlock(nn.Sequential):
    """Halve height and width: convolution 4x4 stride 2, norm, LeakyReLU 0.2."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm = "batch", bias: bool | None = None) -> None:
        bias = needs_bias(norm) if bias is None else bias
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=bias),
            make_norm(norm, out_channels),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
        )


class UpBlock(nn.Sequential):
    """Double height and width (to an ``odd`` size, one more): ReLU, transposed convolution 4x4 stride 2, norm, dropout.

    With ``upsampling="resize"`` (nearest neighbor, then a 3x3 convolution) no checkerboard can arise: every
    output pixel is reached by the same number of weights (Odena et al. 2016).
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
    """Build what doubles height and width: [N, C_in, H, W] to [N, C_out, 2H, 2W], or one more of each if ``odd``."""
    if upsampling == "transpose":
        return UpConv2d(in_channels, out_channels, bias=bias, odd=odd)
    if upsampling == "resize" and not odd:
        return nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias),
        )
    raise ValueError(f"upsampling is {upsampling!r}; allowed are 'transpose' and, for even sizes, 'resize'")


class ResidualBlock(nn.Module):
    """Two mirrored-padding 3x3 convolutions with norm, added to the input (Johnson et al. 2016; Zhu et al. 2017)."""

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
        """Take and give [N, C, H, W]."""
        return x + self.body(x)
