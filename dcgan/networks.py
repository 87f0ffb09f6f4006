"""Generators and discriminators of digits, from the MLP GAN to the DCGAN.

Five presets are the networks of five tutorials (in Chinese, for Keras and TensorFlow), layer by layer; "dcgan" is ours.

    mlp              dense layers (Goodfellow et al. 2014); its tutorial links Keras-GAN
    conditional      the same, conditioned on the label (Mirza and Osindero 2014)
    dcgan-upsample   nearest-neighbor upsampling, then 4x4 convolutions
    dcgan-transpose  3x3 transposed convolutions
    dcgan-5x5        5x5 transposed convolutions, no norm: the one that collapses (docs/collapse.md)
    dcgan            ours, of the shared layers: stride-2 4x4, LeakyReLU 0.2, batch norm (Radford et al. 2016)

The tutorials' batch norm is that of Keras: eps 1e-3, momentum 0.99. The total of parameters that Keras prints includes
its running statistics; see `keras_total`.

Letters in shape comments: N images, C channels, S pixels a side, K classes.
"""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcgan.config import Preset
from dcgan.layers import SameConv2d, SameConvTranspose2d
from ganvas.nn.init import initialize_weights
from ganvas.nn.layers import LEAKY_SLOPE, BatchNorm2d, DownBlock, UpBlock, make_upsampling

Norm = Literal["batch", "none"]
Init = Literal["normal", "glorot", "truncated-normal"]

TUTORIAL_SIZE = 28  # pixels, MNIST's: the only size of the tutorials' networks


class Generator(nn.Module):
    """Draws images from noise.

    Args:
        body: [N, latent_dim] (with ``join``: [N, latent_dim + K]) to images [N, C, S, S] in [-1, 1].
        latent_dim: Length of z.
        num_classes: K; 0 for a model without labels.
        label: How labels are used. "product" multiplies z by a learned vector of the class (the tutorials), "join"
            appends the one-hot label to z (Mirza and Osindero 2014, Sec. 3.2).
    """

    def __init__(
        self, body: nn.Module, latent_dim: int, *, num_classes: int = 0, label: Literal["product", "join"] = "join"
    ) -> None:
        super().__init__()
        self.body = body
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.embedding = nn.Embedding(num_classes, latent_dim) if num_classes and label == "product" else None

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map noise z [N, latent_dim] and labels [N] int64, for a model with classes, to [N, C, S, S] in [-1, 1]."""
        labels = _required(labels, self.num_classes)
        if labels is not None and self.embedding is not None:
            z = z * self.embedding(labels)  # [N, latent_dim]
        elif labels is not None:
            z = torch.cat([z, F.one_hot(labels, self.num_classes).to(z.dtype)], dim=1)  # [N, latent_dim + K]
        return self.body(z)


class Discriminator(nn.Module):
    """Scores images.

    Args:
        features: [N, C, S, S] to [N, width]; the convolutions, if any.
        head: [N, width] to logits [N, 1].
        num_classes: K; 0 for a model without labels.
        label: How labels are used. "product" multiplies the image by a learned image of the class (the tutorials),
            "projection" adds the inner product of the features and a learned vector of the class to the logit (Miyato
            and Koyama 2018, Eq. 3).
        width: Width of the features, for "projection", or number of values of an image, for "product".
    """

    def __init__(
        self,
        features: nn.Sequential,
        head: nn.Module,
        *,
        num_classes: int = 0,
        label: Literal["product", "projection"] = "projection",
        width: int = 0,
    ) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.num_classes = num_classes
        self.label = label
        self.embedding = nn.Embedding(num_classes, width) if num_classes else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images x [N, C, S, S] and labels [N] int64, for a model with classes, to logits [N], high for real."""
        labels = _required(labels, self.num_classes)
        embedded = self.embedding(labels) if labels is not None and self.embedding is not None else None
        if embedded is not None and self.label == "product":
            x, embedded = x * embedded.view_as(x), None
        features = self.features(x)  # [N, width]
        logits = self.head(features)[:, 0]
        return logits if embedded is None else logits + (features * embedded).sum(dim=1)


def _required(labels: Tensor | None, num_classes: int) -> Tensor | None:
    if num_classes and labels is None:
        raise ValueError(f"this network has {num_classes} classes and needs labels")
    return labels if num_classes else None


def build_networks(
    preset: Preset = "dcgan",
    *,
    image_size: int = 28,
    channels: int = 1,
    num_classes: int = 0,
    latent_dim: int = 100,
    norm: Norm | None = None,
    base_channels: int | None = None,
    extra_layers: int = 0,
) -> tuple[Generator, Discriminator]:
    """Build a preset's networks with torch's default initialization (see `init_weights`).

    Args:
        preset: Name of the networks.
        image_size: S; 28, and 16, 32, 64 or 128 for "dcgan".
        channels: C; 1, and any number for "dcgan".
        num_classes: K; required by "conditional", optional for "dcgan", 0 for all others.
        latent_dim: Length of z.
        norm: "batch" or "none"; by default the preset's own.
        base_channels: Filters of the last hidden layer of "dcgan" (64) or of the first of "dcgan-5x5" (64).
        extra_layers: Additional stride-1 layers in the generator of "dcgan-5x5", its tutorial's exercise.

    Raises:
        ValueError: The preset does not support these values.

    Example:
        >>> generator, discriminator = build_networks("dcgan-5x5")
        >>> images = generator(torch.randn(4, 100))
        >>> images.shape, discriminator(images).shape
        (torch.Size([4, 1, 28, 28]), torch.Size([4]))
    """
    if extra_layers and preset != "dcgan-5x5":
        raise ValueError(f"only dcgan-5x5 takes extra_layers, got {extra_layers}")
    if preset == "dcgan":
        return _dcgan(image_size, channels, num_classes, latent_dim, norm or "batch", base_channels or 64)
    if (image_size, channels) != (TUTORIAL_SIZE, 1):
        raise ValueError(f"{preset} draws 28 x 28 gray images, not {image_size} x {image_size} with {channels}")
    if bool(num_classes) != (preset == "conditional"):
        raise ValueError(f"{preset} {'needs' if preset == 'conditional' else 'takes no'} classes, got {num_classes}")
    if preset != "dcgan-5x5" and base_channels is not None:
        raise ValueError(f"{preset} has filters of its own, got base_channels {base_channels}")
    if preset in ("mlp", "conditional"):
        return _mlp(num_classes, latent_dim, norm or "batch")
    if preset == "dcgan-upsample":
        return _dcgan_upsample(latent_dim, norm or "batch")
    if preset == "dcgan-transpose":
        return _dcgan_transpose(latent_dim, norm or "batch")
    return _dcgan_5x5(latent_dim, norm or "none", base_channels or 64, extra_layers)


def _dcgan(
    image_size: int, channels: int, num_classes: int, latent_dim: int, norm: Norm, base_channels: int
) -> tuple[Generator, Discriminator]:
    """Build ours: all layers but the first and the last are shared stride-2 4x4 blocks (Radford et al. 2016, Sec. 3).

    Our choice: down to 3 x 3 (28 pixels) or 4 x 4, in both networks. With 7 x 7, as in the tutorials, a single dense
    layer would be responsible for the shape of a digit: after 2,814 steps on MNIST the Fréchet distance was 3.2 instead
    of 1.1.
    """
    sizes = stage_sizes(image_size)  # from the image to the innermost maps
    widths = [base_channels * 2**level for level in range(len(sizes) - 1)]  # of the hidden maps
    start, middle = sizes[-1], widths[-1] * sizes[-1] ** 2
    generator = nn.Sequential(
        nn.Linear(latent_dim + num_classes, middle, bias=norm == "none"),
        nn.Unflatten(1, (widths[-1], start, start)),  # [N, widest, start, start]
        _batch_norm(widths[-1], norm, keras=False),
        *(
            UpBlock(widths[level], widths[level - 1], norm=norm, odd=bool(sizes[level] % 2))
            for level in range(len(widths) - 1, 0, -1)
        ),  # [N, base_channels, S / 2, S / 2]
        nn.ReLU(inplace=True),
        make_upsampling(widths[0], channels, upsampling="transpose", bias=True),  # [N, C, S, S]
        nn.Tanh(),
    )
    features = nn.Sequential(
        DownBlock(channels, widths[0], norm="none"),  # no norm at the input (Sec. 3)
        *(DownBlock(narrow, wide, norm=norm) for narrow, wide in pairwise(widths)),
        nn.Flatten(),  # [N, widest * start * start]
    )
    return (
        Generator(generator, latent_dim, num_classes=num_classes, label="join"),
        Discriminator(features, nn.Linear(middle, 1), num_classes=num_classes, label="projection", width=middle),
    )


def stage_sizes(image_size: int) -> list[int]:
    """Return the map sizes of "dcgan" from the image inwards, halved each time: 28, 14, 7, 3 or …, 8, 4.

    Raises:
        ValueError: The image size is not supported.
    """
    if image_size not in (16, 28, 32, 64, 128):
        raise ValueError(f"image_size is {image_size}; allowed are 28, 16, 32, 64 and 128")
    sizes = [image_size]
    while sizes[-1] > 4:
        sizes.append(sizes[-1] // 2)
    return sizes


def _mlp(num_classes: int, latent_dim: int, norm: Norm) -> tuple[Generator, Discriminator]:
    """Build the networks of tutorials 001 and 002; 562,704 and 1,460,225 parameters without labels.

    001's code is lost. Our choices, after Keras-GAN, which it links: LeakyReLU 0.2 before each norm, dropout 0.4, norm
    momentum 0.8. With Keras's default of 0.99 the running statistics, with which D's fakes are drawn, lag behind: D is
    trained on other images than G, and some labels remain noise.
    """
    pixels = TUTORIAL_SIZE**2
    generator = nn.Sequential(
        nn.Linear(latent_dim, 256),
        nn.LeakyReLU(LEAKY_SLOPE),
        _batch_norm_1d(256, norm),
        nn.Linear(256, 512),
        nn.LeakyReLU(LEAKY_SLOPE),
        _batch_norm_1d(512, norm),
        nn.Linear(512, pixels),
        nn.Tanh(),
        nn.Unflatten(1, (1, TUTORIAL_SIZE, TUTORIAL_SIZE)),  # [N, 1, 28, 28]
    )
    hidden = nn.Sequential(
        *(nn.Sequential(nn.Linear(before, after), nn.LeakyReLU(LEAKY_SLOPE), nn.Dropout(0.4))
          for before, after in ((pixels, 1024), (1024, 512), (512, 256))),
        nn.Linear(256, 1),
    )  # fmt: skip
    return (
        Generator(generator, latent_dim, num_classes=num_classes, label="product"),
        Discriminator(nn.Sequential(nn.Flatten()), hidden, num_classes=num_classes, label="product", width=pixels),
    )


def _dcgan_upsample(latent_dim: int, norm: Norm) -> tuple[Generator, Discriminator]:
    """Build the networks of tutorial 000: upsample, then convolve; 1,028,673 and 690,273 parameters."""
    generator = nn.Sequential(
        nn.Linear(latent_dim, 7 * 7 * 128),
        nn.ReLU(),
        nn.Unflatten(1, (128, 7, 7)),
        nn.Upsample(scale_factor=2, mode="nearest"),
        SameConv2d(128, 128, kernel=4),
        nn.ReLU(),
        _batch_norm(128, norm),  # [N, 128, 14, 14]
        nn.Upsample(scale_factor=2, mode="nearest"),
        SameConv2d(128, 64, kernel=4),
        nn.ReLU(),
        _batch_norm(64, norm),  # [N, 64, 28, 28]
        SameConv2d(64, 1, kernel=4),
        nn.Tanh(),
    )
    features = nn.Sequential(
        SameConv2d(1, 32, kernel=4, stride=2),
        nn.ReLU(),
        _batch_norm(32, norm),  # [N, 32, 14, 14]
        SameConv2d(32, 64, kernel=4, stride=2),
        nn.ReLU(),
        _batch_norm(64, norm),  # [N, 64, 7, 7]
        SameConv2d(64, 128, kernel=4, stride=2),
        nn.ReLU(),
        _batch_norm(128, norm),  # [N, 128, 4, 4]
        nn.Flatten(),
    )
    head = nn.Sequential(nn.Linear(2048, 256), nn.ReLU(), nn.Dropout(0.25), nn.Linear(256, 1))
    return Generator(generator, latent_dim), Discriminator(features, head)


def _dcgan_transpose(latent_dim: int, norm: Norm) -> tuple[Generator, Discriminator]:
    """Build the networks of tutorial 003: 3x3 transposed convolutions, LeakyReLU 0.01; 1,637,121 and 95,489 parameters.

    According to its text the discriminator ends in 3 x 3 x 128; its code, and this, in 4 x 4 x 128.
    """
    slope = 0.01
    generator = nn.Sequential(
        nn.Linear(latent_dim, 7 * 7 * 256),
        nn.Unflatten(1, (256, 7, 7)),
        SameConvTranspose2d(256, 128, kernel=3, stride=2, output_size=14),
        _batch_norm(128, norm),
        nn.LeakyReLU(slope),
        SameConvTranspose2d(128, 64, kernel=3, stride=1, output_size=14),
        _batch_norm(64, norm),
        nn.LeakyReLU(slope),
        SameConvTranspose2d(64, 1, kernel=3, stride=2, output_size=28),
        nn.Tanh(),
    )
    features = nn.Sequential(
        SameConv2d(1, 32, kernel=3, stride=2),
        nn.LeakyReLU(slope),  # [N, 32, 14, 14]
        SameConv2d(32, 64, kernel=3, stride=2),
        _batch_norm(64, norm),
        nn.LeakyReLU(slope),  # [N, 64, 7, 7]
        SameConv2d(64, 128, kernel=3, stride=2),
        _batch_norm(128, norm),
        nn.LeakyReLU(slope),  # [N, 128, 4, 4]
        nn.Flatten(),
    )
    return Generator(generator, latent_dim), Discriminator(features, nn.Linear(2048, 1))


def _dcgan_5x5(latent_dim: int, norm: Norm, base_channels: int, extra_layers: int) -> tuple[Generator, Discriminator]:
    """Build the networks of tutorial 004: 5x5 kernels, ReLU in both, no norm; 167,873 and 55,233 parameters.

    Its exercises are more layers and other channel counts: ``extra_layers`` are stride-1 transposed convolutions at
    4 x 4, ``base_channels`` is the generator's width there (64), which is halved with each upsampling.
    """
    wide, middle, narrow = base_channels, base_channels // 2, base_channels // 4
    extra: list[nn.Module] = []
    for _ in range(extra_layers):
        layer = SameConvTranspose2d(wide, wide, kernel=5, stride=1, output_size=4)
        extra += [layer, _batch_norm(wide, norm), nn.ReLU()]
    generator = nn.Sequential(
        nn.Linear(latent_dim, 4 * 4 * wide),
        nn.ReLU(),
        nn.Unflatten(1, (wide, 4, 4)),
        *extra,
        SameConvTranspose2d(wide, middle, kernel=5, stride=2, output_size=7),
        _batch_norm(middle, norm),
        nn.ReLU(),
        SameConvTranspose2d(middle, narrow, kernel=5, stride=2, output_size=14),
        _batch_norm(narrow, norm),
        nn.ReLU(),
        SameConvTranspose2d(narrow, 1, kernel=5, stride=2, output_size=28),
        nn.Tanh(),
    )
    features = nn.Sequential(
        SameConv2d(1, 32, kernel=5, stride=2),
        nn.ReLU(),  # [N, 32, 14, 14]; no norm at the input
        SameConv2d(32, 64, kernel=5, stride=2),
        _batch_norm(64, norm),
        nn.ReLU(),  # [N, 64, 7, 7]
        nn.Flatten(),
    )
    return Generator(generator, latent_dim), Discriminator(features, nn.Linear(3136, 1))


def _batch_norm(channels: int, norm: Norm, *, keras: bool = True) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    return BatchNorm2d(channels, eps=1e-3, momentum=0.01) if keras else BatchNorm2d(channels)


def _batch_norm_1d(channels: int, norm: Norm) -> nn.Module:
    return nn.Identity() if norm == "none" else nn.BatchNorm1d(channels, eps=1e-3, momentum=0.2)


@torch.no_grad()
def init_weights(network: nn.Module, init: Init, generator: torch.Generator) -> None:
    """Initialize all weights, in place.

    Embeddings are U(-0.05, 0.05), as in Keras, except those of a projection for "normal", which are 0: labels have no
    influence at first. (A product with 0 would have no gradient.)

    Args:
        network: A generator or a discriminator.
        init: "normal" is N(0, 0.02) (Radford et al. 2016, Sec. 4). "glorot" is Keras's default: uniform as in Glorot
            and Bengio 2010, Eq. 16, biases 0. "truncated-normal" is tutorial 004's: N(0, 0.1) truncated at two standard
            deviations, biases 0.1.
        generator: Random number generator.
    """
    if init == "normal":
        initialize_weights(network, "normal", generator=generator)
    projects = isinstance(network, Discriminator) and network.label == "projection"
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            bound = 0.0 if init == "normal" and projects else 0.05
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
        if init == "normal" or not isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            continue
        if init == "glorot":
            nn.init.xavier_uniform_(module.weight, generator=generator)
        else:
            nn.init.trunc_normal_(module.weight, std=0.1, a=-0.2, b=0.2, generator=generator)
        if module.bias is not None:
            nn.init.constant_(module.bias, 0.0 if init == "glorot" else 0.1)


def keras_total(network: nn.Module) -> int:
    """Return the number of parameters that Keras prints, which includes the running statistics of batch norm."""
    running = sum(b.numel() for name, b in network.named_buffers() if name.endswith(("running_mean", "running_var")))
    return sum(p.numel() for p in network.parameters()) + running
