"""One training step of CUT and FastCUT (Park et al. 2020): one direction, contrast instead of a cycle.

Letters: G translates domain a to b, D judges domain b, and the heads H map features of G's encoder. Each patch of the
output must resemble the source's patch at the same location more than the source's other patches (PatchNCE). CUT has
the same term for images of b and their outputs (identity); FastCUT mirrors half of the sources before G.

As in the published code, D is updated before G, its loss is halved, terms are means over layers and patches, each term
draws its own locations, and the loss of CUT takes the mean of both PatchNCE terms. For the direction b to a, read the
letters the other way round.

Departures: the source's features come from the pass that translates it, joined with the identity inputs, instead of a
second pass. They are the same, since G has neither batch norm nor dropout here (`cyclegan.config` refuses both). The
published code scales images to the size of the crop while the learning rate falls (no 286 to 256 pixels then); here the
augmentation of training images stays the same throughout.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from cyclegan.patch_heads import draw_locations
from cyclegan.step import ExtraLosses
from ganvas.losses import GanLoss, gan_loss_d, gan_loss_g, patch_nce_loss
from ganvas.nn.diff_augment import AugmentPolicy, draw_augmentation
from ganvas.training.optimizer import Adam
from ganvas.training.penalties import discriminator_penalties
from ganvas.training.schedule import START, Progress


@dataclass(frozen=True)
class CutWeights:
    """Weights of the losses and penalties, and what PatchNCE compares.

    Attributes:
        lambda_nce: Of PatchNCE; 1 for CUT and 10 for FastCUT in the paper (Sec. 3).
        has_identity: Whether PatchNCE compares images of the target domain with their outputs, too (CUT).
        flips: Whether half of the sources are mirrored before G, and the features of the output back (FastCUT).
        nce_patches: Patches that are compared, of each layer and image.
        temperature: tau.
        lambda_gp: Of wgangp's gradient penalty.
        r1: Gamma of the penalty at real images.
        r2: Gamma of the penalty at translations.
        penalty_every: Steps between computations of r1 and r2.
    """

    lambda_nce: float = 1.0
    has_identity: bool = True
    flips: bool = False
    nce_patches: int = 256
    temperature: float = 0.07
    lambda_gp: float = 10.0
    r1: float = 0.0
    r2: float = 0.0
    penalty_every: int = 8


class FeatureGenerator(Protocol):
    """A generator with features, such as `ganvas.nn.resnet.ResNetGenerator`."""

    def with_features(self, source: Tensor, layers: Sequence[int], /) -> tuple[Tensor, list[Tensor]]:
        """Return the translation of [N, C, H, W], and the outputs of some layers."""

    def features(self, source: Tensor, layers: Sequence[int], /) -> list[Tensor]:
        """Return the outputs of some layers."""


class CutStep:
    """Updates D, then G and the heads, from one batch of two domains.

    Args:
        G: Generator without batch norm or dropout, [N, C, H, W] to [N, C, H, W].
        D: Discriminator of the target domain, to scores.
        heads: `PatchHeads` for the features of ``layers``.
        optimizers: Those of "G", "D" and "heads".
        layers: Positions of G's layers whose features are compared.
        domains: Source and target domain, by their names in a batch.
        gan_loss: The adversarial loss; least squares in the paper.
        weights: Weights of the terms.
        diff_augment: Changes to all that D sees; see `draw_augmentation`.
        extra_losses: Further terms of G's loss, logged as ``loss_g_NAME``.
        bf16: Run the networks in bfloat16 where autocast finds it safe; losses and weights stay float32.
    """

    def __init__(
        self,
        G: FeatureGenerator,
        D: nn.Module,
        heads: nn.Module,
        optimizers: Mapping[str, Adam],
        layers: Sequence[int],
        domains: tuple[str, str] = ("a", "b"),
        *,
        gan_loss: GanLoss = "lsgan",
        weights: CutWeights = CutWeights(),
        diff_augment: Sequence[AugmentPolicy] = (),
        extra_losses: ExtraLosses | None = None,
        bf16: bool = False,
    ) -> None:
        self.G, self.D, self.heads, self.optimizers = G, D, heads, optimizers
        self.layers, self.domains = layers, domains
        self.gan_loss, self.weights, self.diff_augment = gan_loss, weights, diff_augment
        self.extra_losses, self.bf16 = extra_losses or {}, bf16

    def __call__(self, batch: Mapping[str, Tensor], progress: Progress = START) -> dict[str, Tensor]:
        """Update all networks once.

        Args:
            batch: [N, C, H, W] in [-1, 1] of both domains.
            progress: Where the step stands in the run.

        Returns:
            The unweighted losses loss_d, loss_g_gan, loss_nce, those of other terms with a weight (loss_nce_identity,
            loss_gp, loss_r1, loss_r2), and loss_g, G's weighted sum.

        Raises:
            ValueError: The domains differ in channels: G's encoder sees sources and translations.
        """
        real_a, real_b = (batch[domain] for domain in self.domains)
        C, C_b = real_a.shape[1], real_b.shape[1]
        if C_b != C:
            raise ValueError(f"the source has {C} channels and the target {C_b}; they must be equal")
        is_flipped = self.weights.flips and bool(torch.rand(()) < 0.5)  # the whole batch, as in the published code
        source = real_a.flip(-1) if is_flipped else real_a

        # Translate sources and, for the identity term, images of the target domain in one pass.
        inputs = torch.cat([source, real_b]) if self.weights.has_identity else source
        with self._precision(real_a):
            outputs, keys = self.G.with_features(inputs, self.layers)
        outputs, keys = outputs.float(), [key.detach() for key in keys]
        if is_flipped:  # keys are features of the sources that are not mirrored
            with torch.no_grad(), self._precision(real_a):
                upright = self.G.features(real_a, self.layers)
            keys = [torch.cat([one, other[len(one) :]]) for one, other in zip(upright, keys, strict=True)]

        losses = self._update_d(real_b, outputs[: len(real_a)].detach(), progress)
        return losses | self._update_g(source, real_b, outputs, keys, is_flipped)

    def _update_d(self, real_b: Tensor, fake_b: Tensor, progress: Progress) -> dict[str, Tensor]:
        """Train D to tell images of the target domain from translations."""
        self.D.requires_grad_(True)
        see = draw_augmentation(self.diff_augment, real_b)
        real, fake = see(real_b), see(fake_b)
        with self._precision(real_b):
            loss_d = 0.5 * gan_loss_d(self.D(real), self.D(fake), self.gan_loss)
        penalties, penalty = discriminator_penalties(self.D, real, fake, self.gan_loss, self.weights, progress.step)
        self.optimizers["D"].zero_grad()
        (loss_d + 0.5 * penalty).backward()  # the penalties are halved with the loss: weights stay relative
        self.optimizers["D"].step()
        return {"loss_d": loss_d, **penalties}

    def _update_g(
        self, source: Tensor, real_b: Tensor, outputs: Tensor, keys: Sequence[Tensor], is_flipped: bool
    ) -> dict[str, Tensor]:
        """Train G and the heads: L_GAN + lambda * L_PatchNCE (Eq. 5)."""
        weights, N = self.weights, len(source)
        fake_b = outputs[:N]
        self.D.requires_grad_(False)
        with self._precision(fake_b):
            scores = self.D(draw_augmentation(self.diff_augment, fake_b)(fake_b))
        losses = {"loss_g_gan": gan_loss_g(scores, self.gan_loss)}
        losses |= self._compare(outputs, keys, N, is_flipped)
        nce = [value for name, value in losses.items() if name.startswith("loss_nce")]
        loss_g = losses["loss_g_gan"] + weights.lambda_nce * torch.stack(nce).mean()
        for name, (weight, loss) in self.extra_losses.items():
            losses[f"loss_g_{name}"] = loss(source, fake_b, real_b)
            loss_g = loss_g + weight * losses[f"loss_g_{name}"]
        for name in ("G", "heads"):
            self.optimizers[name].zero_grad()
        loss_g.backward()
        for name in ("G", "heads"):
            self.optimizers[name].step()
        return {**losses, "loss_g": loss_g}

    def _compare(self, outputs: Tensor, keys: Sequence[Tensor], N: int, is_flipped: bool) -> dict[str, Tensor]:
        """Compare patches of the N translations, and of the identity outputs after them, with those of their inputs."""
        with self._precision(outputs):
            queries = self.G.features(outputs, self.layers)
        if is_flipped:
            queries = [torch.cat([query[:N].flip(-1), query[N:]]) for query in queries]
        parts = {"loss_nce": slice(N)}
        if self.weights.has_identity:
            parts["loss_nce_identity"] = slice(N, None)
        return {
            name: self._patch_nce([query[part] for query in queries], [key[part] for key in keys])
            for name, part in parts.items()
        }

    def _patch_nce(self, queries: Sequence[Tensor], keys: Sequence[Tensor]) -> Tensor:
        """Compute the mean of PatchNCE over layers, at locations drawn for all images (Eq. 3)."""
        locations = draw_locations(keys, self.weights.nce_patches)
        # Two contexts: within one, older versions of torch reuse the weights that were cast without gradients.
        with torch.no_grad(), self._precision(queries[0]):
            sampled_keys = self.heads(keys, locations)
        with self._precision(queries[0]):
            sampled_queries = self.heads(queries, locations)
        pairs = zip(sampled_queries, sampled_keys, strict=True)
        losses = [patch_nce_loss(query, key, temperature=self.weights.temperature) for query, key in pairs]
        return torch.stack(losses).mean()

    def _precision(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, dtype=torch.bfloat16, enabled=self.bf16)
