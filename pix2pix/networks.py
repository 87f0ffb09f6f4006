"""From options to networks: the one place that knows both."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ganvas.models.folder import NetworkSpec, build_generator
from ganvas.nn.init import initialize_weights
from ganvas.nn.patchgan import PatchDiscriminator, PixelDiscriminator, add_spectral_norm, make_discriminator
from ganvas.nn.unet import UNetGenerator
from pix2pix.config import DataConfig, ModelConfig, Pix2PixConfig, channels


def generator_spec(data: DataConfig, model: ModelConfig, source: str, target: str) -> NetworkSpec:
    """Describe the generator for these options; its levels follow from the image size unless they are given."""
    source_channels, target_channels = channels(data)
    most = math.ceil(math.log2(data.image_size))
    arguments: dict[str, Any] = {
        "in_channels": source_channels,
        "out_channels": target_channels,
        "base_channels": model.base_channels,
        "num_levels": model.levels or min(8 if model.generator == "unet" else 5, most),
        "norm": model.norm,
    }
    if model.generator == "unet":
        arguments |= {"dropout": model.dropout, "upsampling": model.upsampling}
    return NetworkSpec(model.generator, arguments, source, target)


def build_networks(
    spec: NetworkSpec,
    config: Pix2PixConfig,
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
) -> tuple[nn.Module, nn.Module]:
    """Build G and D, which takes source and target joined along the channels, with initial weights from the seed.

    Args:
        spec: Architecture of the generator.
        config: All options.
        generator: The user's own; keeps its weights.
        discriminator: The user's own; keeps its weights.
    """
    data, options = config.data, config.discriminator
    G = build_generator(spec) if generator is None else generator
    D = discriminator or make_discriminator(
        sum(channels(data)),
        base_channels=options.discriminator_channels,
        num_layers=options.patch_layers,
        norm=options.discriminator_norm,
        resampling=options.discriminator_resampling or "strided",
        num_scales=config.model.discriminator_scales,
        return_features=config.model.lambda_features > 0,
    )
    rng = torch.Generator().manual_seed(config.seed)
    for network, given in ((G, generator), (D, discriminator)):
        if given is None:
            initialize_weights(network, config.model.init, generator=rng)
    if options.discriminator_norm == "spectral" and discriminator is None:
        add_spectral_norm(D, rng)
    return G, D


def receptive_field_networks(num_layers: int) -> Mapping[str, nn.Module]:
    """Build D, which sees source and target, and the U-Net without weights; 0 layers make the pixel discriminator."""
    with torch.device("meta"):
        discriminator = PatchDiscriminator(6, num_layers=num_layers) if num_layers else PixelDiscriminator(6)
        return {"discriminator": discriminator, "generator": UNetGenerator()}
