"""One training step of pix2pix (Isola et al. 2017, Sec. 3).

Letters: G translates a source x to G(x); D judges pairs (x, y). Departure from the paper: none in the step; D is
updated before G, and its loss is halved, as in Sec. 3.3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ganvas.losses import GanLoss, gan_loss_d, gan_loss_g, gradient_penalty, l1_loss
from ganvas.training.optimizer import Adam

# Weight and function of source, output and target, by name; the function returns a scalar.
ExtraLosses = Mapping[str, tuple[float, Callable[[Tensor, Tensor, Tensor], Tensor]]]


@dataclass(frozen=True)
class Weights:
    """Weights of the losses."""

    lambda_gan: float = 1.0
    lambda_l1: float = 100.0
    lambda_gp: float = 10.0


class Pix2PixStep:
    """Updates D, then G, from one batch of pairs.

    Args:
        G: Generator, [N, C_in, H, W] to [N, C_out, H, W].
        D: Discriminator of source and target joined along the channels.
        optimizer_g: G's.
        optimizer_d: D's.
        gan_loss: The adversarial loss.
        weights: Weights of the terms.
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
        extra_losses: ExtraLosses | None = None,
        bf16: bool = False,
    ) -> None:
        self.G, self.D = G, D
        self.optimizer_g, self.optimizer_d = optimizer_g, optimizer_d
        self.gan_loss, self.weights, self.bf16 = gan_loss, weights, bf16
        self.extra_losses = extra_losses or {}

    def __call__(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Update both networks once.

        Args:
            batch: "source" [N, C_in, H, W] and "target" [N, C_out, H, W] in [-1, 1].

        Returns:
            The unweighted losses loss_d, loss_g_gan, loss_g_l1 (loss_gp with wgangp), and loss_g, G's weighted sum.
        """
        source, target = batch["source"], batch["target"]
        with self._precision(source):
            fake = self.G(source)
        losses: dict[str, Tensor] = {}
        if self.weights.lambda_gan:
            losses |= self._update_d(source, target, fake.detach())
        return losses | self._update_g(source, target, fake)

    def _update_d(self, source: Tensor, target: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Train D to tell (x, y) from (x, G(x))."""
        self.D.requires_grad_(True)
        real_pair, fake_pair = torch.cat([source, target], dim=1), torch.cat([source, fake], dim=1)
        with self._precision(source):
            real_scores, fake_scores = self.D(real_pair), self.D(fake_pair)
        loss_d = 0.5 * gan_loss_d(real_scores, fake_scores, self.gan_loss)  # halved: D learns slower than G (Sec. 3.3)
        total, losses = loss_d, {"loss_d": loss_d}
        if self.gan_loss == "wgangp":
            losses["loss_gp"] = gradient_penalty(self.D, real_pair, fake_pair)
            total = total + 0.5 * self.weights.lambda_gp * losses["loss_gp"]  # halved with it: lambda stays relative
        self.optimizer_d.zero_grad()
        total.backward()
        self.optimizer_d.step()
        return losses

    def _update_g(self, source: Tensor, target: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Train G to look real to D and to stay near y: G* = arg min_G max_D L_cGAN + lambda L_L1 (Eq. 4)."""
        losses = {"loss_g_l1": l1_loss(fake, target)}
        loss_g = self.weights.lambda_l1 * losses["loss_g_l1"]
        if self.weights.lambda_gan:
            self.D.requires_grad_(False)  # its gradients are not wanted here, and cost a third of its pass
            with self._precision(source):
                fake_scores = self.D(torch.cat([source, fake], dim=1))
            losses["loss_g_gan"] = gan_loss_g(fake_scores, self.gan_loss)
            loss_g = loss_g + self.weights.lambda_gan * losses["loss_g_gan"]
        for name, (weight, loss) in self.extra_losses.items():
            losses[f"loss_g_{name}"] = loss(source, fake.float(), target)
            loss_g = loss_g + weight * losses[f"loss_g_{name}"]
        self.optimizer_g.zero_grad()
        loss_g.backward()
        self.optimizer_g.step()
        return {**losses, "loss_g": loss_g}

    def _precision(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, dtype=torch.bfloat16, enabled=self.bf16)
