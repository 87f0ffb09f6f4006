"""Convolution to few channels, four output positions at a time.

torch's CPU kernels compute 16 channels at a time, so that 3 channels cost as much as 16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganvas.nn.layers import is_exporting

CHANNELS_AT_A_TIME = 16  # float32 values in 512 bits


class FourPositionConv2d(nn.Conv2d):
    """Stride-1 convolution without padding whose 2x2 neighboring outputs are computed as channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [N, C_in, H, W] to [N, C_out, H - k + 1, W - k + 1]."""
        if not self._fills_kernels(x):
            return super().forward(x)
        # A kernel that is one pixel larger, with the weights at each of its four places, and stride 2.
        places = [F.pad(self.weight, (right, 1 - right, below, 1 - below)) for below in (0, 1) for right in (0, 1)]
        weight = torch.stack(places, dim=1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        return F.pixel_shuffle(F.conv2d(x, weight, bias, stride=2), 2)  # [N, 4 * C_out, …] to twice the side

    def _fills_kernels(self, x: Tensor) -> bool:
        if is_exporting() or torch.jit.is_tracing():  # type: ignore[no-untyped-call, attr-defined]  # sizes are not numbers then
            return False
        outputs = [side - k + 1 for side, k in zip(x.shape[-2:], self.kernel_size, strict=True)]
        is_even = all(side % 2 == 0 for side in outputs)
        return x.is_cpu and is_even and 4 * self.out_channels <= CHANNELS_AT_A_TIME
