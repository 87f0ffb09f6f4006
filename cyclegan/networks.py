"""From options to networks: the one place that knows both."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from cyclegan.config import CycleGanConfig, channels
from cyclegan.patch_heads import PatchHeads
from ganvas.models.folder import NetworkSpec, build_generator
from ganvas.nn.init import initialize_weights
from ganvas.nn.layers import Resampling
from ganvas.nn.patchgan import PatchDiscriminator, PixelDiscriminator, add_spectral_norm, make_discriminator
from ganvas.nn.resnet import ResNetGenerator

NAMES = ("G_ab", "G_ba", "D_a", "D_b")
Direction = Literal["a2b", "b2a"]
DOMAINS: dict[Direction, tuple[str, str]] = {"a2b": ("a", "b"), "b2a": ("b", "a")}  # source and target


def generator_names(config: CycleGanConfig) -> dict[Direction, str]:
    """Return the generators' names by direction: both of a cycle, or the one that CUT trains."""
    if config.model.objective == "cycle":
        return {"a2b": "G_ab", "b2a": "G_ba"}
    return {config.data.direction: "G"}


def discriminator_names(config: CycleGanConfig) -> dict[str, str]:
    """Return the discriminators' names by the domain that they judge."""
    if config.model.objective == "cycle":
        return {"a": "D_a", "b": "D_b"}
    return {DOMAINS[config.data.direction][1]: "D"}


def generator_specs(
    config: CycleGanConfig, a: str, b: str, generators: tuple[nn.Module, nn.Module] | None = None
) -> dict[Direction, NetworkSpec]:
    """Describe the generators by direction.

    Args:
        config: All options.
        a: Name of domain a.
        b: Name of domain b.
        generators: The user's own G_ab and G_ba.
    """
    counts, names = dict(zip("ab", channels(config.data), strict=True)), {"a": a, "b": b}
    specs: dict[Direction, NetworkSpec] = {}
    for direction in generator_names(config):
        source, target = DOMAINS[direction]
        sizes, domains = (counts[source], counts[target]), (names[source], names[target])
        if generators is None:
            specs[direction] = _spec(config, sizes, domains)
        else:
            specs[direction] = NetworkSpec.of_class(generators[direction == "b2a"], sizes, *domains)
    return specs


def _spec(config: CycleGanConfig, counts: tuple[int, int], domains: tuple[str, str]) -> NetworkSpec:
    model, size = config.model, config.data.image_size
    arguments = {
        "in_channels": counts[0],
        "out_channels": counts[1],
        "base_channels": model.base_channels,
        "norm": model.norm,
        "dropout": model.dropout,
        "upsampling": model.upsampling,
    }
    if model.generator == "unet":
        levels = model.levels or min(8, math.ceil(math.log2(size)))
        return NetworkSpec("unet", arguments | {"num_levels": levels}, *domains)
    num_blocks = model.num_blocks or (6 if size <= 128 else 9)  # Zhu et al. 2017, Sec. 7.2
    resampling = {} if model.resampling == "strided" else {"resampling": model.resampling}
    return NetworkSpec("resnet", arguments | {"num_blocks": num_blocks} | resampling, *domains)


def build_networks(
    config: CycleGanConfig,
    specs: Mapping[Direction, NetworkSpec],
    generators: tuple[nn.Module, nn.Module] | None = None,
    discriminators: tuple[nn.Module, nn.Module] | None = None,
) -> dict[str, nn.Module]:
    """Build all networks by name, with initial weights from the seed; networks of the user's own keep theirs.

    They are the generators, the discriminators and, for CUT, the "heads".
    """
    options = config.discriminator
    resampling = options.discriminator_resampling or (config.model.resampling if options.patch_layers else "strided")
    networks: dict[str, nn.Module] = {}
    for direction, name in generator_names(config).items():
        own = None if generators is None else generators[direction == "b2a"]
        networks[name] = build_generator(specs[direction]) if own is None else own
    judges = discriminator_names(config)
    for domain, name in judges.items():
        index = "ab".index(domain)
        networks[name] = (
            discriminators[index]
            if discriminators
            else make_discriminator(
                channels(config.data)[index],
                base_channels=options.discriminator_channels,
                num_layers=options.patch_layers,
                norm=options.discriminator_norm,
                resampling=resampling,
            )
        )
    generator = networks.get("G")
    if isinstance(generator, ResNetGenerator):
        networks["heads"] = PatchHeads(generator.feature_channels)
    rng = torch.Generator().manual_seed(config.seed)
    given = (*(generators or ()), *(discriminators or ()))
    for network in networks.values():
        if not any(network is each for each in given):
            initialize_weights(network, config.model.init, generator=rng)
    if options.discriminator_norm == "spectral" and not discriminators:
        for name in judges.values():
            add_spectral_norm(networks[name], rng)
    return networks


def receptive_field_networks(num_layers: int, resampling: Resampling = "strided") -> Mapping[str, nn.Module]:
    """Build the discriminator of one domain and the ResNet generator without weights.

    0 layers make the pixel discriminator.
    """
    with torch.device("meta"):
        if num_layers:
            discriminator: nn.Module = PatchDiscriminator(
                3, num_layers=num_layers, norm="instance", resampling=resampling
            )
        else:
            discriminator = PixelDiscriminator(3, norm="instance")
        return {"discriminator": discriminator, "generator": ResNetGenerator(resampling=resampling)}
