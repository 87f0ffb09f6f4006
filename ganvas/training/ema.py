"""A running average of a network's weights, steadier than those of any single step (Yazıcı et al. 2019)."""

import copy

import torch
from torch import nn


class Ema:
    """Exponential moving average of a network's weights and running statistics.

    The average begins as a plain mean and its memory grows to ``decay``, so that the first weights, which are noise,
    do not linger: at update t the old average keeps min(decay, (1 + t) / (10 + t)).

    Args:
        network: What to average; copied.
        decay: Fraction of the old average that an update keeps in the long run.

    Attributes:
        network: Network with the averaged weights.
        updates: Updates so far. A resumed run has to restore it together with the network's weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Add the network's weights and running statistics to the average."""
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        floats = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        torch._foreach_lerp_([mine for mine, _ in floats], [theirs for _, theirs in floats], 1 - keep)
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)
