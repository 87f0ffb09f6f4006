"""From options to networks: the one place that knows both."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from cyclegan.config import CycleGanConfig, channels
from ganvas.models.folder import NetworkSpec, build_generator
from ganvas.nn.init import initialize_weights
from ganvas.nn.patchgan import PatchDiscriminator, PixelDiscriminator, add_spectral_norm, make_discriminator
from ganvas.nn.resnet import ResNetGenerator

NAMES = ("G_ab", "G_ba", "D_a", "D_b")
DIRECTIONS: dict[str, Literal["a2b", "b2a"]] = {"G_ab": "a2b", "G_ba": "b2a"}


def generator_specs(config: CycleGanConfig, a: str, b: str) -> dict[str, NetworkSpec]:
    """Describe G_ab and G_ba for these options; ``a`` and ``b`` name the domains."""
    channels_a, channels_b = channels(config.data)
    return {
        "G_ab": _spec(config, channels_a, channels_b, a, b),
        "G_ba": _spec(config, channels_b, channels_a, b, a),
    }


def _spec(config: CycleGanConfig, in_channels: int, out_channels: int, source: str, target: str) -> NetworkSpec:
    model, size = config.model, config.data.image_size
    arguments = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "base_channels": model.base_channels,
        "norm": model.norm,
        "dropout": model.dropout,
        "upsampling": model.upsampling,
    }
    if model.generator == "unet":
        levels = model.levels or min(8, math.ceil(math.log2(size)))
        return NetworkSpec("unet", arguments | {"num_levels": levels}, source, target)
    num_blocks = model.num_blocks or (6 if size <= 128 else 9)  # Zhu et al. 2017, Sec. 7.2
    return NetworkSpec("resnet", arguments | {"num_blocks": num_blocks}, source, target)


def custom_specs(
    config: CycleGanConfig, generators: tuple[nn.Module, nn.Module], a: str, b: str
) -> dict[str, NetworkSpec]:
    """Describe G_ab and G_ba of the user's own, for the model file."""
    channels_a, channels_b = channels(config.data)
    return {
        "G_ab": NetworkSpec.of_class(generators[0], (channels_a, channels_b), a, b),
        "G_ba": NetworkSpec.of_class(generators[1], (channels_b, channels_a), b, a),
    }


def build_networks(
    config: CycleGanConfig,
    specs: dict[str, NetworkSpec],
    generators: tuple[nn.Module, nn.Module] | None = None,
    discriminators: tuple[nn.Module, nn.Module] | None = None,
) -> dict[str, nn.Module]:
    """Build G_ab, G_ba, D_a and D_b with initial weights from the seed; networks of the user's own keep theirs."""
    options = config.discriminator
    if generators is None:
        networks = {name: build_generator(spec) for name, spec in specs.items()}
    else:
        networks = dict(zip(DIRECTIONS, generators, strict=True))
    for index, (name, count) in enumerate(zip(("D_a", "D_b"), channels(config.data), strict=True)):
        networks[name] = (
            discriminators[index]
            if discriminators
            else make_discriminator(
                count,
                base_channels=options.discriminator_channels,
                num_layers=options.patch_layers,
                norm=options.discriminator_norm,
            )
        )
    rng = torch.Generator().manual_seed(config.seed)
    given = (*(generators or ()), *(discriminators or ()))
    for network in networks.values():
        if not any(network is each for each in given):
            initialize_weights(network, config.model.init, generator=rng)
    if options.discriminator_norm == "spectral" and not discriminators:
        for name in ("D_a", "D_b"):
            add_spectral_norm(networks[name], rng)
    return networks


def receptive_field_networks(num_layers: int) -> Mapping[str, nn.Module]:
    """Build the discriminator of one domain and the ResNet generator without weights.

    0 layers make the pixel discriminator.
    """
    with torch.device("meta"):
        if num_layers:
            discriminator: nn.Module = PatchDiscriminator(3, num_layers=num_layers, norm="instance")
        else:
            discriminator = PixelDiscriminator(3, norm="instance")
        return {"discriminator": discriminator, "generator": ResNetGenerator()}
