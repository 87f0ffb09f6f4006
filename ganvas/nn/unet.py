"""The U-Net generator of pix2pix (Isola et al. 2017, Sec. 3.2.1 and 6.1.1).

Departures: any height and width (reflection padding to a multiple of 2 ** num_levels, cropped back); the innermost
convolution has no norm, which would zero a single position of a single image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganvas.nn.layers import LEAKY_SLOPE, Norm, UpBlock, Upsampling, make_norm, needs_bias, pad_to_multiple


class UNetDown(nn.Sequential):
    """One level down: LeakyReLU, convolution 4x4 stride 2, norm.

    The activation comes first, so that the skip connection carries the value before it.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm, activate: bool, bias: bool) -> None:
        super().__init__(
            nn.LeakyReLU(LEAKY_SLOPE) if activate else nn.Identity(),
            nn.Conv2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=bias),
            make_norm(norm, out_channels),
        )


class UNetGenerator(nn.Module):
    """Encoder and decoder of ``num_levels`` levels with skip connections.

    The defaults are C64-C128-C256-C512-C512-C512-C512-C512 and its mirror image (54.4 million parameters).

    Args:
        in_channels: Channels of the source image.
        out_channels: Channels of the output image.
        base_channels: Filters of the outermost level; they double with each level, up to 8 times as many.
        num_levels: Levels of the encoder and of the decoder; 8 reduce 256x256 to 1x1.
        norm: Norm of all levels but the outermost two and the innermost of the encoder.
        dropout: Dropout probability; the noise z of the paper.
        dropout_levels: Decoder levels with dropout, 0 being the innermost; the paper's are the first three.
        upsampling: "transpose" (the paper's) or "resize" (no checkerboard artifacts).

    Reference: Isola et al. 2017, Sec. 6.1.1; Ronneberger et al. 2015.

    Example:
        >>> UNetGenerator(base_channels=8, num_levels=5)(torch.zeros(1, 3, 100, 60)).shape
        torch.Size([1, 3, 100, 60])
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        base_channels: int = 64,
        num_levels: int = 8,
        norm: Norm = "batch",
        dropout: float = 0.5,
        dropout_levels: Sequence[int] = (0, 1, 2),
        upsampling: Upsampling = "transpose",
    ) -> None:
        super().__init__()
        if num_levels < 1:
            raise ValueError(f"num_levels is {num_levels}; a U-Net has at least 1")
        self.num_levels = num_levels
        bias = needs_bias(norm)
        widths = [base_channels * min(2**level, 8) for level in range(num_levels)]

        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            outermost, innermost = level == 0, level == num_levels - 1
            self.down.append(
                UNetDown(
                    in_channels if outermost else widths[level - 1],
                    width,
                    norm="none" if outermost or innermost else norm,
                    activate=not outermost,
                    bias=bias,
                )
            )

        self.up = nn.ModuleList()
        for step, level in enumerate(reversed(range(num_levels))):
            outermost, innermost = level == 0, level == num_levels - 1
            self.up.append(
                UpBlock(
                    widths[level] if innermost else 2 * widths[level],  # the skip doubles the channels
                    out_channels if outermost else widths[level - 1],
                    norm="none" if outermost else norm,
                    dropout=dropout if step in dropout_levels and not outermost else 0.0,
                    upsampling=upsampling,
                    bias=True if outermost else bias,
                )
            )

    def forward(self, source: Tensor) -> Tensor:
        """Translate [N, C_in, H, W] in [-1, 1] to [N, C_out, H, W] in [-1, 1], for any H and W from 1 on."""
        H, W = source.shape[-2:]
        x, top, left = pad_to_multiple(source, 2**self.num_levels)

        skips = []
        for down in self.down:
            x = down(x)  # level i: [N, widths[i], H / 2^(i+1), W / 2^(i+1)]
            skips.append(x)

        x = self.up[0](skips.pop())
        for up in self.up[1:]:
            x = up(torch.cat([skips.pop(), x], dim=1))  # [N, 2 * widths[i], …] to twice the height and width

        return torch.tanh(x)[..., top : top + H, left : left + W]
