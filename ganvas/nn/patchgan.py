"""PatchGAN and pixel discriminators (Isola et al. 2017, Sec. 3.2.2 and 6.1.2).

They score overlapping patches instead of images: the output is a map of logits, each with its own receptive field
(`ganvas.nn.receptive_field`). For pix2pix the input is source and target, concatenated along the channels.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ganvas.nn.layers import LEAKY_SLOPE, DownBlock, Norm, Resampling, make_norm, needs_bias


class PatchDiscriminator(nn.Module):
    """``num_layers`` stride-2 4x4 convolutions, then two of stride 1.

    The receptive fields of 1 to 6 layers are 16, 34, 70, 142, 286 and 574 pixels. The default is the 70x70 PatchGAN
    C64-C128-C256-C512; it maps 256x256 images to 30x30 logits.

    Args:
        in_channels: Channels of the input; for pix2pix, of source and target together.
        base_channels: Filters of the first convolution; they double with each layer, up to 8 times as many.
        num_layers: Stride-2 convolutions, 1 to 6.
        norm: Norm of all convolutions but the first and the last.
        resampling: "blur" replaces each stride of 2 by a blurred one (Zhang 2019): 70 pixels become 84.

    Reference: Isola et al. 2017, Sec. 6.1.2.

    Example:
        >>> import torch
        >>> PatchDiscriminator(in_channels=6)(torch.zeros(1, 6, 256, 256)).shape
        torch.Size([1, 1, 30, 30])
    """

    def __init__(
        self,
        in_channels: int = 6,
        *,
        base_channels: int = 64,
        num_layers: int = 3,
        norm: Norm = "batch",
        resampling: Resampling = "strided",
    ) -> None:
        super().__init__()
        if not 1 <= num_layers <= 6:
            raise ValueError(f"num_layers is {num_layers}; a PatchGAN here has 1 to 6 stride-2 layers")
        widths = [base_channels * min(2**layer, 8) for layer in range(num_layers + 1)]

        # Halve the size num_layers times; the first convolution has no norm.
        layers: list[nn.Module] = [DownBlock(in_channels, widths[0], norm="none", resampling=resampling)]
        for before, after in pairwise(widths[:-1]):
            layers.append(DownBlock(before, after, norm=norm, resampling=resampling))

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
        require_size(image, self.min_size)
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


class MultiScaleDiscriminator(nn.Module):
    """Discriminators of one architecture that see the image at full, half, quarter … size, and return their features.

    Args:
        scales: The discriminators, the one for the full size first.

    Reference: Wang et al. 2018 (pix2pixHD), Sec. 3.2.
    """

    def __init__(self, scales: Sequence[PatchDiscriminator | PixelDiscriminator]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(scale.layers for scale in scales)
        self.min_size = max(scale.min_size << index for index, scale in enumerate(scales))

    def forward(self, image: Tensor) -> list[list[Tensor]]:
        """Score [N, C_in, H, W] in [-1, 1]: for each scale, the features after each layer; the last are the logits.

        Raises:
            ValueError: The image is smaller than ``min_size`` pixels.
        """
        require_size(image, self.min_size)
        outputs = []
        for index, scale in enumerate(self.scales):
            x = image if index == 0 else F.avg_pool2d(image, 2**index)  # [N, C_in, H / 2^i, W / 2^i]
            features = []
            for layer in cast(nn.Sequential, scale):
                x = layer(x)
                if isinstance(layer, DownBlock | nn.LeakyReLU):
                    features.append(x)
            outputs.append([*features, x])
        return outputs


def require_size(image: Tensor, min_size: int) -> None:
    """Check that an image [N, C, H, W] is at least ``min_size`` pixels a side.

    Raises:
        ValueError: It is smaller.
    """
    H, W = image.shape[-2:]
    if min(H, W) < min_size:
        raise ValueError(f"the image is {H}x{W}; this discriminator needs at least {min_size} pixels a side")


def make_discriminator(
    in_channels: int,
    *,
    base_channels: int,
    num_layers: int,
    norm: Norm | Literal["spectral"],
    resampling: Resampling = "strided",
    num_scales: int = 1,
    return_features: bool = False,
) -> nn.Module:
    """Build a `PatchDiscriminator`; with 0 layers a `PixelDiscriminator`.

    With several scales, or features, it is a `MultiScaleDiscriminator` of them. One for spectral norm has no norms:
    initialize its weights, then call `add_spectral_norm`.
    """
    layer_norm: Norm = "none" if norm == "spectral" else norm

    def one_scale() -> PatchDiscriminator | PixelDiscriminator:
        if num_layers == 0:
            return PixelDiscriminator(in_channels, base_channels=base_channels, norm=layer_norm)
        return PatchDiscriminator(
            in_channels, base_channels=base_channels, num_layers=num_layers, norm=layer_norm, resampling=resampling
        )

    if num_scales > 1 or return_features:
        return MultiScaleDiscriminator([one_scale() for _ in range(num_scales)])
    return one_scale()


def add_spectral_norm(network: nn.Module, rng: torch.Generator) -> None:
    """Divide the weights of all convolutions by their largest singular value, in place (Miyato et al. 2018, Eq. 8).

    Initialize the weights before. Each forward pass in training mode makes one power iteration, whose vectors are part
    of ``state_dict``.

    Args:
        network: Usually a discriminator without norms.
        rng: For the first vectors, which fifteen iterations then improve.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
        for module in list(network.modules()):
            if isinstance(module, nn.Conv2d):
                spectral_norm(module)
