"""The heads that map features of the generator's encoder to the space in which PatchNCE compares them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_CHANNELS = 256  # Park et al. 2020, App. C.1


class PatchHeads(nn.Module):
    """A two-layer perceptron for each layer of features, whose outputs have length 1 (the paper's H_l).

    Args:
        channels: Channels of the features, one number a layer.
        out_channels: Channels of the outputs and of the hidden layer.

    Reference: Park et al. 2020, Sec. 3 and App. C.1.
    """

    def __init__(self, channels: Sequence[int], out_channels: int = HEAD_CHANNELS) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(C, out_channels), nn.ReLU(), nn.Linear(out_channels, out_channels))
            for C in channels
        )

    def forward(self, features: Sequence[Tensor], locations: Sequence[Tensor]) -> list[Tensor]:
        """Map the features at some locations.

        Args:
            features: [N, C_i, H_i, W_i], one tensor a layer.
            locations: [P_i] indices into the H_i * W_i positions, the same for all images.

        Returns:
            [N, P_i, D] float32 of length 1 along D, one tensor a layer.
        """
        outputs = []
        for head, feature, index in zip(self.heads, features, locations, strict=True):
            patches = feature.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, index)  # [N, P_i, C_i]
            outputs.append(F.normalize(head(patches).float(), dim=-1))
        return outputs


def draw_locations(features: Sequence[Tensor], count: int) -> list[Tensor]:
    """Draw ``count`` different locations [P] of each layer's features [N, C, H, W], from torch's generator on the CPU.

    Raises:
        ValueError: A layer has fewer locations.
    """
    locations = []
    for feature in features:
        H, W = feature.shape[-2:]
        if count > H * W:
            raise ValueError(f"features are {H}x{W}: too small for {count} patches")
        locations.append(torch.randperm(H * W)[:count].to(feature.device))
    return locations
