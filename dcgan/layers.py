"""Convolutions with the padding 'same' of Keras and TensorFlow, which the tutorials' networks are built from.

For input size n, kernel k and stride s the output has ceil(n / s) rows, so

    total = max((ceil(n / s) - 1) * s + k - n, 0)

zeros are added, ``total // 2`` before and the rest after. If the total is odd, the sides differ; torch's ``padding=``
pads both sides equally, which would shift the image by half a pixel per layer.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after a side of ``size`` pixels."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """Convolution with 'same' padding: [N, C_in, H, W] to [N, C_out, ceil(H / stride), ceil(W / stride)]."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Pad and convolve."""
        (top, bottom), (left, right) = (
            same_padding(size, self.kernel_size[0], self.stride[0]) for size in x.shape[-2:]
        )
        return super().forward(F.pad(x, (left, right, top, bottom)))


class SameConvTranspose2d(nn.ConvTranspose2d):
    """The adjoint of `SameConv2d`: [N, C_in, ceil(S / stride), …] to [N, C_out, S, S] with S = ``output_size``.

    ``total // 2`` rows and columns are cropped before and the rest after. (torch's ``padding=1, output_padding=1``
    crops on the other side.)
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, output_size: int) -> None:
        before, _ = same_padding(output_size, kernel, stride)
        super().__init__(in_channels, out_channels, kernel, stride=stride, padding=before)
        self.size = output_size

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve and crop; ``output_size`` is unused, part of the base class's signature.

        Raises:
            ValueError: The input does not have the size that results in ``output_size``.
        """
        expected = -(-self.size // self.stride[0])
        if x.shape[-2:] != (expected, expected):
            raise ValueError(f"input is {tuple(x.shape[-2:])}; {expected} x {expected} gives {self.size} x {self.size}")
        return super().forward(x, output_size)[..., : self.size, : self.size]  # padding has cropped the other side
