"""From options to networks: the one place that knows both."""

import math

import torch
from torch import nn

from ganvas.modelfile import NetworkSpec, build_generator
from ganvas.nn.init import initialize_weights
from ganvas.nn.patchgan import PatchDiscriminator, PixelDiscriminator
from pix2pix.config import DataConfig, ModelConfig


def generator_spec(data: DataConfig, model: ModelConfig, source: str, target: str) -> NetworkSpec:
    """Describe the U-Net for these options; its levels follow from the picture size unless they are given."""
    levels = model.levels or min(8, math.ceil(math.log2(data.image_size)))
    arguments = {
        "in_channels": data.source_channels,
        "out_channels": data.target_channels,
        "base_channels": model.base_channels,
        "num_levels": levels,
        "norm": model.norm,
        "dropout": model.dropout,
        "upsampling": model.upsampling,
    }
    return NetworkSpec("unet", arguments, source, target)


def build_discriminator(data: DataConfig, model: ModelConfig) -> nn.Module:
    """Build D, which sees source and target side by side along the channels."""
    channels = data.source_channels + data.target_channels
    if model.discriminator == "pixel":
        return PixelDiscriminator(channels, base_channels=model.discriminator_channels, norm=model.discriminator_norm)
    return PatchDiscriminator(
        channels,
        base_channels=model.discriminator_channels,
        num_layers=model.patch_layers,
        norm=model.discriminator_norm,
    )


def build_networks(spec: NetworkSpec, data: DataConfig, model: ModelConfig, seed: int) -> tuple[nn.Module, nn.Module]:
    """Build G and D with weights drawn from the seed."""
    G, D = build_generator(spec), build_discriminator(data, model)
    chance = torch.Generator().manual_seed(seed)
    for network in (G, D):
        initialize_weights(network, model.start, generator=chance)
    return G, D
