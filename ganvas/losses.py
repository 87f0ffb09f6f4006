"""Losses of the trainers: adversarial, penalties, L1, feature matching, PatchNCE. Pure functions to float32 scalars.

Scores and logits of any precision are compared in float32: half precision would round small losses away.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

GanLoss = Literal["vanilla", "lsgan", "hinge", "wgangp", "relativistic"]


def gan_loss_d(
    real_scores: Tensor, fake_scores: Tensor, gan_loss: GanLoss = "vanilla", *, label_smoothing: float = 0.0
) -> Tensor:
    """Compute the discriminator's loss: the sum of its losses on real and on fake images, each a mean over all scores.

    Args:
        real_scores: D's output for real images, any shape; logits for "vanilla".
        fake_scores: D's output for generated images, any shape.
        gan_loss: "vanilla" (Goodfellow et al. 2014), "lsgan" (Mao et al. 2017, targets 1 and 0), "hinge" (Lim and Ye
            2017), "wgangp" (Gulrajani et al. 2017; add `gradient_penalty`), or "relativistic" (Huang et al. 2024,
            Eq. 2: each fake is compared with the real image of the same index; add `squared_gradient`).
        label_smoothing: Difference of the label of real images from 1; that of fakes is 0 (Salimans et al. 2016,
            Sec. 3.4). For "vanilla" and "lsgan".

    Raises:
        ValueError: ``gan_loss`` is unknown, does not support label smoothing, or is relativistic and the shapes differ.

    Example:
        >>> gan_loss_d(torch.zeros(1, 1, 30, 30), torch.zeros(1, 1, 30, 30))  # undecided: 2 log 2
        tensor(1.3863)
    """
    if gan_loss == "relativistic":
        _require_no_smoothing(label_smoothing, gan_loss)
        return _paired(fake_scores, real_scores)
    real = gan_loss_d_real(real_scores, gan_loss, label_smoothing=label_smoothing)
    return real + gan_loss_d_fake(fake_scores, gan_loss)


def gan_loss_d_real(real_scores: Tensor, gan_loss: GanLoss = "vanilla", *, label_smoothing: float = 0.0) -> Tensor:
    """Compute the discriminator's loss on real images; as in `gan_loss_d`, which "relativistic" needs."""
    real, label = real_scores.float(), 1 - label_smoothing
    if gan_loss not in ("vanilla", "lsgan"):
        _require_no_smoothing(label_smoothing, gan_loss)
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
    """Compute the discriminator's loss on generated images; as in `gan_loss_d`, which "relativistic" needs."""
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


def gan_loss_g(fake_scores: Tensor, gan_loss: GanLoss = "vanilla", *, real_scores: Tensor | None = None) -> Tensor:
    """Compute the generator's adversarial loss, non-saturating for "vanilla"; arguments as in `gan_loss_d`.

    Raises:
        ValueError: ``gan_loss`` is unknown, or is relativistic and ``real_scores`` are missing or of another shape.

    Example:
        >>> gan_loss_g(torch.tensor([0.0, 2.0]), "lsgan")
        tensor(1.)
    """
    if gan_loss == "relativistic":
        if real_scores is None:
            raise ValueError("gan_loss 'relativistic' compares fakes with real images: real_scores is None")
        return _paired(real_scores, fake_scores)
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
    if gan_loss in ("lsgan", "hinge", "relativistic"):
        return 0.0
    if gan_loss == "wgangp":
        return -math.inf
    raise _unknown(gan_loss)


def _paired(lower: Tensor, higher: Tensor) -> Tensor:
    """Compute -log sigmoid(higher - lower), the loss that wants ``higher`` above ``lower`` pair by pair."""
    _require_same_shape("real_scores", higher, "fake_scores", lower)
    return F.softplus(lower.float() - higher.float()).mean()


def _require_no_smoothing(label_smoothing: float, gan_loss: str) -> None:
    if label_smoothing:
        raise ValueError(f"label_smoothing is {label_smoothing}, and gan_loss {gan_loss!r} has no labels to smooth")


def _unknown(gan_loss: str) -> ValueError:
    if gan_loss == "relativistic":
        return ValueError("gan_loss 'relativistic' compares real with generated images: use gan_loss_d and gan_loss_g")
    return ValueError(f"gan_loss is {gan_loss!r}; allowed are {', '.join(map(repr, get_args(GanLoss)))}")


def gradient_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Compute the mean squared difference of D's gradient norm from 1 between real and fake images (unweighted).

    The gradient is that of an image's mean score, since the adversarial loss is a mean over the scores of all patches.
    It is computed in float32, since second derivatives are inaccurate in bfloat16, and without compilation, since
    compiled code has no second derivatives.

    Args:
        score: The discriminator, or a function that calls it; [N, C, H, W] to scores of any shape, equally many for
            each image.
        real: Real images, [N, C, H, W] in [-1, 1].
        fake: Generated images of the same shape; they get no gradient.

    Raises:
        ValueError: The shapes differ.

    Reference: Gulrajani et al. 2017, Eq. 3.

    Example:
        >>> gradient_penalty(lambda x: 3 * x.sum(dim=(1, 2, 3)), torch.rand(2, 1, 1, 1), torch.rand(2, 1, 1, 1))
        tensor(4.)
    """
    _require_same_shape("real", real, "fake", fake)
    real, fake = real.detach().float(), fake.detach().float()
    t = torch.rand(real.shape[0], 1, 1, 1, device=real.device)  # a random point between fake and real for each image
    gradient, scores = _input_gradient(score, torch.lerp(fake, real, t))
    patches = scores.numel() // len(real)
    return ((gradient / patches).flatten(1).norm(dim=1) - 1).square().mean()


def squared_gradient(score: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Compute the squared gradient of D's scores at ``images``, divided by the number of scores (unweighted).

    Weighted by gamma / 2, it is the penalty R1 at real images and R2 at generated ones: it keeps D flat where the
    generator's distribution has arrived. For one score an image it is the papers' mean of ||grad D(x)||²; a PatchGAN's
    P logits are summed before, and each counts once. Computed like `gradient_penalty`.

    Args:
        score: The discriminator, or a function that calls it; [N, C, H, W] to scores of any shape.
        images: [N, C, H, W] in [-1, 1].

    Reference: Mescheder et al. 2018, Eq. 9 and 10; Huang et al. 2024, Sec. 2.2.
    """
    gradient, scores = _input_gradient(score, images.detach().float())
    return gradient.square().sum() / scores.numel()


def _input_gradient(score: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the differentiable gradient [N, C, H, W] of the summed scores at ``images``, and the scores."""
    images = images.requires_grad_()
    with torch.compiler.set_stance("force_eager"), torch.autocast(images.device.type, enabled=False):
        scores = score(images)
        (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient, scores


def l1_loss(output: Tensor, target: Tensor) -> Tensor:
    """Compute the mean absolute difference of images of equal shape, in [-1, 1] (Isola et al. 2017, Eq. 3).

    Raises:
        ValueError: The shapes differ; broadcasting would hide a mistake.
    """
    _require_same_shape("output", output, "target", target)
    return (output.float() - target.float()).abs().mean()


def feature_matching_loss(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Compute the mean over D's layers of the mean absolute difference of their features.

    Args:
        fake: Features of generated images, one tensor a layer.
        real: Those of the real images, of the same shapes; they get no gradient.

    Raises:
        ValueError: The layers or their shapes differ.

    Reference: Wang et al. 2018 (pix2pixHD), Eq. 4.
    """
    if len(fake) != len(real) or not fake:
        raise ValueError(f"there are {len(fake)} layers of fake and {len(real)} of real features; must be equal, not 0")
    return torch.stack([l1_loss(one, other.detach()) for one, other in zip(fake, real, strict=True)]).mean()


def patch_nce_loss(query: Tensor, key: Tensor, *, temperature: float = 0.07) -> Tensor:
    """Compute the cross-entropy of finding each patch of an output among all patches of its source.

    The logits of a query are its similarities with the keys of the same image, divided by ``temperature``; the key at
    its own location is the right one.

    Args:
        query: Features of P patches of an output, [N, P, D]; of length 1 in the paper.
        key: Features of the source at the same locations, of the same shape; they get no gradient.
        temperature: tau.

    Returns:
        The mean over images and patches, in nats; log P if all features are equal.

    Raises:
        ValueError: The shapes differ, or are not [N, P, D] with at least two patches.

    Reference: Park et al. 2020, Eq. 2 and 3.
    """
    _require_same_shape("query", query, "key", key)
    if query.dim() != 3 or query.shape[1] < 2:
        raise ValueError(f"query is {tuple(query.shape)}; expected [N, P, D] with P of at least 2")
    N, P, _ = query.shape
    similarity = torch.bmm(query.float(), key.detach().float().transpose(1, 2))  # [N, P, P]
    targets = torch.arange(P, device=query.device).repeat(N)
    return F.cross_entropy((similarity / temperature).flatten(0, 1), targets)


def _require_same_shape(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"{first_name} is {tuple(first.shape)} and {second_name} is {tuple(second.shape)}; they must be equal"
        )
