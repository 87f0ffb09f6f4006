"""A watch on CycleGAN's own failures: colours inverted, nothing translated, a discriminator that has won.

Two generators can agree to invert colours: the cycle loss is content, since the way back inverts again. Only the
identity pass tells for certain: G_ab is asked to leave a picture of domain b alone, and gives its negative.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ganvas.training.watch import Sight

UNTOUCHED = 0.02  # mean difference in [-1, 1] below which a translation is its source: two and a half of 255 grays
WON = {"lsgan": 0.01, "vanilla": 0.05, "hinge": 0.02}  # halved losses: scores within 0.1 of their targets
LOOKS = 2  # in a row, before something is said


@dataclass(frozen=True)
class View:
    """Fixed pictures of one direction: source and translation, and the identity pass of the target domain."""

    source: Tensor
    fake: Tensor
    target: Tensor
    identity: Tensor


def correlation(first: Tensor, second: Tensor) -> float:
    """Mean over pictures of the correlation of their luminances, in [-1, 1]; 0 for flat pictures.

    Args:
        first: [N, C, H, W].
        second: [N, C', H, W].
    """
    x, y = (each.double().mean(dim=1).flatten(1) for each in (first, second))  # [N, H * W]
    x, y = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
    norms = x.norm(dim=1) * y.norm(dim=1)
    products = (x * y).sum(dim=1)
    return float(torch.where(norms > 1e-9, products / norms.clamp(min=1e-9), 0.0).mean())


class CycleWatch:
    """Says each failure once it shows in two looks in a row, and again only after it was gone.

    Args:
        gan_loss: The adversarial loss, which decides what "won" means.
        has_identity: Whether channel counts allow the identity pass.
    """

    def __init__(self, gan_loss: str, *, has_identity: bool = True) -> None:
        self._gan_loss, self._has_identity = gan_loss, has_identity
        self._seen: dict[str, int] = {}

    def look(self, views: Mapping[str, View], losses: Mapping[str, float]) -> Sight:
        """Look at the fixed pictures of both directions, and at the latest mean losses.

        Args:
            views: By direction, "a2b" and "b2a".
            losses: As `cyclegan.step.CycleGanStep` names them.
        """
        values, failing = {}, {}
        for way, view in views.items():
            changed = _difference(view.fake, view.source)
            values[f"correlation_source_{way}"] = inverted = correlation(view.fake, view.source)
            if changed is not None and changed < UNTOUCHED:
                failing[f"{way} untouched"] = (
                    f"{way}: the output equals the input. Lower --lambda-identity (0 is allowed) or --lambda-cycle."
                )
            if self._has_identity:
                values[f"correlation_identity_{way}"] = kept = correlation(view.identity, view.target)
                if kept < 0:
                    failing[f"{way} inverted"] = (
                        f"{way}: colours are inverted: what should stay as it is becomes its negative (correlation "
                        f"{kept:.2f}). Start again with another --seed, or a larger --lambda-identity."
                    )
            elif inverted < 0:
                failing[f"{way} maybe inverted"] = (
                    f"{way}: translations are dark where their sources are bright (correlation {inverted:.2f}). Look "
                    "at the samples: inverted colours, or domains that are truly so? If inverted, another --seed."
                )
        for domain in ("a", "b"):
            loss = losses.get(f"loss_d_{domain}")
            if loss is not None and loss < WON.get(self._gan_loss, -float("inf")):
                failing[f"D_{domain}"] = (
                    f"D_{domain} has won (loss {loss:.3g}): it tells every translation from a real picture, and the "
                    "generator learns little. Lower --lr, fewer --patch-layers, or more pictures of that domain."
                )
        return Sight(values, self._new(failing))

    def _new(self, failing: Mapping[str, str]) -> list[str]:
        self._seen = {name: self._seen.get(name, 0) + 1 for name in failing}
        return [warning for name, warning in failing.items() if self._seen[name] == LOOKS]


def _difference(first: Tensor, second: Tensor) -> float | None:
    return float((first - second).abs().mean()) if first.shape == second.shape else None
