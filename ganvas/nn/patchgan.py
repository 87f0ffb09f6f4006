"""PatchGAN and pixel discriminators (Isola et al. 2017, Sec. 3.2.2 and 6.1.2).

They score overlapping patches, not the image: a map of logits, each of which sees one receptive field
(`ganvas.nn.receptive_field`). For pix2pix the input is source and target joined along the channels.
"""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from ganvas.nn.layers import LEAKY_SLOPE, DownBlock, Norm, make_norm, needs_bias


class PatchDiscriminator(nn.Module):
    """``num_layers`` stride-2 4x4 convolutions, then two of stride 1.

    Receptive field in pixels for 1 to 6 layers: 16, 34, 70, 142, 286, 574. The default, C64-C128-C256-C512 and one
    logit, is the 70x70 PatchGAN: 256x256 images give 30x30 logits.

    Args:
        in_channels: Channels of the input; for pix2pix those of source and target together.
        base_channels: Filters of the first convolution; they double up to 8 times as many.
        num_layers: Stride-2 convolutions, 1 to 6.
        norm: Norm of all convolutions but the first and the last.

    Reference: Isola et al. 2017, Sec. 6.1.2.
    """

    def __init__(
        self, in_channels: int = 6, *, base_channels: int = 64, num_layers: int = 3, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        if not 1 <= num_layers <= 6:
            raise ValueError(f"num_layers is {num_layers}; a PatchGAN here has 1 to 6 stride-2 layers")
        widths = [base_channels * min(2**layer, 8) for layer in range(num_layers + 1)]

        # Halve the size num_layers times; the first convolution sees pixels and has no norm.
        layers: list[nn.Module] = [DownBlock(in_channels, widths[0], norm="none")]
        for before, after in pairwise(widths[:-1]):
            layers.append(DownBlock(before, after, norm=norm))

        # Widen the field at stride 1, then one logit for each position.
        layers += [
            nn.Conv2d(widths[-2], widths[-1], kernel_size=4, padding=1, bias=needs_bias(norm)),
            make_norm(norm, widths[-1]),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
            nn.Conv2d(widths[-1], 1, kernel_size=4, padding=1),
        ]
        self.layers = nn.Sequential(*layers)
        self.min_size = 3 * 2**num_layers  # below it the two stride-1 layers find nothing to look at

    def forward(self, picture: Tensor) -> Tensor:
        """Score [N, C_in, H, W] in [-1, 1]: [N, 1, H / 2^n - 2, W / 2^n - 2] logits, unbounded.

        Raises:
            ValueError: The image is smaller than ``min_size`` pixels.
        """
        H, W = picture.shape[-2:]
        if min(H, W) < self.min_size:
            raise ValueError(f"the image is {H}x{W}; this PatchGAN needs at least {self.min_size} pixels a side")
        return self.layers(picture)


class PixelDiscriminator(nn.Module):
    """1x1 convolutions only: each pixel is scored on its own (Isola et al. 2017, Sec. 6.1.2, the 1x1 "PixelGAN")."""

    def __init__(self, in_channels: int = 6, *, base_channels: int = 64, norm: Norm = "batch") -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, base_channels, kernel_size=1),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
            nn.Conv2d(base_channels, 2 * base_channels, kernel_size=1, bias=needs_bias(norm)),
            make_norm(norm, 2 * base_channels),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
            nn.Conv2d(2 * base_channels, 1, kernel_size=1),
        )
        self.min_size = 1

    def forward(self, picture: Tensor) -> Tensor:
        """Score [N, C_in, H, W] in [-1, 1]: [N, 1, H, W] logits, unbounded."""
        return self.layers(picture)


def make_discriminator(
    kind: Literal["patch", "pixel"], in_channels: int, *, base_channels: int, num_layers: int, norm: Norm
) -> nn.Module:
    """Build a `PatchDiscriminator` or a `PixelDiscriminator`, which has no use for ``num_layers``."""
    if kind == "pixel":
        return PixelDiscriminator(in_channels, base_channels=base_channels, norm=norm)
    return PatchDiscriminator(in_channels, base_channels=base_channels, num_layers=num_layers, norm=norm)
