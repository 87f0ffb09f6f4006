"""PatchGAN and pixel discriminators (Isola et al. 2017, Sec. 3.2.2 and 6.1.2).

They score overlapping patches instead of images: the output is a map of logits, each with its own receptive field
(`ganvas.nn.receptive_field`). For pix2pix the input is source and target, concatenated along the channels.
"""

from itertools import pairwise

from torch import Tensor, nn

from ganvas.nn.layers import LEAKY_SLOPE, DownBlock, Norm, make_norm, needs_bias


class PatchDiscriminator(nn.Module):
    """``num_layers`` stride-2 4x4 convolutions, then two of stride 1.

    The receptive fields of 1 to 6 layers are 16, 34, 70, 142, 286 and 574 pixels. The default is the 70x70 PatchGAN
    C64-C128-C256-C512; it maps 256x256 images to 30x30 logits.

    Args:
        in_channels: Channels of the input; for pix2pix, of source and target together.
        base_channels: Filters of the first convolution; they double with each layer, up to 8 times as many.
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

        # Halve the size num_layers times; the first convolution has no norm.
        layers: list[nn.Module] = [DownBlock(in_channels, widths[0], norm="none")]
        for before, after in pairwise(widths[:-1]):
            layers.append(DownBlock(before, after, norm=norm))

        # Enlarge the receptive field at stride 1, then compute one logit for each position.
        layers += [
            nn.Conv2d(widths[-2], widths[-1], kernel_size=4, padding=1, bias=needs_bias(norm)),
            make_norm(norm, widths[-1]),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
            nn.Conv2d(widths[-1], 1, kernel_size=4, padding=1),
        ]
        self.layers = nn.Sequential(*layers)
        self.min_size = 3 * 2**num_layers  # below it the two stride-1 layers have no output

    def forward(self, image: Tensor) -> Tensor:
        """Score [N, C_in, H, W] in [-1, 1]: [N, 1, H / 2^n - 2, W / 2^n - 2] logits, unbounded.

        Raises:
            ValueError: The image is smaller than ``min_size`` pixels.
        """
        H, W = image.shape[-2:]
        if min(H, W) < self.min_size:
            raise ValueError(f"the image is {H}x{W}; this PatchGAN needs at least {self.min_size} pixels a side")
        return self.layers(image)


class PixelDiscriminator(nn.Module):
    """1x1 convolutions: each pixel is scored alone (the 1x1 "PixelGAN" of Isola et al. 2017, Sec. 6.1.2)."""

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

    def forward(self, image: Tensor) -> Tensor:
        """Score [N, C_in, H, W] in [-1, 1]: [N, 1, H, W] logits, unbounded."""
        return self.layers(image)


def make_discriminator(in_channels: int, *, base_channels: int, num_layers: int, norm: Norm) -> nn.Module:
    """Build a `PatchDiscriminator`; with 0 layers a `PixelDiscriminator`."""
    if num_layers == 0:
        return PixelDiscriminator(in_channels, base_channels=base_channels, norm=norm)
    return PatchDiscriminator(in_channels, base_channels=base_channels, num_layers=num_layers, norm=norm)
