"""CycleGAN's step, plain and ours, and that of CUT, for `benchmarks.train_step`.

The plain step is written from Zhu et al. 2017 with torch's own layers: float32, contiguous memory, ``torch.optim.Adam``
over both generators and both discriminators, identity loss, pools of 50, each pass on its own.
"""

import random
from dataclasses import replace

import torch
from lightning_fabric import Fabric
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
from cyclegan.config import CycleGanConfig, Objective, preset
from cyclegan.cut_step import CutStep
from cyclegan.networks import build_networks, discriminator_names, generator_names, generator_specs
from cyclegan.pool import ImagePool
from cyclegan.step import CycleGanStep, Networks
from cyclegan.trainer import build_cut_step, build_cycle_step
from ganvas.nn.init import initialize_weights
from ganvas.nn.patchgan import PatchDiscriminator
from ganvas.nn.resnet import ResNetGenerator
from ganvas.training.trainer import GanNetworks

NAMES = ("G_ab", "G_ba", "D_a", "D_b")


def make_batch(batch_size: int, image_size: int, device: str) -> Batch:
    """Make images of noise in both domains."""
    return noise_batch(("a", "b"), (batch_size, 3, image_size, image_size), device)


class PlainBlock(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        first, second = ([nn.ReflectionPad2d(1), nn.Conv2d(256, 256, 3), nn.InstanceNorm2d(256)] for _ in range(2))
        self.body = nn.Sequential(*first, nn.ReLU(), *second)

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's output to its input."""
        return x + self.body(x)


def plain_generator(image_size: int) -> nn.Module:
    """Build the ResNet of torch's own layers: 9 blocks, 6 up to 128 pixels."""
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, 64, 7), nn.InstanceNorm2d(64), nn.ReLU()]
    for inner, outer in ((64, 128), (128, 256)):
        layers += [nn.Conv2d(inner, outer, 3, 2, 1), nn.InstanceNorm2d(outer), nn.ReLU()]
    layers += [PlainBlock() for _ in range(_blocks(image_size))]
    for inner, outer in ((256, 128), (128, 64)):
        layers += [nn.ConvTranspose2d(inner, outer, 3, 2, 1, 1), nn.InstanceNorm2d(outer), nn.ReLU()]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(64, 3, 7), nn.Tanh())


def _blocks(image_size: int) -> int:
    return 6 if image_size <= 128 else 9


class PlainPool:
    """Fifty earlier fakes, in a list."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []

    def __call__(self, batch: Tensor) -> Tensor:
        """Return images for D."""
        returned = []
        for image in batch:
            if len(self.images) < 50:
                self.images.append(image)
            elif random.random() < 0.5:
                index = random.randrange(50)
                image, self.images[index] = self.images[index], image
            returned.append(image)
        return torch.stack(returned)


def plain_step(device: str, image_size: int) -> Step:
    """Build the textbook step."""
    G_ab, G_ba = (plain_generator(image_size).to(device) for _ in range(2))
    D_a, D_b = (plain_patchgan(3, nn.InstanceNorm2d, bias=True).to(device) for _ in range(2))
    for network in (G_ab, G_ba, D_a, D_b):
        initialize_weights(network)
    adam_g, adam_d = plain_adam(G_ab, G_ba), plain_adam(D_a, D_b)
    pools = {"a": PlainPool(), "b": PlainPool()}

    def gan_loss(scores: Tensor, real: bool) -> Tensor:
        return F.mse_loss(scores, torch.full_like(scores, float(real)))

    def step(batch: Batch) -> object:
        a, b = batch["a"], batch["b"]
        for discriminator in (D_a, D_b):
            discriminator.requires_grad_(False)
        fake_b, fake_a = G_ab(a), G_ba(b)
        cycle = F.l1_loss(G_ba(fake_b), a) + F.l1_loss(G_ab(fake_a), b)
        identity = F.l1_loss(G_ba(a), a) + F.l1_loss(G_ab(b), b)
        loss_g = gan_loss(D_b(fake_b), True) + gan_loss(D_a(fake_a), True) + 10 * cycle + 5 * identity
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        adam_d.zero_grad()
        for domain, D, real, fake in (("a", D_a, a, fake_a), ("b", D_b, b, fake_b)):
            D.requires_grad_(True)
            loss_d = 0.5 * (gan_loss(D(real), True) + gan_loss(D(pools[domain](fake.detach())), False))
            loss_d.backward()
        adam_d.step()
        return loss_g

    return step


def our_step(device: str, image_size: int, *, compiled: bool = False) -> Step:
    """Build ganvas's step at its default precision."""
    networks: list[nn.Module] = [ResNetGenerator(num_blocks=_blocks(image_size)) for _ in range(2)]
    networks += [PatchDiscriminator(3, norm="instance") for _ in range(2)]
    for network in networks:
        initialize_weights(network)
    called, adams, bf16 = set_up(networks, device, compiled=compiled)
    pools = (ImagePool(50, (3, image_size, image_size), device) for _ in range(2))
    update = CycleGanStep(Networks(*called), dict(zip(NAMES, adams, strict=True)), *pools, bf16=bf16)
    return lambda batch: update(channels_last(batch))


def contrastive_step(objective: Objective, device: str, image_size: int, *, compiled: bool = False) -> Step:
    """Build ganvas's step of CUT or FastCUT, with the networks of their presets."""
    config = preset("cut" if objective == "cut" else "fastcut")
    data, hardware = replace(config.data, image_size=image_size), replace(config.hardware, compile=compiled)
    update = configured_step(replace(config, data=data, hardware=hardware), device)
    return lambda batch: update(channels_last(batch))


def configured_step(config: CycleGanConfig, device: str = "cpu") -> CycleGanStep | CutStep:
    """Build the step of a training's options, as the trainer does."""
    networks = GanNetworks(
        Fabric(accelerator=device, devices=1),
        build_networks(config, generator_specs(config, "a", "b")),
        {str(direction): network for direction, network in generator_names(config).items()},
        config.optimizer,
        config.hardware,
        discriminators=discriminator_names(config).values(),
    )
    if config.model.objective != "cycle":
        return build_cut_step(config, networks)
    shape = 3, config.data.image_size, config.data.image_size
    pools = {pool: ImagePool(config.model.pool_size, shape, device) for pool in ("pool_a", "pool_b")}
    return build_cycle_step(config, networks, pools)


def contrastive_flops_per_image(objective: Objective, image_size: int) -> float:
    """Count a step's work: G and its encoder, trained, for one image or with identity two; D as in `flops_per_image`.

    FastCUT's encoder also sees every second source as it was, without gradients.
    """
    with torch.device("meta"):
        network = ResNetGenerator(resampling="blur")
        G = forward_flops(network, 1, 3, image_size, image_size)
        encoder = forward_flops(network.layers[: network.feature_layers[-1] + 1], 1, 3, image_size, image_size)
        D = forward_flops(PatchDiscriminator(3, norm="instance", resampling="blur"), 1, 3, image_size, image_size)
    images, upright = (2, 0.0) if objective == "cut" else (1, 0.5)
    return float(images * 3 * (G + encoder) + upright * encoder + 2 * 3 * D + 2 * D)


def flops_per_image(image_size: int) -> float:
    """Count a step's work: six passes of G, trained; D trained on real and fake of both domains, and passed through."""
    with torch.device("meta"):
        G = forward_flops(ResNetGenerator(num_blocks=_blocks(image_size)), 1, 3, image_size, image_size)
        D = forward_flops(PatchDiscriminator(3, norm="instance"), 1, 3, image_size, image_size)
    return float(6 * 3 * G + 2 * (2 * 3 * D + 2 * D))
