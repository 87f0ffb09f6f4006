"""CycleGAN's step, plain and ours, for `benchmarks.train_step`.

The plain step is what anyone writes from Zhu et al. 2017 with torch's own layers: float32, contiguous memory,
``torch.optim.Adam`` over both generators and both discriminators, identity loss, pools of 50, each pass on its own.
"""

import itertools
import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from cyclegan.pool import ImagePool
from cyclegan.step import CycleGanStep, Networks
from ganvas.device import choose_precision
from ganvas.nn.init import initialize_weights
from ganvas.nn.patchgan import PatchDiscriminator
from ganvas.nn.resnet import ResNetGenerator
from ganvas.training.fabric import compile_network
from ganvas.training.optimizer import Adam

Batch = dict[str, Tensor]
Step = Callable[[Batch], object]
NAMES = ("G_ab", "G_ba", "D_a", "D_b")


def make_batch(batch_size: int, image_size: int, device: str) -> Batch:
    """Make images of noise in both domains."""
    chance = torch.Generator().manual_seed(0)
    shape = (batch_size, 3, image_size, image_size)
    return {name: torch.rand(shape, generator=chance).mul(2).sub(1).to(device) for name in ("a", "b")}


class PlainBlock(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(256, 256, 3),
            nn.InstanceNorm2d(256),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(256, 256, 3),
            nn.InstanceNorm2d(256),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's output to its input."""
        return x + self.body(x)


def plain_generator(image_size: int) -> nn.Module:
    """Build the ResNet of torch's own layers: 9 blocks, 6 up to 128 pixels."""
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, 64, 7), nn.InstanceNorm2d(64), nn.ReLU()]
    for before, after in ((64, 128), (128, 256)):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.InstanceNorm2d(after), nn.ReLU()]
    layers += [PlainBlock() for _ in range(_blocks(image_size))]
    for before, after in ((256, 128), (128, 64)):
        layers += [nn.ConvTranspose2d(before, after, 3, 2, 1, 1), nn.InstanceNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(64, 3, 7), nn.Tanh())


def _blocks(image_size: int) -> int:
    return 6 if image_size <= 128 else 9


def plain_patchgan() -> nn.Module:
    """Build the 70x70 PatchGAN of torch's own layers."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, 2, 1), nn.LeakyReLU(0.2)]
    for before, after, stride in ((64, 128, 2), (128, 256, 2), (256, 512, 1)):
        layers += [nn.Conv2d(before, after, 4, stride, 1), nn.InstanceNorm2d(after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 4, 1, 1))


class PlainPool:
    """Fifty earlier fakes, in a list."""

    def __init__(self) -> None:
        self.pictures: list[Tensor] = []

    def __call__(self, batch: Tensor) -> Tensor:
        """Give images for D."""
        given = []
        for picture in batch:
            if len(self.pictures) < 50:
                self.pictures.append(picture)
                given.append(picture)
            elif random.random() < 0.5:
                place = random.randrange(50)
                given.append(self.pictures[place])
                self.pictures[place] = picture
            else:
                given.append(picture)
        return torch.stack(given)


def plain_step(device: str, image_size: int) -> Step:
    """Make the step a textbook would write."""
    G_ab, G_ba = (plain_generator(image_size).to(device) for _ in range(2))
    D_a, D_b = (plain_patchgan().to(device) for _ in range(2))
    for network in (G_ab, G_ba, D_a, D_b):
        initialize_weights(network)
    both_g, both_d = (itertools.chain(x.parameters(), y.parameters()) for x, y in ((G_ab, G_ba), (D_a, D_b)))
    adam_g = torch.optim.Adam(both_g, lr=2e-4, betas=(0.5, 0.999))
    adam_d = torch.optim.Adam(both_d, lr=2e-4, betas=(0.5, 0.999))
    pools = {"a": PlainPool(), "b": PlainPool()}

    def judge(scores: Tensor, real: bool) -> Tensor:
        return F.mse_loss(scores, torch.full_like(scores, float(real)))

    def step(batch: Batch) -> object:
        a, b = batch["a"], batch["b"]
        for discriminator in (D_a, D_b):
            discriminator.requires_grad_(False)
        fake_b, fake_a = G_ab(a), G_ba(b)
        cycle = F.l1_loss(G_ba(fake_b), a) + F.l1_loss(G_ab(fake_a), b)
        identity = F.l1_loss(G_ba(a), a) + F.l1_loss(G_ab(b), b)
        loss_g = judge(D_b(fake_b), True) + judge(D_a(fake_a), True) + 10 * cycle + 5 * identity
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        adam_d.zero_grad()
        for domain, D, real, fake in (("a", D_a, a, fake_a), ("b", D_b, b, fake_b)):
            D.requires_grad_(True)
            loss_d = 0.5 * (judge(D(real), True) + judge(D(pools[domain](fake.detach())), False))
            loss_d.backward()
        adam_d.step()
        return loss_g

    return step


def our_step(device: str, image_size: int, *, compiled: bool = False) -> Step:
    """Make the product's step at its default precision, set up as the training sets it up."""
    networks: list[nn.Module] = [ResNetGenerator(num_blocks=_blocks(image_size)) for _ in range(2)]
    networks += [PatchDiscriminator(3, norm="instance") for _ in range(2)]
    adams = {}
    for name, network in zip(NAMES, networks, strict=True):
        initialize_weights(network)
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        adams[name] = Adam(network.named_parameters(), 2e-4)
    called = [compile_network(network) if compiled else network for network in networks]
    pools = (ImagePool(50, (3, image_size, image_size)).to(device) for _ in range(2))
    bf16 = choose_precision("auto", device) == "bf16"
    update = CycleGanStep(Networks(*called), adams, *pools, bf16=bf16)
    return lambda batch: update({name: x.to(memory_format=torch.channels_last) for name, x in batch.items()})


def flops_per_image(image_size: int) -> float:
    """Count a step's work: six passes of G, trained; D trained on real and fake of both domains, and passed through."""
    counts = []
    x = torch.zeros(1, 3, image_size, image_size, device="meta")
    with torch.device("meta"):
        for network in (ResNetGenerator(num_blocks=_blocks(image_size)), PatchDiscriminator(3, norm="instance")):
            with FlopCounterMode(display=False) as counter:
                network(x)
            counts.append(counter.get_total_flops())
    G, D = counts
    return float(6 * 3 * G + 2 * (2 * 3 * D + 2 * D))
