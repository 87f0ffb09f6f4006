"""Losses of the trainers: adversarial, gradient penalty, L1. Pure functions that return float32 scalars.

Scores and logits of any precision are compared in float32: half precision would round small losses away.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GanLoss = Literal["vanilla", "lsgan", "hinge", "wgangp"]


def gan_loss_d(
    real_scores: Tensor, fake_scores: Tensor, gan_loss: GanLoss = "vanilla", *, label_smoothing: float = 0.0
) -> Tensor:
    """Compute the discriminator's loss: the sum of its losses on real and on fake images, each a mean over all scores.

    Args:
        real_scores: D's output for real images, any shape; logits for "vanilla".
        fake_scores: D's output for generated images, any shape.
        gan_loss: "vanilla" (Goodfellow et al. 2014), "lsgan" (Mao et al. 2017, targets 1 and 0), "hinge" (Lim and Ye
            2017) or "wgangp" (Gulrajani et al. 2017; add `gradient_penalty`).
        label_smoothing: Difference of the label of real images from 1; that of fakes is 0 (Salimans et al. 2016,
            Sec. 3.4). For "vanilla" and "lsgan".

    Raises:
        ValueError: ``gan_loss`` is unknown, or does not support label smoothing.
    """
    real = gan_loss_d_real(real_scores, gan_loss, label_smoothing=label_smoothing)
    return real + gan_loss_d_fake(fake_scores, gan_loss)


def gan_loss_d_real(real_scores: Tensor, gan_loss: GanLoss = "vanilla", *, label_smoothing: float = 0.0) -> Tensor:
    """Compute the discriminator's loss on real images; arguments as in `gan_loss_d`."""
    real, label = real_scores.float(), 1 - label_smoothing
    if label_smoothing and gan_loss not in ("vanilla", "lsgan"):
        raise ValueError(f"label_smoothing is {label_smoothing}, and gan_loss {gan_loss!r} has no labels to smooth")
    if gan_loss == "vanilla":
        return F.softplus(-real).mean() + label_smoothing * real.mean()  # cross-entropy of the label and sigmoid(real)
    if gan_loss == "lsgan":
        return (real - label).square().mean()
    if gan_loss == "hinge":
        return F.relu(1 - real).mean()
    if gan_loss == "wgangp":
        return -real.mean()
    raise _unknown(gan_loss)


def gan_loss_d_fake(fake_scores: Tensor, gan_loss: GanLoss = "vanilla") -> Tensor:
    """Compute the discriminator's loss on generated images; arguments as in `gan_loss_d`."""
    fake = fake_scores.float()
    if gan_loss == "vanilla":
        return F.softplus(fake).mean()  # -log(1 - sigmoid(fake))
    if gan_loss == "lsgan":
        return fake.square().mean()
    if gan_loss == "hinge":
        return F.relu(1 + fake).mean()
    if gan_loss == "wgangp":
        return fake.mean()
    raise _unknown(gan_loss)


def gan_loss_g(fake_scores: Tensor, gan_loss: GanLoss = "vanilla") -> Tensor:
    """Compute the generator's adversarial loss, non-saturating for "vanilla"; arguments as in `gan_loss_d`."""
    fake = fake_scores.float()
    if gan_loss == "vanilla":
        return F.softplus(-fake).mean()  # -log sigmoid(fake), Goodfellow et al. 2014, Sec. 3
    if gan_loss == "lsgan":
        return (fake - 1).square().mean()
    if gan_loss in ("hinge", "wgangp"):
        return -fake.mean()
    raise _unknown(gan_loss)


def real_threshold(gan_loss: GanLoss = "vanilla", *, label_smoothing: float = 0.0) -> float:
    """Return the score above which the discriminator classifies an image as real; arguments as in `gan_loss_d`.

    It is the midpoint of the targets: of scores for "lsgan", of probabilities, as a logit, for "vanilla". "hinge" and
    "wgangp" have no targets; their losses are symmetric about 0.
    """
    midpoint = (1 - label_smoothing) / 2  # of the labels 1 - label_smoothing and 0
    if gan_loss == "vanilla":
        return math.log(midpoint / (1 - midpoint))
    if gan_loss == "lsgan":
        return midpoint
    if gan_loss in ("hinge", "wgangp"):
        return 0.0
    raise _unknown(gan_loss)


def lowest_gan_loss_d(gan_loss: GanLoss = "vanilla", *, label_smoothing: float = 0.0) -> float:
    """Return the infimum of `gan_loss_d`, the loss of a perfect discriminator; arguments as there.

    For "vanilla" it is the entropy of the smoothed label in nats; for "wgangp" it is -inf.
    """
    if gan_loss == "vanilla":
        return -sum(p * math.log(p) for p in (label_smoothing, 1 - label_smoothing) if p)
    if gan_loss in ("lsgan", "hinge"):
        return 0.0
    if gan_loss == "wgangp":
        return -math.inf
    raise _unknown(gan_loss)


def _unknown(gan_loss: str) -> ValueError:
    return ValueError(f"gan_loss is {gan_loss!r}; allowed are 'vanilla', 'lsgan', 'hinge' and 'wgangp'")


def gradient_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Compute the mean squared difference of D's gradient norm from 1 between real and fake images (unweighted).

    The gradient is that of an image's mean score, since the adversarial loss is a mean over the scores of all patches.
    It is computed in float32, since second derivatives are inaccurate in bfloat16, and without compilation, since
    compiled code has no second derivatives.

    Args:
        score: The discriminator, or a function that calls it; [N, C, H, W] to scores [N] or [N, ...].
        real: Real images, [N, C, H, W] in [-1, 1].
        fake: Generated images of the same shape; they get no gradient.

    Raises:
        ValueError: The shapes differ.

    Reference: Gulrajani et al. 2017, Eq. 3.
    """
    _require_same_shape("real", real, "fake", fake)
    real, fake = real.detach().float(), fake.detach().float()
    t = torch.rand(real.shape[0], 1, 1, 1, device=real.device)  # a random point between fake and real for each image
    between = torch.lerp(fake, real, t).requires_grad_()
    with torch.compiler.set_stance("force_eager"), torch.autocast(real.device.type, enabled=False):
        scores = score(between)
        means = scores.flatten().unflatten(0, (len(real), -1)).mean(dim=1)  # [N]
        (gradient,) = torch.autograd.grad(means.sum(), between, create_graph=True)  # [N, C, H, W]
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def l1_loss(output: Tensor, target: Tensor) -> Tensor:
    """Compute the mean absolute difference of images of equal shape, in [-1, 1] (Isola et al. 2017, Eq. 3).

    Raises:
        ValueError: The shapes differ; broadcasting would hide a mistake.
    """
    _require_same_shape("output", output, "target", target)
    return (output.float() - target.float()).abs().mean()


def _require_same_shape(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"{first_name} is {tuple(first.shape)} and {second_name} is {tuple(second.shape)}; they must be equal"
        )
