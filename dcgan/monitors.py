"""A monitor of mode collapse, and of a discriminator that has won.

A GAN's losses do not tell: they stay finite while the generator draws one image over and over.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ganvas.training.monitors import HealthReport

COLLAPSED = 0.5  # our choice: MNIST's ones alone have 0.42, digits of ours stay above 0.9 from the first check on
RECOVERED = 0.6
# A discriminator has won when it errs on one image in a thousand at most, and is sure of it: with the vanilla loss,
# 0.01 above its lowest value is a confidence of 99.5% on each side; with least squares, scores within 0.07 of their
# targets. Being right is not enough: digits go on improving against one that nearly always is.
ALWAYS_RIGHT, SURE = 0.999, 0.01


def diversity(images: Tensor, real: Tensor) -> float:
    """Return the mean squared distance between two images of one set, over that of another set.

    The mean over all pairs is twice the total variance, so that no pair has to be formed.

    Args:
        images: Generated ones, [N, C, H, W], N > 1.
        real: Real ones in the same range, [M, C, H, W], M > 1.

    Returns:
        1 if both differ alike, 0 if all generated images are the same.
    """
    spread, wanted = (_total_variance(each) for each in (images, real))
    return spread / wanted if wanted else 1.0


def _total_variance(images: Tensor) -> float:
    return float(images.flatten(1).double().var(dim=0).sum())


class CollapseMonitor:
    """Warns when generated images are alike, or of few kinds, in two checks in a row; or when D has won.

    Each warning is given once. One check is not enough: every generator draws nearly one image in its first steps.

    Args:
        draw: Returns freshly generated images, [N, C, H, W] in the range of the real ones.
        real: Some hundred real images, [M, C, H, W].
        advice: What the options can do about it.
        won_loss: The value of loss_d below which a discriminator that is right has won. It depends on the adversarial
            loss: `ganvas.losses.lowest_gan_loss_d` plus `SURE`.
        variety: Returns how many kinds of images are drawn, over those of the real ones, and figures for the records;
            None if nothing can tell.
    """

    def __init__(
        self,
        draw: Callable[[], Tensor],
        real: Tensor,
        advice: str,
        *,
        won_loss: float = SURE,
        variety: Callable[[Tensor], tuple[float, dict[str, float]]] | None = None,
    ) -> None:
        self._draw, self._real, self._advice, self._won_loss, self._variety = draw, real, advice, won_loss, variety
        self._alike_checks, self._won = 0, False

    def state_dict(self) -> dict[str, Any]:
        """Return what the next check depends on."""
        return {"alike_checks": self._alike_checks, "won": self._won}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._alike_checks, self._won = int(state["alike_checks"]), bool(state["won"])

    def check(self, losses: Mapping[str, float]) -> HealthReport:
        """Draw images and compare them with real ones.

        Args:
            losses: With loss_d, and accuracy_real and accuracy_fake, the shares that the discriminator judged right.
        """
        images = self._draw()
        ratio = diversity(images, self._real)
        kinds, values = (None, {}) if self._variety is None else self._variety(images)
        warnings = [*self._check_diversity(ratio, kinds), *self._check_discriminator(losses)]
        return HealthReport({"diversity": ratio} | values, warnings)

    def _check_diversity(self, ratio: float, kinds: float | None) -> list[str]:
        found, least = f"their spread is {ratio:.0%} of the real images'", ratio
        if kinds is not None:
            found, least = f"{found}, and they are of {kinds:.0%} as many kinds", min(ratio, kinds)
        had_collapsed = self._alike_checks >= 2
        alike = least < (RECOVERED if had_collapsed else COLLAPSED)
        self._alike_checks = self._alike_checks + 1 if alike else 0
        if had_collapsed and not alike:
            return [f"The images differ again: {found}."]
        if self._alike_checks == 2:
            return [f"Mode collapse: the images are alike; {found}. {self._advice}"]
        return []

    def _check_discriminator(self, losses: Mapping[str, float]) -> list[str]:
        right = min(losses.get("accuracy_real", 0.0), losses.get("accuracy_fake", 0.0))
        had_won, self._won = self._won, right > ALWAYS_RIGHT and losses.get("loss_d", 0.0) < self._won_loss
        if had_won or not self._won:
            return []
        return [
            "The discriminator has won: it judges more than 99.9% of the images right, with no doubt, and the "
            f"generator learns little from it. {self._advice}"
        ]
