"""One training step of a digit GAN (Goodfellow et al. 2014, Algorithm 1, with one step of D for one of G).

Letters: G draws x = G(z) from noise z; D judges images; y is the label where there is one. G minimizes
-log D(G(z)), the form that does not saturate (Sec. 3).

Departures from the tutorials: while G is updated, D's batch norm goes on with the statistics of the batch (what Keras
does in a frozen D has changed with its versions); and the logarithm of the sigmoid is computed from logits, in its
stable form.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ganvas.losses import GanLoss, gan_loss_d, gan_loss_d_fake, gan_loss_d_real, gan_loss_g, real_threshold
from ganvas.training.optimizer import Adam

Latent = Literal["normal", "uniform"]
StepOrder = Literal["shared", "fresh", "keras"]
# Weight and function of noise, output and real images, by name; the function returns a scalar.
ExtraLosses = Mapping[str, tuple[float, Callable[[Tensor, Tensor, Tensor], Tensor]]]


def draw_latents(
    count: int, latent_dim: int, latent: Latent, *, device: torch.device | str, generator: torch.Generator | None = None
) -> Tensor:
    """Draw noise: [count, latent_dim], N(0, 1) or U(-1, 1)."""
    if latent == "uniform":
        return torch.rand(count, latent_dim, device=device, generator=generator) * 2 - 1
    return torch.randn(count, latent_dim, device=device, generator=generator)


class DcganStep:
    """Updates D, then G, from one batch of images.

    Args:
        G: Generator, (z [N, latent_dim], y) to [N, C, S, S].
        D: Discriminator, (x [N, C, S, S], y) to logits [N].
        optimizer_g: G's.
        optimizer_d: D's.
        latent_dim: Length of z.
        num_classes: 0 for a model without labels.
        latent: Distribution of z.
        order: "shared" updates D once and G by the same fakes; "fresh" gives G fakes of its own; "keras" updates D
            twice, on real and on fake images that G draws in inference mode (as ``predict`` does), then G by fakes
            of its own.
        gan_loss: The adversarial loss.
        label_smoothing: As in `ganvas.losses.gan_loss_d_real`.
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
        latent_dim: int = 100,
        num_classes: int = 0,
        latent: Latent = "normal",
        order: StepOrder = "shared",
        gan_loss: GanLoss = "vanilla",
        label_smoothing: float = 0.0,
        extra_losses: ExtraLosses | None = None,
        bf16: bool = False,
    ) -> None:
        self.G, self.D = G, D
        self.optimizer_g, self.optimizer_d = optimizer_g, optimizer_d
        self.latent_dim, self.num_classes, self.latent = latent_dim, num_classes, latent
        self.order, self.gan_loss, self.label_smoothing, self.bf16 = order, gan_loss, label_smoothing, bf16
        self.extra_losses = extra_losses or {}
        self._threshold = real_threshold(gan_loss, label_smoothing=label_smoothing)

    def __call__(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Update both networks once.

        Args:
            batch: "image" [N, C, S, S]; "label" [N] int64 for a model with labels.

        Returns:
            loss_d (with "keras" the mean of its two losses, as the tutorials report it, else their sum), loss_g_gan,
            and accuracy_real and accuracy_fake, the shares that D judges right.
        """
        real, labels = batch["image"], batch["label"] if self.num_classes else None
        z, fake = self._fakes_for_d(real, labels)
        self.D.requires_grad_(True)
        losses = (self._update_d_twice if self.order == "keras" else self._update_d)(real, fake.detach(), labels)
        if self.order != "shared":
            labels = self._random_labels(real)
            z, fake = self._draw(real, labels)
        return losses | self._update_g(z, fake, real, labels)

    def _fakes_for_d(self, like: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Draw fakes for D's update, by the order of updates."""
        if self.order == "shared":
            return self._draw(like, labels)
        with torch.no_grad():  # G does not learn from these
            if self.order == "fresh":
                return self._draw(like, labels)
            self.G.eval()
            noise_and_fake = self._draw(like, labels)
            self.G.train()
            return noise_and_fake

    def _draw(self, like: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Draw as many images as in ``like``; return z and G(z, y)."""
        z = draw_latents(like.shape[0], self.latent_dim, self.latent, device=like.device)
        with self._precision(like):
            return z, self.G(z, labels)

    def _random_labels(self, like: Tensor) -> Tensor | None:
        if not self.num_classes:
            return None
        return torch.randint(self.num_classes, like.shape[:1], device=like.device)

    def _update_d(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """Train D to tell x from G(z)."""
        with self._precision(real):
            real_logits, fake_logits = self.D(real, labels), self.D(fake, labels)
        loss_d = gan_loss_d(real_logits, fake_logits, self.gan_loss, label_smoothing=self.label_smoothing)
        self._descend(loss_d, self.optimizer_d)
        return {"loss_d": loss_d, **self._accuracy(real_logits, fake_logits)}

    def _update_d_twice(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """Train D on real images, then on fakes."""
        with self._precision(real):
            real_logits = self.D(real, labels)
        loss_real = gan_loss_d_real(real_logits, self.gan_loss, label_smoothing=self.label_smoothing)
        self._descend(loss_real, self.optimizer_d)
        with self._precision(real):
            fake_logits = self.D(fake, labels)
        loss_fake = gan_loss_d_fake(fake_logits, self.gan_loss)
        self._descend(loss_fake, self.optimizer_d)
        return {"loss_d": 0.5 * (loss_real.detach() + loss_fake.detach()), **self._accuracy(real_logits, fake_logits)}

    def _update_g(self, z: Tensor, fake: Tensor, real: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """Train G to draw what D takes for real."""
        self.D.requires_grad_(False)  # its gradients are not wanted here, and cost a third of its pass
        with self._precision(fake):
            fake_logits = self.D(fake, labels)
        loss_g = gan_loss_g(fake_logits, self.gan_loss)
        losses = {"loss_g_gan": loss_g}
        for name, (weight, loss) in self.extra_losses.items():
            losses[f"loss_g_{name}"] = loss(z, fake.float(), real)
            loss_g = loss_g + weight * losses[f"loss_g_{name}"]
        self._descend(loss_g, self.optimizer_g)
        return losses

    def _accuracy(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        return {
            "accuracy_real": (real_logits.detach() > self._threshold).float().mean(),
            "accuracy_fake": (fake_logits.detach() <= self._threshold).float().mean(),
        }

    def _descend(self, loss: Tensor, optimizer: Adam) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def _precision(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, dtype=torch.bfloat16, enabled=self.bf16)
