"""A residual U-Net that also works at full resolution (Zhang et al. 2018; blocks after He et al. 2016b).

pix2pix's U-Net makes its last pixels from features of half the resolution. Here the outermost level has as many rows
and columns as the image, so that thin lines of the source reach the output, and upsampling is a resize convolution,
which draws no checkerboard (Odena et al. 2016).

Departures from Zhang et al.: stride-2 4x4 convolutions between the levels, one block a level, group norm.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ganvas.nn.layers import LEAKY_SLOPE, Norm, make_norm, make_upsampling, pad_to_multiple


class PreActivationBlock(nn.Module):
    """Norm, LeakyReLU, 3x3 convolution, twice, added to the input (He et al. 2016b, Fig. 4e)."""

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            make_norm(norm, in_channels),
            nn.LeakyReLU(LEAKY_SLOPE),
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
            make_norm(norm, out_channels),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
        )
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C_in, H, W] to [N, C_out, H, W]."""
        return self.shortcut(x) + self.body(x)


class ResUNetGenerator(nn.Module):
    """Encoder and decoder with a residual block on each of ``num_levels`` + 1 resolutions, and skip connections.

    Args:
        in_channels: Channels of the source image.
        out_channels: Channels of the output image.
        base_channels: Filters at full resolution; they double with each level, up to 8 times as many.
        num_levels: How often the resolution is halved.
        norm: Norm of the residual blocks.

    Reference: Zhang et al. 2018 (Road Extraction by Deep Residual U-Net), Sec. II.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        base_channels: int = 32,
        num_levels: int = 5,
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        if num_levels < 1:
            raise ValueError(f"num_levels is {num_levels}; a U-Net has at least 1")
        self.num_levels = num_levels
        widths = [base_channels * min(2**level, 8) for level in range(num_levels + 1)]

        self.stem = nn.Conv2d(in_channels, base_channels, kernel_size=3, padding=1)
        self.encode = nn.ModuleList(PreActivationBlock(width, width, norm=norm) for width in widths)
        self.down = nn.ModuleList(
            nn.Conv2d(outer, inner, kernel_size=4, stride=2, padding=1) for outer, inner in pairwise(widths)
        )
        self.up = nn.ModuleList(
            make_upsampling(inner, outer, upsampling="resize", bias=True) for outer, inner in pairwise(widths)
        )
        self.decode = nn.ModuleList(PreActivationBlock(2 * width, width, norm=norm) for width in widths[:-1])
        self.head = nn.Sequential(
            make_norm(norm, base_channels),
            nn.LeakyReLU(LEAKY_SLOPE),
            nn.Conv2d(base_channels, out_channels, kernel_size=3, padding=1),
        )

    def forward(self, source: Tensor) -> Tensor:
        """Translate [N, C_in, H, W] in [-1, 1] to [N, C_out, H, W] in [-1, 1], for any H and W from 1 on."""
        H, W = source.shape[-2:]
        # At the innermost level there are 2x2 positions or more; instance norm would zero a single one.
        x, top, left = pad_to_multiple(source, 2**self.num_levels, at_least=2 ** (self.num_levels + 1))

        x = self.stem(x)  # [N, base_channels, H, W]
        skips = []
        for encode, down in zip(self.encode, self.down, strict=False):  # the innermost block comes after the loop
            x = encode(x)  # level i: [N, widths[i], H / 2^i, W / 2^i]
            skips.append(x)
            x = down(x)
        x = self.encode[-1](x)
        for up, decode in zip(reversed(self.up), reversed(self.decode), strict=True):
            x = decode(torch.cat([skips.pop(), up(x)], dim=1))  # [N, 2 * widths[i], …] to [N, widths[i], …]

        return torch.tanh(self.head(x))[..., top : top + H, left : left + W]
