"""The digit GAN's step, plain and ours, for `benchmarks.train_step`; and its loader.

The plain step is written from Radford et al. 2016 with torch's own layers: float32, contiguous memory,
``torch.optim.Adam``, binary cross-entropy; D sees real and fake in two passes, G then passes through D once more.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmarks.step_tools import Batch, Step, channels_last, forward_flops, noise_batch, plain_adam, set_up
from dcgan.data import ImageSet, ImageSetDataset
from dcgan.networks import build_networks, init_weights
from dcgan.step import DcganStep
from ganvas.data.sampling import ResumableBatchSampler


def make_batch(batch_size: int, image_size: int, device: str) -> Batch:
    """Make gray images of noise."""
    return noise_batch(("image",), (batch_size, 1, image_size, image_size), device)


def loaded_batches(batch_size: int, image_size: int, steps: int) -> Iterator[Batch]:
    """Load batches as a training on all of MNIST does: 60,000 images in memory as uint8."""
    pixels = torch.randint(0, 256, (60_000, 1, image_size, image_size), dtype=torch.uint8)
    data = ImageSet(pixels, torch.zeros(60_000, dtype=torch.int64), tuple("0123456789"), "noise", "")
    sampler = ResumableBatchSampler(60_000, batch_size, seed=0, stop_step=steps)
    return iter(DataLoader(ImageSetDataset(data, "signed"), batch_sampler=sampler))


def plain_networks(image_size: int) -> tuple[nn.Module, nn.Module]:
    """Build the networks of ``--preset dcgan`` for 28 pixels with torch's own layers."""
    if image_size != 28:
        raise ValueError("the plain networks are written for 28 pixels")
    G = nn.Sequential(
        nn.Linear(100, 3 * 3 * 256, bias=False),
        nn.Unflatten(1, (256, 3, 3)),
        nn.BatchNorm2d(256),
        nn.ReLU(),
        nn.ConvTranspose2d(256, 128, 4, 2, 1, output_padding=1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 1, 4, 2, 1),
        nn.Tanh(),
    )
    D = nn.Sequential(
        nn.Conv2d(1, 64, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 4, 2, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.LeakyReLU(0.2),
        nn.Conv2d(128, 256, 4, 2, 1, bias=False),
        nn.BatchNorm2d(256),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(3 * 3 * 256, 1),
    )
    return G, D


def plain_step(device: str, image_size: int) -> Step:
    """Build the textbook step."""
    G, D = (network.to(device) for network in plain_networks(image_size))
    adam_g, adam_d = plain_adam(G), plain_adam(D)

    def gan_loss(logits: Tensor, real: bool) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))

    def step(batch: Batch) -> object:
        real = batch["image"]
        fake = G(torch.randn(len(real), 100, device=device))
        adam_d.zero_grad()
        loss_d = gan_loss(D(real), True) + gan_loss(D(fake.detach()), False)
        loss_d.backward()
        adam_d.step()
        adam_g.zero_grad()
        loss_g = gan_loss(D(fake), True)
        loss_g.backward()
        adam_g.step()
        return loss_d, loss_g

    return step


def our_step(device: str, image_size: int, *, compiled: bool = False) -> Step:
    """Build ganvas's step at its default precision, without the average of G."""
    networks = list(build_networks("dcgan", image_size=image_size))
    for network in networks:
        init_weights(network, "normal", torch.Generator().manual_seed(0))
    (G, D), (adam_g, adam_d), bf16 = set_up(networks, device, compiled=compiled)
    update = DcganStep(G, D, adam_g, adam_d, bf16=bf16)
    return lambda batch: update(channels_last(batch))


def flops_per_image(image_size: int) -> float:
    """Count a step's work: G forward and backward, D trained on real and fake, D passed through for G."""
    with torch.device("meta"):
        networks = build_networks("dcgan", image_size=image_size)
        G, D = forward_flops(networks[0], 2, 100) / 2, forward_flops(networks[1], 2, 1, image_size, image_size) / 2
    return float(3 * G + 2 * 3 * D + 2 * D)
