"""Losses of the translators: adversarial, gradient penalty, L1. Pure functions that return float32 scalars.

Scores and logits arrive in any precision and are compared in float32: half precision would round small losses away.
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
    """Discriminator's loss: the sum of its losses on real and on fake images, each a mean over all scores.

    Args:
        real_scores: D's output on real images, any shape; logits for "vanilla".
        fake_scores: D's output on generated images, any shape.
        gan_loss: "vanilla" (Goodfellow et al. 2014), "lsgan" (Mao et al. 2017, targets 1 and 0), "hinge" (Lim and Ye
            2017) or "wgangp" (Gulrajani et al. 2017; add `gradient_penalty`).
        label_smoothing: As in `gan_loss_d_real`.

    Raises:
        ValueError: ``gan_loss`` is none of these, or has no labels to smooth.
    """
    real = gan_loss_d_real(real_scores, gan_loss, label_smoothing=label_smoothing)
    return real + gan_loss_d_fake(fake_scores, gan_loss)


def gan_loss_d_real(real_scores: Tensor, gan_loss: GanLoss = "vanilla", *, label_smoothing: float = 0.0) -> Tensor:
    """Discriminator's loss on real images alone; small where it takes them for real.

    Args:
        real_scores: D's output on real images, any shape; logits for "vanilla".
        gan_loss: As in `gan_loss_d`.
        label_smoothing: How far below 1 the label of real images lies, so that D does not become certain; the fakes'
            stays at 0 (Salimans et al. 2016, Sec. 3.4). For "vanilla" and "lsgan".

    Raises:
        ValueError: ``gan_loss`` is none of these, or has no labels to smooth.
    """
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
    """Discriminator's loss on generated images alone; small where it takes them for generated.

    Args:
        fake_scores: D's output on generated images, any shape; logits for "vanilla".
        gan_loss: As in `gan_loss_d`.

    Raises:
        ValueError: ``gan_loss`` is none of these.
    """
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
    """Generator's adversarial loss: small where D takes its images for real (non-saturating for "vanilla").

    Args:
        fake_scores: D's output on generated images, any shape; logits for "vanilla".
        gan_loss: As in `gan_loss_d`.

    Raises:
        ValueError: ``gan_loss`` is none of these.
    """
    fake = fake_scores.float()
    if gan_loss == "vanilla":
        return F.softplus(-fake).mean()  # -log sigmoid(fake), Goodfellow et al. 2014, Sec. 3
    if gan_loss == "lsgan":
        return (fake - 1).square().mean()
    if gan_loss in ("hinge", "wgangp"):
        return -fake.mean()
    raise _unknown(gan_loss)


def real_threshold(gan_loss: GanLoss = "vanilla", *, label_smoothing: float = 0.0) -> float:
    """Return the score above which a discriminator takes an image for real, midway between what it is trained towards.

    The targets of "lsgan" are scores and those of "vanilla" probabilities, whose midpoint is returned as a logit. The
    scores of "hinge" and "wgangp" have no targets; their losses are symmetric about 0.

    Args:
        gan_loss: As in `gan_loss_d`.
        label_smoothing: As in `gan_loss_d_real`.

    Raises:
        ValueError: ``gan_loss`` is none of these.
    """
    middle = (1 - label_smoothing) / 2  # between the labels 1 - label_smoothing and 0
    if gan_loss == "vanilla":
        return math.log(middle / (1 - middle))
    if gan_loss == "lsgan":
        return middle
    if gan_loss in ("hinge", "wgangp"):
        return 0.0
    raise _unknown(gan_loss)


def lowest_gan_loss_d(gan_loss: GanLoss = "vanilla", *, label_smoothing: float = 0.0) -> float:
    """Return the infimum of `gan_loss_d`, which a discriminator that tells all images apart approaches.

    For "vanilla" it is the entropy of the smoothed label in nats; "wgangp" has none and gives -inf.

    Args:
        gan_loss: As in `gan_loss_d`.
        label_smoothing: As in `gan_loss_d_real`.

    Raises:
        ValueError: ``gan_loss`` is none of these.
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
    """Mean squared distance of D's gradient norm from 1, between real and fake pictures (unweighted).

    The gradient is that of an image's mean score, since the adversarial loss is a mean over the scores of all patches.

    Runs in float32 whatever the surroundings' precision: second derivatives do not survive bfloat16. A compiled network
    runs as it was written here, since compiled code has no second derivatives.

    Args:
        score: The discriminator, or a function that calls it; [N, C, H, W] to scores [N] or [N, ...].
        real: Real pictures, [N, C, H, W] in [-1, 1].
        fake: Generated pictures of the same shape; no gradient flows into them.

    Raises:
        ValueError: The shapes differ.

    Reference: Gulrajani et al. 2017, Eq. 3.
    """
    _same_shape("real", real, "fake", fake)
    real, fake = real.detach().float(), fake.detach().float()
    t = torch.rand(real.shape[0], 1, 1, 1, device=real.device)  # one point a image on the line from fake to real
    between = torch.lerp(fake, real, t).requires_grad_()
    with torch.compiler.set_stance("force_eager"), torch.autocast(real.device.type, enabled=False):
        scores = score(between)
        means = scores.flatten().unflatten(0, (len(real), -1)).mean(dim=1)  # [N]: what the loss takes of an image
        (gradient,) = torch.autograd.grad(means.sum(), between, create_graph=True)  # [N, C, H, W]
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def l1_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of images of the same shape, in [-1, 1] (Isola et al. 2017, Eq. 3).

    Raises:
        ValueError: The shapes differ; broadcasting here would hide a mistake.
    """
    _same_shape("output", output, "target", target)
    return (output.float() - target.float()).abs().mean()


def _same_shape(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"{first_name} is {tuple(first.shape)} and {second_name} is {tuple(second.shape)}; they must be equal"
        )
