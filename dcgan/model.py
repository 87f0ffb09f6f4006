"""The digit model: its folder, and the sampler that draws from it."""

import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from dcgan.config import Preset
from dcgan.data import PixelRange, to_uint8
from dcgan.networks import Generator, Norm, build_networks
from dcgan.step import Latent, draw_latents
from ganvas.errors import UserError
from ganvas.messages import shorten
from ganvas.models.folder import (
    CONFIG,
    at_checkpoint,
    build_empty,
    find_model,
    load_weights,
    local_model,
    read_config,
    read_model,
    read_weights,
    save_model,
)
from ganvas.options import STRICT, Channels, Side

GENERATOR = "generator"
MAX_CLASSES = 100_000
MAX_LATENT_DIM = 100_000


@dataclass(frozen=True)
class DigitModelConfig:
    """The config.json of a digit model: the generator's architecture, and its training data.

    Attributes:
        preset: Name of the networks.
        image_size: Pixels a side.
        channels: 1 is gray, 3 is color.
        num_classes: 0 for a model without labels.
        latent_dim: Length of z.
        latent: Distribution of z.
        norm: Norm of the generator.
        base_channels: Filters, if not the preset's own.
        extra_layers: As in `dcgan.networks.build_networks`.
        pixel_range: Range of the generator's outputs.
        classes: Names of the data's classes, also of a model without labels.
        data: Name of the dataset or of its folder.
        data_digest: Digest of the training images.
        training: Step and metrics.
        custom_class: Class of a generator of the user's own; "" for the preset's.
        weights_sha256: Digest of the weights that belong to this file.
    """

    __pydantic_config__ = STRICT

    preset: Preset
    image_size: Side
    channels: Channels
    num_classes: Annotated[int, Field(ge=0, le=MAX_CLASSES)]
    latent_dim: Annotated[int, Field(ge=1, le=MAX_LATENT_DIM)]
    latent: Latent
    norm: Norm
    base_channels: Annotated[int, Field(ge=1, le=10_000)] | None
    extra_layers: Annotated[int, Field(ge=0, le=256)]
    pixel_range: PixelRange
    classes: Annotated[tuple[str, ...], Field(max_length=MAX_CLASSES)]
    data: str
    data_digest: str
    training: dict[str, Any] = field(default_factory=dict)
    custom_class: str = ""
    weights_sha256: str = ""
    kind: Literal["dcgan"] = "dcgan"


def build(config: DigitModelConfig) -> tuple[Generator, nn.Module]:
    """Build the networks of a model, with torch's default initialization.

    Raises:
        ValueError: The preset does not support these values.
    """
    return build_networks(
        config.preset,
        image_size=config.image_size,
        channels=config.channels,
        num_classes=config.num_classes,
        latent_dim=config.latent_dim,
        norm=config.norm,
        base_channels=config.base_channels,
        extra_layers=config.extra_layers,
    )


def require_seed(seed: int) -> None:
    """Check that torch takes the seed on every device.

    Raises:
        UserError: It does not.
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed}: give 0 to 2^63 - 1.")


class Sampler:
    """Draws images from a trained generator.

    Args:
        config: The model's config.
        generator: The network; it is moved to ``device`` and set to eval mode.
        device: Device to draw on.
    """

    def __init__(self, config: DigitModelConfig, generator: nn.Module, device: str | torch.device = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.generator = generator.to(self.device).eval()

    def latents(self, count: int, seed: int) -> Tensor:
        """Draw noise [count, latent_dim] on the CPU; the same for the same seed on every device."""
        generator = torch.Generator().manual_seed(seed)
        return draw_latents(count, self.config.latent_dim, self.config.latent, device="cpu", generator=generator)

    @torch.no_grad()
    def draw(self, latents: Tensor, labels: Tensor | None = None, batch_size: int = 256) -> Tensor:
        """Draw images from noise.

        Args:
            latents: [n, latent_dim].
            labels: [n] int64, for a model with labels.
            batch_size: Images at a time.

        Returns:
            [n, C, S, S] uint8 on the CPU.

        Raises:
            ValueError: The model needs labels.
        """
        batches = []
        for i in range(0, len(latents), batch_size):
            y = None if labels is None else labels[i : i + batch_size].to(self.device)
            images = self.generator(latents[i : i + batch_size].to(self.device), y)
            batches.append(to_uint8(images.cpu(), self.config.pixel_range))
        return torch.cat(batches)

    def sample(self, count: int, seed: int, labels: Tensor | None = None) -> Tensor:
        """Draw ``count`` images [count, C, S, S] uint8, by default with labels in turn."""
        if labels is None:
            labels = self.cycled_labels(count)
        return self.draw(self.latents(count, seed), labels)

    def cycled_labels(self, count: int) -> Tensor | None:
        """Return the labels 0, 1, …, K - 1, 0, 1, … for a model that needs labels."""
        return torch.arange(count) % self.config.num_classes if self.config.num_classes else None


def save_sampler(
    folder: Path, config: DigitModelConfig, generator: nn.Module, card: str, sample: np.ndarray | None = None
) -> None:
    """Write the model folder of a generator.

    Raises:
        UserError: As `ganvas.models.folder.save_model`.
    """
    save_model(folder, config, {GENERATOR: generator}, card, sample)


def load_sampler(path: Path | str, device: str = "cpu", generator: nn.Module | None = None) -> Sampler:
    """Read a model.

    Args:
        path: A run folder (its best model), a checkpoint folder (that step's) or a model folder; or hub:OWNER/NAME.
        device: Where to draw.
        generator: For a model that was trained with a generator of the user's own: an instance of its class.

    Raises:
        UserError: It is missing, damaged, or not a dcgan model.
    """
    path = local_model(path)
    config, network = read_model(path, partial(_load, path, generator))
    return Sampler(config, network, device)


def _load(path: Path, given: nn.Module | None) -> tuple[DigitModelConfig, nn.Module]:
    folder = find_model(path)
    config = at_checkpoint(read_config(folder, DigitModelConfig, ("dcgan",)), path)
    if config.num_classes not in (0, len(config.classes)):
        raise UserError(
            f"{folder}: draws {config.num_classes} classes and names {len(config.classes)}. Copy the model again."
        )
    weights = read_weights(path, [GENERATOR], config.weights_sha256)[GENERATOR]
    generator: nn.Module
    if not config.custom_class:
        try:
            generator = build_empty(lambda: build(config)[0])
        except ValueError as error:
            raise UserError(f"{folder / CONFIG}: {error}. Copy the model again.") from None
    elif given is not None:
        generator = copy.deepcopy(given).cpu()
    else:
        raise UserError(
            f"{path}: has a generator of the user's own class {shorten(config.custom_class)}. Load it in Python: "
            "dcgan.load(path, generator=an instance of that class)."
        )
    load_weights(generator, weights, str(path))
    return config, generator
