"""A running average of a network's weights, steadier than those of any single step (Yazıcı et al. 2019)."""

import copy

import torch
from torch import Tensor, nn


class Ema(nn.Module):
    """Exponential moving average of a network, kept as a network; a checkpoint saves it like any other.

    The average begins as a plain mean and its memory grows to ``decay``, so that the first weights, which are noise,
    do not linger: at update t the old average keeps min(decay, (1 + t) / (10 + t)).

    Args:
        network: What to average; copied.
        decay: Share of the old average that an update keeps in the long run.
    """

    updates: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._count = 0  # on the host, so that no step waits for the device
        self.register_load_state_dict_post_hook(_count_again)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the network's weights and running statistics into the average."""
        keep = min(self.decay, (1 + self._count) / (10 + self._count))
        self._count += 1
        self.updates.fill_(self._count)
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        floats = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        torch._foreach_lerp_([mine for mine, _ in floats], [theirs for _, theirs in floats], 1 - keep)
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)

    def forward(self, x: Tensor) -> Tensor:
        """Run the averaged network."""
        return self.network(x)


def _count_again(ema: nn.Module, _: object) -> None:
    """Take the count over from a checkpoint that was just read."""
    assert isinstance(ema, Ema)
    ema._count = int(ema.updates)
