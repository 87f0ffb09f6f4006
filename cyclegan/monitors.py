"""A monitor of CycleGAN's own failures: inverted colors, nothing translated, a discriminator that has won.

Two generators can agree to invert colors: the cycle loss does not notice, since the second one inverts again. Only the
identity pass is proof: G_ab should leave an image of domain b as it is, and returns its negative. A translation that is
dark where its source is bright is a hint only, since some domains are like that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ganvas.training.monitors import HealthReport

UNTOUCHED = 0.02  # mean difference in [-1, 1] below which a translation is its source: two and a half of 255 grays
# D's halved loss where it has won, our choice. For lsgan: scores within 0.1 of their targets; for vanilla: 95% sure.
WON = {"lsgan": 0.01, "vanilla": 0.05, "hinge": 0.02}
CHECKS = 2  # in a row, before a warning


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


class CycleMonitor:
    """Warns of each failure once it shows in two checks in a row, and again only after it was gone.

    Args:
        views: Returns fixed images by direction, "a2b" and "b2a".
        gan_loss: The adversarial loss, which decides when D has won.
        has_identity: Whether channel counts allow the identity pass.
    """

    def __init__(self, views: Callable[[], Mapping[str, View]], gan_loss: str, *, has_identity: bool = True) -> None:
        self._views, self._gan_loss, self._has_identity = views, gan_loss, has_identity
        self._checks: dict[str, int] = {}  # in a row that found each failure

    def state_dict(self) -> dict[str, int]:
        """Return in how many checks in a row each failure was found."""
        return self._checks

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore what `state_dict` returned."""
        self._checks = dict(state)

    def check(self, losses: Mapping[str, float]) -> HealthReport:
        """Check the fixed images of both directions, and the latest mean losses.

        Args:
            losses: As `cyclegan.step.CycleGanStep` names them.
        """
        values: dict[str, float] = {}
        failing: dict[str, str] = {}
        for direction, view in self._views().items():
            values[f"correlation_source_{direction}"] = correlation(view.fake, view.source)
            if self._has_identity:
                values[f"correlation_identity_{direction}"] = correlation(view.identity, view.target)
            failing |= _untouched(direction, view) | _inverted(direction, values)
        for domain in ("a", "b"):
            failing |= self._won(domain, losses.get(f"loss_d_{domain}"))
        self._checks = {name: self._checks.get(name, 0) + 1 for name in failing}
        return HealthReport(values, [text for name, text in failing.items() if self._checks[name] == CHECKS])

    def _won(self, domain: str, loss: float | None) -> dict[str, str]:
        if loss is None or loss >= WON.get(self._gan_loss, -float("inf")):
            return {}
        return {
            f"D_{domain}": f"D_{domain} has won (loss {loss:.3g}): it tells every translation from a real image, and "
            "the generator learns little. Lower --lr, fewer --patch-layers, or more images of that domain."
        }


def _untouched(direction: str, view: View) -> dict[str, str]:
    if view.fake.shape != view.source.shape or float((view.fake - view.source).abs().mean()) >= UNTOUCHED:
        return {}
    return {
        f"{direction} untouched": f"{direction}: the output equals the input. Lower --lambda-identity, even to 0, or "
        "--lambda-cycle."
    }


def _inverted(direction: str, correlations: Mapping[str, float]) -> dict[str, str]:
    kept, like_source = (
        correlations.get(f"correlation_identity_{direction}", 0.0),
        correlations[f"correlation_source_{direction}"],
    )
    if kept < 0:
        return {
            f"{direction} inverted": f"{direction}: colors are inverted: the identity pass returns the negative "
            f"(correlation {kept:.2f}). Start again with another --seed, or a larger --lambda-identity."
        }
    if like_source < 0:
        return {
            f"{direction} perhaps inverted": f"{direction}: colors may be inverted: translations are dark where their "
            f"sources are bright (correlation {like_source:.2f}). Check the samples: if the domains are not like that, "
            "start again with another --seed."
        }
    return {}
