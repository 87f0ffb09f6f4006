"""The digit GAN's step, plain and ours, for `benchmarks.train_step`; and its loader.

The plain step is what anyone writes from Radford et al. 2016 with torch's own layers: float32, contiguous memory,
``torch.optim.Adam``, binary cross-entropy; D sees real and fake in two passes, G then passes through D once more.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from dcgan.data import PictureDataset, Pictures
from dcgan.networks import build_networks, init_weights
from dcgan.step import DcganStep
from ganvas.data.sampling import ResumableBatchSampler
from ganvas.device import choose_precision
from ganvas.training.fabric import compile_network
from ganvas.training.optimizer import Adam

Batch = dict[str, Tensor]
Step = Callable[[Batch], object]


def make_batch(batch_size: int, image_size: int, device: str) -> Batch:
    """Make gray images of noise."""
    chance = torch.Generator().manual_seed(0)
    shape = (batch_size, 1, image_size, image_size)
    return {"picture": torch.rand(shape, generator=chance).mul(2).sub(1).to(device)}


def loaded_batches(batch_size: int, image_size: int, steps: int) -> Iterator[Batch]:
    """Load batches as a training on all of MNIST does: 60,000 images in memory as uint8."""
    pixels = torch.randint(0, 256, (60_000, 1, image_size, image_size), dtype=torch.uint8)
    data = Pictures(pixels, torch.zeros(60_000, dtype=torch.int64), tuple("0123456789"), "noise", "")
    sampler = ResumableBatchSampler(60_000, batch_size, seed=0, stop_step=steps)
    return iter(DataLoader(PictureDataset(data, "signed"), batch_sampler=sampler))


def plain_networks(image_size: int) -> tuple[nn.Module, nn.Module]:
    """Build the networks of ``--preset dcgan`` for 28 pixels of torch's own layers."""
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
    """Make the step a textbook would write."""
    G, D = (network.to(device) for network in plain_networks(image_size))
    adam_g = torch.optim.Adam(G.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_d = torch.optim.Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def judge(logits: Tensor, real: bool) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))

    def step(batch: Batch) -> object:
        real = batch["picture"]
        fake = G(torch.randn(len(real), 100, device=device))
        adam_d.zero_grad()
        loss_d = judge(D(real), True) + judge(D(fake.detach()), False)
        loss_d.backward()
        adam_d.step()
        adam_g.zero_grad()
        loss_g = judge(D(fake), True)
        loss_g.backward()
        adam_g.step()
        return loss_d, loss_g

    return step


def our_step(device: str, image_size: int, *, compiled: bool = False) -> Step:
    """Make the product's step at its default precision, in the training's memory layout; without the average of G."""
    adams = []
    networks = build_networks("dcgan", image_size=image_size)
    for network in networks:
        init_weights(network, "normal", torch.Generator().manual_seed(0))
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        adams.append(Adam(network.named_parameters(), 2e-4))
    called = [compile_network(network) if compiled else network for network in networks]
    update = DcganStep(called[0], called[1], adams[0], adams[1], bf16=choose_precision("auto", device) == "bf16")
    return lambda batch: update({name: x.to(memory_format=torch.channels_last) for name, x in batch.items()})


def flops_per_image(image_size: int) -> float:
    """Count a step's work: G forward and backward, D trained on real and fake, D passed through for G."""
    counts = []
    with torch.device("meta"):
        G, D = build_networks("dcgan", image_size=image_size)
        for network, x in ((G, torch.zeros(2, 100)), (D, torch.zeros(2, 1, image_size, image_size))):
            with FlopCounterMode(display=False) as counter:
                network(x)
            counts.append(counter.get_total_flops() / 2)
    return float(3 * counts[0] + 2 * 3 * counts[1] + 2 * counts[1])
