"""Weight initialization of the translators."""

from typing import Literal

import torch
from torch import nn

Init = Literal["normal", "xavier", "kaiming", "orthogonal"]


@torch.no_grad()
def initialize_weights(
    network: nn.Module, init: Init = "normal", *, gain: float = 0.02, generator: torch.Generator | None = None
) -> None:
    """Initialize all weights of a network, in place.

    Norm scales are drawn from N(1, 0.02), as in the papers' code, and biases are set to 0.

    Args:
        network: Any module; convolutions, linear layers, batch norms and group norms are initialized.
        init: For convolutions and linear layers: "normal" is N(0, gain) (Isola et al. 2017, Sec. 6.2; Radford et al.
            2016, Sec. 4), "xavier" (Glorot and Bengio 2010) and "orthogonal" (Saxe et al. 2014) are scaled by ``gain``,
            "kaiming" (He et al. 2015) ignores it.
        gain: Standard deviation or scale of the weights.
        generator: Random number generator; torch's global one by default.

    Raises:
        ValueError: ``init`` is unknown.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if init == "normal":
                nn.init.normal_(module.weight, 0.0, gain, generator=generator)
            elif init == "xavier":
                nn.init.xavier_normal_(module.weight, gain=gain, generator=generator)
            elif init == "kaiming":
                nn.init.kaiming_normal_(module.weight, a=0.0, mode="fan_in", generator=generator)
            elif init == "orthogonal":
                nn.init.orthogonal_(module.weight, gain=gain, generator=generator)
            else:
                raise ValueError(f"init is {init!r}; allowed are 'normal', 'xavier', 'kaiming' and 'orthogonal'")
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm):
            nn.init.normal_(module.weight, 1.0, 0.02, generator=generator)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
