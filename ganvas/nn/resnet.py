"""The ResNet generator of CycleGAN (Zhu et al. 2017, Sec. 7.2), after Johnson et al. 2016.

Departures: any height and width (reflection padding to a multiple of 4, cropped back).
"""

from torch import Tensor, nn

from ganvas.nn.layers import (
    Norm,
    ReflectPad2d,
    ResidualBlock,
    Upsampling,
    make_norm,
    needs_bias,
    pad_to_multiple,
)


class ResNetGenerator(nn.Module):
    """c7s1-64, d128, d256, ``num_blocks`` residual blocks, u128, u64, c7s1-3 in the paper's notation.

    Args:
        in_channels: Channels of the source image.
        out_channels: Channels of the output image.
        base_channels: Filters of the first convolution; the residual blocks have four times as many.
        num_blocks: Residual blocks; the paper uses 6 at 128 pixels and 9 from 256 pixels on.
        norm: Norm after each convolution but the last.
        dropout: Dropout probability in each residual block.
        upsampling: "transpose" (the paper's) or "resize" (no checkerboard artifacts).

    Reference: Zhu et al. 2017, Sec. 7.2.

    Example:
        >>> import torch
        >>> ResNetGenerator(base_channels=8, num_blocks=2)(torch.zeros(1, 3, 64, 50)).shape
        torch.Size([1, 3, 64, 50])
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        base_channels: int = 64,
        num_blocks: int = 9,
        norm: Norm = "instance",
        dropout: float = 0.0,
        upsampling: Upsampling = "transpose",
    ) -> None:
        super().__init__()
        F1, F2, F4 = base_channels, 2 * base_channels, 4 * base_channels
        bias = needs_bias(norm)

        def convolution(before: int, after: int, stride: int, kernel: int, padding: int) -> list[nn.Module]:
            return [
                nn.Conv2d(before, after, kernel, stride=stride, padding=padding, bias=bias),
                make_norm(norm, after),
                nn.ReLU(inplace=True),
            ]

        def upsample(before: int, after: int) -> list[nn.Module]:
            return [
                _make_upsampling_3x3(before, after, upsampling=upsampling, bias=bias),
                make_norm(norm, after),
                nn.ReLU(inplace=True),
            ]

        self.layers = nn.Sequential(
            ReflectPad2d(3),
            *convolution(in_channels, F1, stride=1, kernel=7, padding=0),
            *convolution(F1, F2, stride=2, kernel=3, padding=1),
            *convolution(F2, F4, stride=2, kernel=3, padding=1),
            *(ResidualBlock(F4, norm=norm, dropout=dropout) for _ in range(num_blocks)),
            *upsample(F4, F2),
            *upsample(F2, F1),
            ReflectPad2d(3),
            nn.Conv2d(F1, out_channels, kernel_size=7),
            nn.Tanh(),
        )

    def forward(self, source: Tensor) -> Tensor:
        """Translate [N, C_in, H, W] in [-1, 1] to [N, C_out, H, W] in [-1, 1], for any H and W from 1 on."""
        H, W = source.shape[-2:]
        # With 8 pixels a side the residual blocks have 2x2 positions; instance norm would zero a single one.
        x, top, left = pad_to_multiple(source, 4, at_least=8)
        return self.layers(x)[..., top : top + H, left : left + W]


def _make_upsampling_3x3(in_channels: int, out_channels: int, *, upsampling: Upsampling, bias: bool) -> nn.Module:
    """Build the paper's u-layer: 3x3, [N, C_in, H, W] to [N, C_out, 2H, 2W]."""
    if upsampling == "transpose":
        return nn.ConvTranspose2d(
            in_channels, out_channels, kernel_size=3, stride=2, padding=1, output_padding=1, bias=bias
        )
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias),
    )
