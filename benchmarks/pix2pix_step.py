"""pix2pix's step, plain and ours, for `benchmarks.train_step`.

The plain step is what anyone writes from the paper with torch's own layers: float32, contiguous memory,
``torch.optim.Adam``, binary cross-entropy and L1; D sees real and fake in two passes, and G's fakes once more.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ganvas.device import choose_precision
from ganvas.nn.init import initialize_weights
from ganvas.nn.patchgan import PatchDiscriminator
from ganvas.nn.unet import UNetGenerator
from ganvas.training.fabric import compile_network
from ganvas.training.optimizer import Adam
from pix2pix.step import Pix2PixStep

Batch = dict[str, Tensor]
Step = Callable[[Batch], object]


def make_batch(batch_size: int, image_size: int, device: str) -> Batch:
    """Make pairs of noise."""
    chance = torch.Generator().manual_seed(0)
    shape = (batch_size, 3, image_size, image_size)
    return {name: torch.rand(shape, generator=chance).mul(2).sub(1).to(device) for name in ("source", "target")}


def plain_unet() -> nn.Module:
    """Build the paper's U-Net of torch's own layers, as a textbook would."""

    class Level(nn.Module):
        """One level with all that lies inside it."""

        def __init__(self, outer: int, inner: int, inside: nn.Module | None, drop: bool) -> None:
            super().__init__()
            norm_down = [nn.BatchNorm2d(inner)] if inside is not None else []
            self.down = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1, bias=False), *norm_down)
            self.inside = inside
            width = inner if inside is None else 2 * inner
            up = nn.ConvTranspose2d(width, outer, 4, 2, 1, bias=False)
            self.up = nn.Sequential(nn.ReLU(), up, nn.BatchNorm2d(outer), *([nn.Dropout(0.5)] if drop else []))

        def forward(self, x: Tensor) -> Tensor:
            """Give the input and what came back up, side by side."""
            y = self.down(x)
            return torch.cat([x, self.up(y if self.inside is None else self.inside(y))], 1)

    inside: nn.Module | None = None
    for depth, (outer, inner) in enumerate(
        [(512, 512), (512, 512), (512, 512), (512, 512), (256, 512), (128, 256), (64, 128)]
    ):
        inside = Level(outer, inner, inside, drop=depth < 3)
    assert inside is not None
    return nn.Sequential(
        nn.Conv2d(3, 64, 4, 2, 1, bias=False), inside, nn.ReLU(), nn.ConvTranspose2d(128, 3, 4, 2, 1), nn.Tanh()
    )


def plain_patchgan() -> nn.Module:
    """Build the 70x70 PatchGAN of torch's own layers."""
    layers: list[nn.Module] = [nn.Conv2d(6, 64, 4, 2, 1), nn.LeakyReLU(0.2)]
    for before, after, stride in ((64, 128, 2), (128, 256, 2), (256, 512, 1)):
        layers += [nn.Conv2d(before, after, 4, stride, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 4, 1, 1))


def plain_step(device: str, image_size: int) -> Step:
    """Make the step a textbook would write; the networks are the same for every size."""
    G, D = plain_unet().to(device), plain_patchgan().to(device)
    initialize_weights(G)
    initialize_weights(D)
    adam_g = torch.optim.Adam(G.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_d = torch.optim.Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def judge(scores: Tensor, real: bool) -> Tensor:
        return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(real)))

    def step(batch: Batch) -> object:
        source, target = batch["source"], batch["target"]
        fake = G(source)
        for parameter in D.parameters():
            parameter.requires_grad_(True)
        real_scores = D(torch.cat([source, target], 1))
        fake_scores = D(torch.cat([source, fake.detach()], 1))
        loss_d = 0.5 * (judge(real_scores, True) + judge(fake_scores, False))
        adam_d.zero_grad()
        loss_d.backward()
        adam_d.step()
        for parameter in D.parameters():
            parameter.requires_grad_(False)
        loss_g = judge(D(torch.cat([source, fake], 1)), True) + 100 * F.l1_loss(fake, target)
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        return loss_d, loss_g

    return step


def our_step(device: str, image_size: int, *, compiled: bool = False) -> Step:
    """Make the product's step at its default precision, set up as the training sets it up."""
    G, D = UNetGenerator().to(device), PatchDiscriminator().to(device)
    adams = []
    for network in (G, D):
        initialize_weights(network)
        network.to(memory_format=torch.channels_last)
        adams.append(Adam(network.named_parameters(), 2e-4))
    called = [compile_network(network) if compiled else network for network in (G, D)]
    update = Pix2PixStep(called[0], called[1], adams[0], adams[1], bf16=choose_precision("auto", device) == "bf16")

    return lambda batch: update({name: x.to(memory_format=torch.channels_last) for name, x in batch.items()})


def flops_per_image(size: int) -> float:
    """Count a step's work: G forward and backward, D trained on real and fake, D passed through for G."""
    source = torch.zeros(1, 3, size, size, device="meta")
    counts = []
    with torch.device("meta"):
        for network, x in ((UNetGenerator(), source), (PatchDiscriminator(), torch.cat([source, source], 1))):
            with FlopCounterMode(display=False) as counter:
                network(x)
            counts.append(counter.get_total_flops())
    G, D = counts
    return float(3 * G + 2 * 3 * D + 2 * D)
