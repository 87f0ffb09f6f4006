"""How the translators' weights start."""

from typing import Literal

import torch
from torch import nn

Start = Literal["normal", "xavier", "kaiming", "orthogonal"]


@torch.no_grad()
def initialize_weights(
    network: nn.Module, start: Start = "normal", *, gain: float = 0.02, generator: torch.Generator | None = None
) -> None:
    """Draw all weights of ``network`` again, in place.

    Convolutions and linear layers by ``start``: "normal" is N(0, gain), the papers' choice (Isola et al. 2017,
    Sec. 6.2; Radford et al. 2016, Sec. 4); "xavier" (Glorot and Bengio 2010) and "orthogonal" (Saxe et al. 2014) are
    scaled by ``gain``; "kaiming" (He et al. 2015) has a scale of its own. Norms' scales are N(1, 0.02), as batch norm
    starts in the papers' code; all biases are 0.

    Raises:
        ValueError: ``start`` is none of these.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if start == "normal":
                nn.init.normal_(module.weight, 0.0, gain, generator=generator)
            elif start == "xavier":
                nn.init.xavier_normal_(module.weight, gain=gain, generator=generator)
            elif start == "kaiming":
                nn.init.kaiming_normal_(module.weight, a=0.0, mode="fan_in", generator=generator)
            elif start == "orthogonal":
                nn.init.orthogonal_(module.weight, gain=gain, generator=generator)
            else:
                raise ValueError(f"start is {start!r}; allowed are 'normal', 'xavier', 'kaiming' and 'orthogonal'")
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02, generator=generator)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
