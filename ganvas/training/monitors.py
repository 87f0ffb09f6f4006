"""A watch on a training: cheap figures that show a failure while there is time to act, and plain advice.

A GAN's losses don't tell whether it works: they stay finite while the generator draws one image over and over. The
watch looks at what is drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

COLLAPSED = 0.5  # our choice: MNIST's ones alone have 0.42, digits of ours stay above 0.9 from the first look on
RECOVERED = 0.6
# A discriminator has won when it errs on one image in a thousand at most, and is sure of it: with the vanilla loss,
# 0.01 above its lowest value is a confidence of 99.5% on each side; with least squares, scores within 0.07 of their
# targets. Being right is not enough: digits go on improving against one that nearly always is.
ALWAYS_RIGHT, SURE = 0.999, 0.01


@dataclass(frozen=True)
class Sight:
    """What a look at a training gave.

    Attributes:
        values: Figures for the record.
        warnings: What is wrong and what helps, one line each.
    """

    values: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def diversity(pictures: Tensor, real: Tensor) -> float:
    """Mean squared distance between two images of one set, over that of another set.

    The mean over all pairs is twice the total variance, so that no pair has to be formed.

    Args:
        pictures: Generated ones, [N, C, H, W], N > 1.
        real: Real ones in the same range, [M, C, H, W], M > 1.

    Returns:
        1 where both differ alike, 0 where all generated images are the same.
    """
    spread, wanted = (_total_variance(each) for each in (pictures, real))
    return spread / wanted if wanted else 1.0


def _total_variance(pictures: Tensor) -> float:
    return float(pictures.flatten(1).double().var(dim=0).sum())


class CollapseWatch:
    """Warns when generated images are alike, or of few kinds, in two looks in a row; or when D has won.

    Each thing is said once. One look is not enough: every generator draws nearly one image in its first steps.

    Args:
        real: Some hundred real images, [M, C, H, W].
        advice: What the module's own options can do about it.
        won_loss: The value of loss_d below which a discriminator that is right has won. It depends on the adversarial
            loss: `ganvas.losses.lowest_gan_loss_d` plus `SURE`.
    """

    def __init__(self, real: Tensor, advice: str, *, won_loss: float = SURE) -> None:
        self._real, self._advice, self._won_loss = real, advice, won_loss
        self.memory = {}

    @property
    def memory(self) -> dict[str, Any]:
        """What the next look depends on, as JSON values; set it to go on as another watch would have."""
        return {"looks_alike": self._looks_alike, "won": self._won}

    @memory.setter
    def memory(self, memory: Mapping[str, Any]) -> None:
        self._looks_alike = int(memory.get("looks_alike", 0))
        self._won = bool(memory.get("won", False))

    def look(self, pictures: Tensor, losses: Mapping[str, float], *, kinds: float | None = None) -> Sight:
        """Look at freshly generated images and the latest mean losses.

        Args:
            pictures: [N, C, H, W] in the range of the real ones.
            losses: With loss_d, and accuracy_real and accuracy_fake, the shares that the discriminator judged right.
            kinds: How many kinds of images are drawn, over those of the real ones; where somebody can tell.
        """
        ratio = diversity(pictures, self._real)
        warnings = [*self._judge_diversity(ratio, kinds), *self._judge_accuracy(losses)]
        return Sight({"diversity": ratio}, warnings)

    def _judge_diversity(self, ratio: float, kinds: float | None) -> list[str]:
        found, least = f"their spread is {ratio:.0%} of the real ones'", ratio
        if kinds is not None:
            found, least = f"{found}, and they are of {kinds:.0%} as many kinds", min(ratio, kinds)
        had_collapsed = self._looks_alike >= 2
        alike = least < (RECOVERED if had_collapsed else COLLAPSED)
        self._looks_alike = self._looks_alike + 1 if alike else 0
        if had_collapsed and not alike:
            return [f"The images differ again: {found}."]
        if self._looks_alike == 2:
            return [f"Mode collapse: the images are alike; {found}. {self._advice}"]
        return []

    def _judge_accuracy(self, losses: Mapping[str, float]) -> list[str]:
        right = min(losses.get("accuracy_real", 0.0), losses.get("accuracy_fake", 0.0))
        had_won, self._won = self._won, right > ALWAYS_RIGHT and losses.get("loss_d", 0.0) < self._won_loss
        if had_won or not self._won:
            return []
        return [
            "The discriminator has won: it judges more than 99.9% of the images right, with no doubt, and the "
            f"generator learns little from it. {self._advice}"
        ]
