"""A watch on CycleGAN's own failures: colors inverted, nothing translated, a discriminator that has won.

Two generators can agree to invert colors: the cycle loss is content, since the way back inverts again. Only the
identity pass tells for certain: G_ab is asked to leave a image of domain b alone, and gives its negative. A
translation that is dark where its source is bright is a hint: some domains are truly so.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ganvas.training.monitors import Sight

UNTOUCHED = 0.02  # mean difference in [-1, 1] below which a translation is its source: two and a half of 255 grays
# D's halved loss where it has won, our choice. For lsgan: scores within 0.1 of their targets; for vanilla: 95% sure.
WON = {"lsgan": 0.01, "vanilla": 0.05, "hinge": 0.02}
LOOKS = 2  # in a row, before something is said


@dataclass(frozen=True)
class View:
    """Fixed images of one direction: source and translation, and the identity pass of the target domain."""

    source: Tensor
    fake: Tensor
    target: Tensor
    identity: Tensor


def correlation(first: Tensor, second: Tensor) -> float:
    """Mean over images of the correlation of their luminances, in [-1, 1]; 0 for flat images.

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
        self.memory: dict[str, int] = {}  # looks in a row that saw each failure: what the next one depends on

    def look(self, views: Mapping[str, View], losses: Mapping[str, float]) -> Sight:
        """Look at the fixed images of both directions, and at the latest mean losses.

        Args:
            views: By direction, "a2b" and "b2a".
            losses: As `cyclegan.step.CycleGanStep` names them.
        """
        values: dict[str, float] = {}
        failing: dict[str, str] = {}
        for way, view in views.items():
            values[f"correlation_source_{way}"] = correlation(view.fake, view.source)
            if self._has_identity:
                values[f"correlation_identity_{way}"] = correlation(view.identity, view.target)
            failing |= _untouched(way, view) | _inverted(way, values)
        for domain in ("a", "b"):
            failing |= self._won(domain, losses.get(f"loss_d_{domain}"))
        return Sight(values, self._new(failing))

    def _won(self, domain: str, loss: float | None) -> dict[str, str]:
        if loss is None or loss >= WON.get(self._gan_loss, -float("inf")):
            return {}
        return {
            f"D_{domain}": f"D_{domain} has won (loss {loss:.3g}): it tells every translation from a real image, and "
            "the generator learns little. Lower --lr, fewer --patch-layers, or more images of that domain."
        }

    def _new(self, failing: Mapping[str, str]) -> list[str]:
        self.memory = {name: self.memory.get(name, 0) + 1 for name in failing}
        return [warning for name, warning in failing.items() if self.memory[name] == LOOKS]


def _untouched(way: str, view: View) -> dict[str, str]:
    if view.fake.shape != view.source.shape or float((view.fake - view.source).abs().mean()) >= UNTOUCHED:
        return {}
    return {
        f"{way} untouched": f"{way}: the output equals the input. Lower --lambda-identity (0 is allowed) or "
        "--lambda-cycle."
    }


def _inverted(way: str, correlations: Mapping[str, float]) -> dict[str, str]:
    kept, like_source = correlations.get(f"correlation_identity_{way}", 0.0), correlations[f"correlation_source_{way}"]
    if kept < 0:
        return {
            f"{way} inverted": f"{way}: colors are inverted: what should stay as it is becomes its negative "
            f"(correlation {kept:.2f}). Start again with another --seed, or a larger --lambda-identity."
        }
    if like_source < 0:
        return {
            f"{way} perhaps inverted": f"{way}: perhaps colors are inverted: translations are dark where their "
            f"sources are bright (correlation {like_source:.2f}). Look at the samples: are the domains truly so? If "
            "not, start again with another --seed."
        }
    return {}
