"""pix2pix's step, plain and ours, for `benchmarks.train_step`.

The plain step is written from the paper with torch's own layers: float32, contiguous memory, ``torch.optim.Adam``,
binary cross-entropy and L1; D sees real and fake in two passes, and G's fakes once more.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.step_tools import (
    Batch,
    Step,
    channels_last,
    forward_flops,
    noise_batch,
    plain_adam,
    plain_patchgan,
    set_up,
)
from ganvas.nn.init import initialize_weights
from ganvas.nn.patchgan import PatchDiscriminator
from ganvas.nn.unet import UNetGenerator
from pix2pix.step import Pix2PixStep


def make_batch(batch_size: int, image_size: int, device: str) -> Batch:
    """Make pairs of noise."""
    return noise_batch(("source", "target"), (batch_size, 3, image_size, image_size), device)


class Level(nn.Module):
    """One level of the plain U-Net with all levels inside it."""

    def __init__(self, outer: int, inner: int, inside: nn.Module | None, dropout: bool) -> None:
        super().__init__()
        norm_down = [nn.BatchNorm2d(inner)] if inside is not None else []
        self.down = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1, bias=False), *norm_down)
        self.inside = inside or nn.Identity()
        up = nn.ConvTranspose2d(inner if inside is None else 2 * inner, outer, 4, 2, 1, bias=False)
        self.up = nn.Sequential(nn.ReLU(), up, nn.BatchNorm2d(outer), *([nn.Dropout(0.5)] if dropout else []))

    def forward(self, x: Tensor) -> Tensor:
        """Return the input and the level's output, concatenated."""
        return torch.cat([x, self.up(self.inside(self.down(x)))], 1)


def plain_unet() -> nn.Module:
    """Build the paper's U-Net of torch's own layers."""
    inside: nn.Module | None = None
    widths = [(512, 512), (512, 512), (512, 512), (512, 512), (256, 512), (128, 256), (64, 128)]
    for depth, (outer, inner) in enumerate(widths):
        inside = Level(outer, inner, inside, dropout=depth < 3)
    assert inside is not None
    first, last = nn.Conv2d(3, 64, 4, 2, 1, bias=False), nn.ConvTranspose2d(128, 3, 4, 2, 1)
    return nn.Sequential(first, inside, nn.ReLU(), last, nn.Tanh())


def plain_step(device: str, image_size: int) -> Step:
    """Build the textbook step; the networks are the same for every size."""
    G, D = plain_unet().to(device), plain_patchgan(6, nn.BatchNorm2d, bias=False).to(device)
    initialize_weights(G)
    initialize_weights(D)
    adam_g, adam_d = plain_adam(G), plain_adam(D)

    def gan_loss(logits: Tensor, real: bool) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))

    def step(batch: Batch) -> object:
        source, target = batch["source"], batch["target"]
        fake = G(source)
        D.requires_grad_(True)
        real_logits = D(torch.cat([source, target], 1))
        fake_logits = D(torch.cat([source, fake.detach()], 1))
        loss_d = 0.5 * (gan_loss(real_logits, True) + gan_loss(fake_logits, False))
        adam_d.zero_grad()
        loss_d.backward()
        adam_d.step()
        D.requires_grad_(False)
        loss_g = gan_loss(D(torch.cat([source, fake], 1)), True) + 100 * F.l1_loss(fake, target)
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        return loss_d, loss_g

    return step


def our_step(device: str, image_size: int, *, compiled: bool = False) -> Step:
    """Build ganvas's step at its default precision."""
    networks = [UNetGenerator(), PatchDiscriminator()]
    for network in networks:
        initialize_weights(network)
    (G, D), (adam_g, adam_d), bf16 = set_up(networks, device, compiled=compiled)
    update = Pix2PixStep(G, D, adam_g, adam_d, bf16=bf16)
    return lambda batch: update(channels_last(batch))


def flops_per_image(size: int) -> float:
    """Count a step's work: G forward and backward, D trained on real and fake, D passed through for G."""
    with torch.device("meta"):
        G = forward_flops(UNetGenerator(), 1, 3, size, size)
        D = forward_flops(PatchDiscriminator(), 1, 6, size, size)
    return float(3 * G + 2 * 3 * D + 2 * D)
