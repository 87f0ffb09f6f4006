"""One training step of pix2pix (Isola et al. 2017, Sec. 3).

Letters: G translates a source x to G(x); D judges pairs (x, y). D is updated before G, and its loss is halved, as in
Sec. 3.3. Everything that later papers added is off by default: relativistic pairing and zero-centered penalties (Huang
et al. 2024), feature matching and several scales (Wang et al. 2018), differentiable augmentation (Zhao et al. 2020).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ganvas.losses import GanLoss, feature_matching_loss, gan_loss_d, gan_loss_g, l1_loss
from ganvas.nn.diff_augment import AugmentPolicy, draw_augmentation
from ganvas.training.optimizer import Adam
from ganvas.training.penalties import discriminator_penalties
from ganvas.training.schedule import START, Progress

# Weight and function of source, output and target, by name; the function returns a scalar.
ExtraLosses = Mapping[str, tuple[float, Callable[[Tensor, Tensor, Tensor], Tensor]]]


@dataclass(frozen=True)
class Weights:
    """Weights of the losses and penalties.

    Attributes:
        lambda_gan: Of the adversarial loss in G's.
        lambda_l1: Of the L1 loss at the start of the run.
        lambda_l1_end: Of the L1 loss at its end; None if it stays.
        lambda_features: Of feature matching.
        lambda_gp: Of wgangp's gradient penalty.
        r1: Gamma of the penalty at real pairs.
        r2: Gamma of the penalty at generated pairs.
        penalty_every: Steps between computations of r1 and r2, each of which has this weight (Karras et al. 2020,
            App. B).
    """

    lambda_gan: float = 1.0
    lambda_l1: float = 100.0
    lambda_l1_end: float | None = None
    lambda_features: float = 0.0
    lambda_gp: float = 10.0
    r1: float = 0.0
    r2: float = 0.0
    penalty_every: int = 8


class Pix2PixStep:
    """Updates D, then G, from one batch of pairs.

    Args:
        G: Generator, [N, C_in, H, W] to [N, C_out, H, W].
        D: Discriminator of source and target joined along the channels: to scores, or to what a
            `ganvas.nn.patchgan.MultiScaleDiscriminator` returns.
        optimizer_g: G's.
        optimizer_d: D's.
        gan_loss: The adversarial loss.
        weights: Weights of the terms.
        diff_augment: Changes to all that D sees; see `draw_augmentation`.
        extra_losses: Further terms of G's loss, logged as ``loss_g_NAME``.
        bf16: Run both networks in bfloat16 where autocast finds it safe; losses and weights stay float32.
    """

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        optimizer_g: Adam,
        optimizer_d: Adam,
        *,
        gan_loss: GanLoss = "vanilla",
        weights: Weights = Weights(),
        diff_augment: Sequence[AugmentPolicy] = (),
        extra_losses: ExtraLosses | None = None,
        bf16: bool = False,
    ) -> None:
        self.G, self.D = G, D
        self.optimizer_g, self.optimizer_d = optimizer_g, optimizer_d
        self.gan_loss, self.weights, self.bf16 = gan_loss, weights, bf16
        self.diff_augment, self.extra_losses = diff_augment, extra_losses or {}

    def __call__(self, batch: Mapping[str, Tensor], progress: Progress = START) -> dict[str, Tensor]:
        """Update both networks once.

        Args:
            batch: "source" [N, C_in, H, W] and "target" [N, C_out, H, W] in [-1, 1].
            progress: Where the step stands in the run.

        Returns:
            The unweighted losses loss_d, loss_g_gan, loss_g_l1 and those of other terms with a weight (loss_gp,
            loss_r1, loss_r2, loss_g_features), and loss_g, G's weighted sum.
        """
        source, target = batch["source"], batch["target"]
        with self._precision(source):
            fake = self.G(source)
        losses: dict[str, Tensor] = {}
        see = draw_augmentation(self.diff_augment, source)
        if self.weights.lambda_gan:
            real_pair, fake_pair = (torch.cat([see(source), see(y)], dim=1) for y in (target, fake.detach()))
            losses |= self._update_d(real_pair, fake_pair, progress)
        return losses | self._update_g(source, target, fake, see, progress)

    def _update_d(self, real_pair: Tensor, fake_pair: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Train D to tell (x, y) from (x, G(x))."""
        self.D.requires_grad_(True)
        with self._precision(real_pair):
            real, fake = _scales(self.D(real_pair)), _scales(self.D(fake_pair))
        loss_d = _mean(gan_loss_d(one[-1], other[-1], self.gan_loss) for one, other in zip(real, fake, strict=True))
        penalties, penalty = discriminator_penalties(
            self._scores, real_pair, fake_pair, self.gan_loss, self.weights, progress.step
        )
        self.optimizer_d.zero_grad()
        # Halved: D learns slower than G (Sec. 3.3). The penalties are halved with it, so that weights stay relative.
        (0.5 * loss_d + 0.5 * penalty).backward()
        self.optimizer_d.step()
        return {"loss_d": 0.5 * loss_d, **penalties}

    def _update_g(
        self, source: Tensor, target: Tensor, fake: Tensor, see: Callable[[Tensor], Tensor], progress: Progress
    ) -> dict[str, Tensor]:
        """Train G to look real to D and to stay near y: G* = arg min_G max_D L_cGAN + lambda L_L1 (Eq. 4)."""
        weights = self.weights
        losses = {"loss_g_l1": l1_loss(fake, target)}
        terms = [self._lambda_l1(progress) * losses["loss_g_l1"]]
        if weights.lambda_gan:
            self.D.requires_grad_(False)  # its gradients are not wanted here, and cost a third of its pass
            with self._precision(source):
                judged = _scales(self.D(torch.cat([see(source), see(fake)], dim=1)))
                real = self._judge_real(source, target, see)
            losses["loss_g_gan"] = _mean(
                gan_loss_g(one[-1], self.gan_loss, real_scores=real[scale][-1] if real else None)
                for scale, one in enumerate(judged)
            )
            terms.append(weights.lambda_gan * losses["loss_g_gan"])
            if weights.lambda_features:
                losses["loss_g_features"] = _mean(
                    feature_matching_loss(one[:-1], other[:-1]) for one, other in zip(judged, real, strict=True)
                )
                terms.append(weights.lambda_features * losses["loss_g_features"])
        for name, (weight, loss) in self.extra_losses.items():
            losses[f"loss_g_{name}"] = loss(source, fake.float(), target)
            terms.append(weight * losses[f"loss_g_{name}"])
        loss_g = torch.stack(terms).sum()
        self.optimizer_g.zero_grad()
        loss_g.backward()
        self.optimizer_g.step()
        return {**losses, "loss_g": loss_g}

    def _judge_real(self, source: Tensor, target: Tensor, see: Callable[[Tensor], Tensor]) -> list[list[Tensor]]:
        """Return D's output for the real pairs, without gradients, if a term of G's loss compares with it; else []."""
        if self.gan_loss != "relativistic" and not self.weights.lambda_features:
            return []
        with torch.no_grad():
            return _scales(self.D(torch.cat([see(source), see(target)], dim=1)))

    def _lambda_l1(self, progress: Progress) -> float:
        start, end = self.weights.lambda_l1, self.weights.lambda_l1_end
        return start if end is None else start + (end - start) * progress.fraction

    def _scores(self, pair: Tensor) -> Tensor:
        """Return all of D's scores as one dimension, weighted so that each scale counts alike in their mean.

        A penalty is one gradient of them all.
        """
        scores = [scale[-1].flatten() for scale in _scales(self.D(pair))]
        equal_share = sum(map(len, scores)) / len(scores)
        return torch.cat([one * (equal_share / len(one)) for one in scores])

    def _precision(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, dtype=torch.bfloat16, enabled=self.bf16)


def _scales(output: Tensor | list[list[Tensor]]) -> list[list[Tensor]]:
    """Return D's output as features by scale, of which the last are the scores."""
    return [[output]] if isinstance(output, Tensor) else output


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()
