"""One training step of CycleGAN (Zhu et al. 2017, Sec. 3 and 4).

Letters: G_ab translates domain a to b (the paper's G), G_ba b to a (F); D_a judges domain a (D_X), D_b domain b (D_Y).
As in the published code, G is updated before D, D's losses are halved, and D sees fakes from a pool of earlier ones.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cyclegan.pool import ImagePool
from ganvas.losses import GanLoss, gan_loss_d, gan_loss_g, l1_loss
from ganvas.nn.diff_augment import AugmentPolicy, draw_augmentation
from ganvas.training.optimizer import Adam
from ganvas.training.penalties import discriminator_penalties
from ganvas.training.schedule import START, Progress

# Weight and function of source, output and an image of the target domain, by name; the function returns a scalar.
ExtraLosses = Mapping[str, tuple[float, Callable[[Tensor, Tensor, Tensor], Tensor]]]


@dataclass(frozen=True)
class Weights:
    """Weights of the losses.

    Attributes:
        lambda_cycle: Weight of the cycle losses (Zhu et al. 2017, Eq. 3).
        lambda_identity: Weight of the identity losses, as a share of lambda_cycle (Sec. 5.2); 0 skips their work.
        lambda_gp: Weight of wgangp's gradient penalty.
        r1: Gamma of the penalty at real images.
        r2: Gamma of the penalty at translations.
        penalty_every: Steps between computations of r1 and r2.
    """

    lambda_cycle: float = 10.0
    lambda_identity: float = 0.5
    lambda_gp: float = 10.0
    r1: float = 0.0
    r2: float = 0.0
    penalty_every: int = 8


@dataclass(frozen=True)
class Networks:
    """The four networks, or what runs them: compiled, or for several processes."""

    G_ab: nn.Module
    G_ba: nn.Module
    D_a: nn.Module
    D_b: nn.Module


class CycleGanStep:
    """Updates both G, then both D, from one batch of two domains.

    Args:
        networks: G_ab and G_ba, [N, C, H, W] to [N, C', H, W]; D_a and D_b, [N, C, H, W] to scores.
        optimizers: Each network's, by its name.
        pool_a: Pool of fakes of domain a, for D_a.
        pool_b: Pool of fakes of domain b, for D_b.
        gan_loss: The adversarial loss; least squares in the paper (Sec. 4).
        weights: Weights of the terms.
        diff_augment: Changes to all that the discriminators see; see `draw_augmentation`.
        extra_losses: Further terms of the generators' loss, logged as ``loss_g_NAME``, the mean of both directions.
        join_generators: Run a generator's translation and its identity pass as one batch. Only where no layer mixes the
            images of a batch or draws for them: with instance norm and without dropout.
        join_discriminators: Run a discriminator's real and fake pass as one batch; with instance norm, not batch norm.
        grad_accum_steps: Parts that a batch is split into, one after the other: the memory of one piece.
        activation_checkpointing: Keep only the generators' inputs and recompute activations: less memory, more time.
        bf16: Run the networks in bfloat16 where autocast finds it safe; losses and weights stay float32.
    """

    def __init__(
        self,
        networks: Networks,
        optimizers: Mapping[str, Adam],
        pool_a: ImagePool,
        pool_b: ImagePool,
        *,
        gan_loss: GanLoss = "lsgan",
        weights: Weights = Weights(),
        diff_augment: Sequence[AugmentPolicy] = (),
        extra_losses: ExtraLosses | None = None,
        join_generators: bool = True,
        join_discriminators: bool = True,
        grad_accum_steps: int = 1,
        activation_checkpointing: bool = False,
        bf16: bool = False,
    ) -> None:
        self.networks, self.optimizers = networks, optimizers
        self.pool_a, self.pool_b = pool_a, pool_b
        self.gan_loss, self.weights = gan_loss, weights
        self.join_generators, self.join_discriminators = join_generators, join_discriminators
        self.grad_accum_steps, self.activation_checkpointing = grad_accum_steps, activation_checkpointing
        self.diff_augment, self.bf16, self.extra_losses = diff_augment, bf16, extra_losses or {}

    def __call__(self, batch: Mapping[str, Tensor], progress: Progress = START) -> dict[str, Tensor]:
        """Update all networks once.

        Args:
            batch: "a" [N, C, H, W] and "b" [N, C', H, W] in [-1, 1]; ``grad_accum_steps`` divides N.
            progress: Where the step stands in the run.

        Returns:
            The unweighted losses loss_g_ab, loss_g_ba, loss_cycle_a, loss_cycle_b, loss_identity_a and loss_identity_b
            (where they have a weight), loss_d_a, loss_d_b, penalties with a weight (loss_gp_a, loss_r1_a and so on),
            and loss_g, G's weighted sum.

        Raises:
            ValueError: The domains differ in channels, and the identity losses have a weight.
        """
        C_a, C_b = batch["a"].shape[1], batch["b"].shape[1]
        if self.weights.lambda_identity and C_a != C_b:
            raise ValueError(
                f"domain a has {C_a} channels and b {C_b}; lambda_identity is {self.weights.lambda_identity}, must be 0"
            )
        parts = list(zip(*(batch[domain].chunk(self.grad_accum_steps) for domain in ("a", "b")), strict=True))
        share = 1 / len(parts)
        sums: dict[str, Tensor] = {}
        fakes = []

        # Update both G; D is frozen.
        for discriminator in (self.networks.D_a, self.networks.D_b):
            discriminator.requires_grad_(False)
        self._zero_grad("G_ab", "G_ba")
        for real_a, real_b in parts:
            fake_a, fake_b, losses = self._generator_losses(real_a, real_b)
            (share * losses["loss_g"]).backward()
            fakes.append((fake_a.detach(), fake_b.detach()))
            _add(sums, losses, share)
        self._update("G_ab", "G_ba")

        # Update both D on real images and on fakes from the pools.
        for discriminator in (self.networks.D_a, self.networks.D_b):
            discriminator.requires_grad_(True)
        self._zero_grad("D_a", "D_b")
        fake_a, fake_b = (torch.cat(each) for each in zip(*fakes, strict=True))
        # One call for the batch: else the draws of the two pools would alternate.
        shown = zip(self.pool_a(fake_a).chunk(len(parts)), self.pool_b(fake_b).chunk(len(parts)), strict=True)
        for (real_a, real_b), (shown_a, shown_b) in zip(parts, shown, strict=True):
            for domain, D, real, fake in (
                ("a", self.networks.D_a, real_a, shown_a),
                ("b", self.networks.D_b, real_b, shown_b),
            ):
                total, losses = self._discriminator_losses(domain, D, real, fake, progress)
                (share * total).backward()
                _add(sums, losses, share)
        self._update("D_a", "D_b")
        return sums

    def _generator_losses(self, real_a: Tensor, real_b: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Compute both cycles: G's full objective (Eq. 3), and the identity loss (Sec. 5.2)."""
        G_ab, G_ba, weights = self.networks.G_ab, self.networks.G_ba, self.weights
        losses: dict[str, Tensor] = {}
        with self._precision(real_a):
            if weights.lambda_identity:
                fake_b, identity_b = self._run(G_ab, [real_a, real_b])
                fake_a, identity_a = self._run(G_ba, [real_b, real_a])
                losses["loss_identity_a"] = l1_loss(identity_a, real_a)
                losses["loss_identity_b"] = l1_loss(identity_b, real_b)
            else:
                (fake_b,), (fake_a,) = self._run(G_ab, [real_a]), self._run(G_ba, [real_b])
            (cycled_a,), (cycled_b,) = self._run(G_ba, [fake_b]), self._run(G_ab, [fake_a])
            scores_b = self.networks.D_b(draw_augmentation(self.diff_augment, fake_b)(fake_b))
            scores_a = self.networks.D_a(draw_augmentation(self.diff_augment, fake_a)(fake_a))
        losses["loss_g_ab"] = gan_loss_g(scores_b, self.gan_loss)
        losses["loss_g_ba"] = gan_loss_g(scores_a, self.gan_loss)
        losses["loss_cycle_a"] = l1_loss(cycled_a, real_a)
        losses["loss_cycle_b"] = l1_loss(cycled_b, real_b)
        cycle = losses["loss_cycle_a"] + losses["loss_cycle_b"]
        loss_g = losses["loss_g_ab"] + losses["loss_g_ba"] + weights.lambda_cycle * cycle
        if weights.lambda_identity:
            identity = losses["loss_identity_a"] + losses["loss_identity_b"]
            loss_g = loss_g + weights.lambda_cycle * weights.lambda_identity * identity
        for name, (weight, loss) in self.extra_losses.items():
            losses[f"loss_g_{name}"] = 0.5 * (loss(real_a, fake_b, real_b) + loss(real_b, fake_a, real_a))
            loss_g = loss_g + weight * losses[f"loss_g_{name}"]
        return fake_a, fake_b, {**losses, "loss_g": loss_g}

    def _discriminator_losses(
        self, domain: str, D: nn.Module, real: Tensor, fake: Tensor, progress: Progress
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Train D to tell a domain's images from translations into it."""
        see = draw_augmentation(self.diff_augment, real)
        real, fake = see(real), see(fake)
        with self._precision(real):
            real_scores, fake_scores = _pass(D, [real, fake], joined=self.join_discriminators)
        loss_d = 0.5 * gan_loss_d(real_scores, fake_scores, self.gan_loss)  # halved: D learns slower than G (Sec. 7.1)
        penalties, penalty = discriminator_penalties(D, real, fake, self.gan_loss, self.weights, progress.step)
        losses = {f"loss_d_{domain}": loss_d, **{f"{name}_{domain}": value for name, value in penalties.items()}}
        return loss_d + 0.5 * penalty, losses  # the penalties are halved with the loss: weights stay relative

    def _run(self, G: nn.Module, images: Sequence[Tensor]) -> list[Tensor]:
        """Run a generator on one or two batches; each output as float32."""
        network: Callable[[Tensor], Tensor] = G
        if self.activation_checkpointing:
            contexts = lambda: (contextlib.nullcontext(), _statistics_kept(G))  # noqa: E731
            network = lambda x: checkpoint(G, x, use_reentrant=False, context_fn=contexts)  # noqa: E731
        return [output.float() for output in _pass(network, images, joined=self.join_generators)]

    def _zero_grad(self, *names: str) -> None:
        for name in names:
            self.optimizers[name].zero_grad()

    def _update(self, *names: str) -> None:
        for name in names:
            self.optimizers[name].step()

    def _precision(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, dtype=torch.bfloat16, enabled=self.bf16)


@contextlib.contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norms while activations are recomputed: the batch was averaged already.

    They average into copies meanwhile: with averaging off, they would keep other values for the backward pass.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [(norm, name, buffer) for norm in norms for name, buffer in norm.named_buffers()]
    for norm, name, buffer in kept:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in kept:
            setattr(norm, name, buffer)


def _pass(network: Callable[[Tensor], Tensor], images: Sequence[Tensor], *, joined: bool) -> Sequence[Tensor]:
    """Run a network on several batches, joined into one if ``joined``."""
    if not joined or len(images) == 1:
        return [network(each) for each in images]
    return network(torch.cat(list(images))).split([len(each) for each in images])


def _add(sums: dict[str, Tensor], losses: Mapping[str, Tensor], share: float) -> None:
    for name, value in losses.items():
        value = share * value.detach()
        sums[name] = sums[name] + value if name in sums else value
