"""From options to networks: the one place that knows both."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from ganvas.models.folder import NetworkSpec, build_generator
from ganvas.nn.init import initialize_weights
from ganvas.nn.patchgan import PatchDiscriminator, PixelDiscriminator, make_discriminator
from ganvas.nn.unet import UNetGenerator
from pix2pix.config import DataConfig, ModelConfig, Pix2PixConfig, channels


def generator_spec(data: DataConfig, model: ModelConfig, source: str, target: str) -> NetworkSpec:
    """Describe the U-Net for these options; its levels follow from the image size unless they are given."""
    source_channels, target_channels = channels(data)
    levels = model.levels or min(8, math.ceil(math.log2(data.image_size)))
    arguments = {
        "in_channels": source_channels,
        "out_channels": target_channels,
        "base_channels": model.base_channels,
        "num_levels": levels,
        "norm": model.norm,
        "dropout": model.dropout,
        "upsampling": model.upsampling,
    }
    return NetworkSpec("unet", arguments, source, target)


def build_networks(
    spec: NetworkSpec,
    config: Pix2PixConfig,
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
) -> tuple[nn.Module, nn.Module]:
    """Build G and D, which takes source and target joined along the channels, with initial weights from the seed.

    Args:
        spec: Architecture of the U-Net.
        config: All options.
        generator: The user's own, in place of the U-Net; keeps its weights.
        discriminator: The user's own, in place of the PatchGAN; keeps its weights.
    """
    data, options = config.data, config.discriminator
    G = build_generator(spec) if generator is None else generator
    D = discriminator or make_discriminator(
        sum(channels(data)),
        base_channels=options.discriminator_channels,
        num_layers=options.patch_layers,
        norm=options.discriminator_norm,
    )
    rng = torch.Generator().manual_seed(config.seed)
    for network, given in ((G, generator), (D, discriminator)):
        if given is None:
            initialize_weights(network, config.model.init, generator=rng)
    return G, D


def receptive_field_networks(num_layers: int) -> Mapping[str, nn.Module]:
    """Build D, which sees source and target, and the U-Net without weights; 0 layers make the pixel discriminator."""
    with torch.device("meta"):
        discriminator = PatchDiscriminator(6, num_layers=num_layers) if num_layers else PixelDiscriminator(6)
        return {"discriminator": discriminator, "generator": UNetGenerator()}
