"""Which penalties on a discriminator's gradient a step computes, and their sum."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from ganvas.losses import GanLoss, gradient_penalty, squared_gradient


class PenaltyWeights(Protocol):
    """The weights of a step that concern penalties."""

    @property
    def lambda_gp(self) -> float:
        """Of wgangp's gradient penalty."""

    @property
    def r1(self) -> float:
        """Gamma of the penalty at real images."""

    @property
    def r2(self) -> float:
        """Gamma of the penalty at generated images."""

    @property
    def penalty_every(self) -> int:
        """Steps between computations of r1 and r2, each of which has this weight (Karras et al. 2020, App. B)."""


def discriminator_penalties(
    score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, gan_loss: GanLoss, weights: PenaltyWeights, step: int
) -> tuple[dict[str, Tensor], Tensor | float]:
    """Compute the penalties that are due at a step.

    Args:
        score: The discriminator, as in `squared_gradient`.
        real: [N, C, H, W] in [-1, 1].
        fake: The same shape.
        gan_loss: The adversarial loss; "wgangp" has its own penalty.
        weights: Their weights.
        step: Number of the step, from 0.

    Returns:
        The unweighted penalties as loss_gp, loss_r1 and loss_r2; and their weighted sum, relative to `gan_loss_d`.
    """
    if gan_loss == "wgangp":
        penalty = gradient_penalty(score, real, fake)
        return {"loss_gp": penalty}, weights.lambda_gp * penalty
    if step % weights.penalty_every:
        return {}, 0.0
    terms = {"loss_r1": (weights.r1, real), "loss_r2": (weights.r2, fake)}
    penalties = {name: squared_gradient(score, images) for name, (gamma, images) in terms.items() if gamma}
    return penalties, sum(weights.penalty_every * terms[name][0] / 2 * each for name, each in penalties.items())
