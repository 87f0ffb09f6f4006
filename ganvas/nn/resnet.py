"""The ResNet generator of CycleGAN (Zhu et al. 2017, Sec. 7.2), after Johnson et al. 2016.

With ``resampling="blur"`` it is that of CUT (Park et al. 2020), whose loss compares features of its encoder.

Departures: any height and width (reflection padding to a multiple of 4, cropped back).
"""

from collections.abc import Collection

from torch import Tensor, nn

from ganvas.nn.layers import (
    BlurPool2d,
    Norm,
    ReflectPad2d,
    Resampling,
    ResidualBlock,
    ResizeConv2d,
    Upsampling,
    make_blurred_upsampling,
    make_norm,
    needs_bias,
    pad_to_multiple,
)

BLOCK_STRIDE = 4  # pixels between neighboring positions of the residual blocks


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
        resampling: "strided" (the paper's) has convolutions of stride 2, and ``upsampling``. "blur" convolves at
            stride 1, then blurs and takes every second position; upsampling is blurred, too (Zhang 2019).

    Attributes:
        feature_layers: Positions in ``layers`` of the features that CUT compares: the padded image, the convolutions
            that halve the size, the first and the fifth residual block (Park et al. 2020, Sec. 4). With "blur" these
            are the layers 0, 4, 8, 12 and 16, as the authors number them; with "strided" 0, 4, 7, 10 and 14. The last
            block stands in for a fifth that is missing.
        feature_channels: Their channels.

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
        resampling: Resampling = "strided",
    ) -> None:
        super().__init__()
        F1, F2, F4 = base_channels, 2 * base_channels, 4 * base_channels
        bias, is_blurred = needs_bias(norm), resampling == "blur"

        def activate(channels: int) -> list[nn.Module]:
            # Without a norm, an activation in place would change the features that the convolution returned.
            return [make_norm(norm, channels), nn.ReLU(inplace=norm != "none")]

        def halve(before: int, after: int) -> list[nn.Module]:
            convolution = nn.Conv2d(before, after, 3, stride=1 if is_blurred else 2, padding=1, bias=bias)
            return [convolution, *activate(after), *([BlurPool2d()] if is_blurred else [])]

        def double(before: int, after: int) -> list[nn.Module]:
            if is_blurred:
                convolution = nn.Conv2d(before, after, kernel_size=3, padding=1, bias=bias)
                return [make_blurred_upsampling(), convolution, *activate(after)]
            return [_make_upsampling_3x3(before, after, upsampling=upsampling, bias=bias), *activate(after)]

        stem = [ReflectPad2d(3), nn.Conv2d(in_channels, F1, kernel_size=7, bias=bias), *activate(F1)]
        halved = [*halve(F1, F2), *halve(F2, F4)]
        self.layers = nn.Sequential(
            *stem,
            *halved,
            *(ResidualBlock(F4, norm=norm, dropout=dropout) for _ in range(num_blocks)),
            *double(F4, F2),
            *double(F2, F1),
            ReflectPad2d(3),
            nn.Conv2d(F1, out_channels, kernel_size=7),
            nn.Tanh(),
        )
        first_block = len(stem) + len(halved)
        blocks = sorted({first_block, first_block + min(num_blocks, 5) - 1}) if num_blocks else []
        self.feature_layers = (0, len(stem), len(stem) + len(halved) // 2, *blocks)
        self.feature_channels = (in_channels, F2, F4, *(F4 for _ in blocks))

    def forward(self, source: Tensor) -> Tensor:
        """Translate [N, C_in, H, W] in [-1, 1] to [N, C_out, H, W] in [-1, 1], for any H and W from 1 on."""
        H, W = source.shape[-2:]
        x, top, left = _pad(source)
        return self.layers(x)[..., top : top + H, left : left + W]

    def with_features(self, source: Tensor, layers: Collection[int]) -> tuple[Tensor, list[Tensor]]:
        """Translate as `forward` does; return the outputs of some layers, too, as `features` does."""
        H, W = source.shape[-2:]
        x, top, left = _pad(source)
        y, features = self._run(x, layers, len(self.layers))
        return y[..., top : top + H, left : left + W], features

    def features(self, source: Tensor, layers: Collection[int]) -> list[Tensor]:
        """Return the outputs [N, C_i, H_i, W_i] of some of ``self.layers``, and run no layer after them.

        Args:
            source: [N, C_in, H, W] in [-1, 1].
            layers: Their positions, in rising order; such as `feature_layers`.
        """
        x, _, _ = _pad(source)
        return self._run(x, layers, max(layers) + 1)[1]

    def _run(self, x: Tensor, layers: Collection[int], end: int) -> tuple[Tensor, list[Tensor]]:
        """Run the layers before ``end``; return the last one's output, and those of ``layers``."""
        features = []
        for index, layer in enumerate(self.layers[:end]):
            x = layer(x)
            if index in layers:
                features.append(x)
        return x, features


def _pad(source: Tensor) -> tuple[Tensor, int, int]:
    # With 8 pixels a side the residual blocks have 2x2 positions; instance norm would zero a single one.
    return pad_to_multiple(source, BLOCK_STRIDE, at_least=2 * BLOCK_STRIDE)


def _make_upsampling_3x3(in_channels: int, out_channels: int, *, upsampling: Upsampling, bias: bool) -> nn.Module:
    """Build the paper's u-layer: 3x3, [N, C_in, H, W] to [N, C_out, 2H, 2W]."""
    if upsampling == "transpose":
        return nn.ConvTranspose2d(
            in_channels, out_channels, kernel_size=3, stride=2, padding=1, output_padding=1, bias=bias
        )
    return ResizeConv2d(in_channels, out_channels, bias=bias)
