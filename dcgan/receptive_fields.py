"""Receptive fields of a preset, and how evenly pixels contribute.

Tutorial 000's rule: kernel / stride must be an integer. Otherwise a convolution reads (or a transposed one writes) some
pixels more often than their neighbors, which causes checkerboard artifacts (Odena et al. 2016).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dcgan.config import Preset
from dcgan.layers import SameConv2d, SameConvTranspose2d
from dcgan.networks import TUTORIAL_SIZE, Discriminator, Generator, build_networks
from ganvas.errors import UserError
from ganvas.evaluation.sheet import contact_sheet
from ganvas.nn.layers import DownBlock
from ganvas.nn.receptive_field import TracedLayer, trace

Convolution = nn.Conv2d | nn.ConvTranspose2d
SCALE = 8  # of the drawing, so that single pixels are visible
SCALE_STEPS = 8  # grays of the color scale


@dataclass(frozen=True)
class UnevenLayer:
    """A layer whose kernel is not a multiple of its stride."""

    network: str
    name: str
    kernel: int
    stride: int

    def __str__(self) -> str:
        verb = "writes" if self.network == "generator" else "reads"
        return (
            f"{self.network} {self.name}: kernel {self.kernel} / stride {self.stride} is not an integer; it {verb} "
            "some pixels more often than others (checkerboard). A 4x4 kernel with stride 2 is even."
        )


@dataclass(frozen=True)
class PresetFields:
    """What a preset's discriminator sees.

    Attributes:
        generator: On the device "meta", as the discriminator.
        discriminator: Its convolutions come first.
        layers: Receptive fields of the convolutions, layer by layer; empty for a preset of dense layers.
        uneven: Layers of both networks that cause checkerboard artifacts.
    """

    generator: Generator
    discriminator: Discriminator
    layers: list[TracedLayer]
    uneven: list[UnevenLayer]


def strided_stack(num_layers: int) -> Mapping[str, nn.Module]:
    """Build a stack of stride-2 4x4 layers (Radford et al. 2016)."""
    with torch.device("meta"):
        return {"discriminator": nn.Sequential(*(DownBlock(1, 1, norm="none") for _ in range(num_layers)))}


def preset_fields(preset: Preset, image_size: int = TUTORIAL_SIZE) -> PresetFields:
    """Compute the receptive fields of a preset's discriminator.

    Raises:
        UserError: The preset does not support the size.
    """
    try:
        with torch.device("meta"):
            num_classes = 10 if preset == "conditional" else 0
            generator, discriminator = build_networks(preset, image_size=image_size, num_classes=num_classes)
    except ValueError as error:
        raise UserError(f"--preset {preset} --image-size {image_size}: {error}") from None
    features = nn.Sequential(*(layer for layer in discriminator.features if not isinstance(layer, nn.Flatten)))
    layers = trace(features, (image_size, image_size)) if len(features) else []
    return PresetFields(generator, discriminator, layers, uneven_layers(generator, discriminator))


def _convolutions(network: nn.Module) -> Iterator[tuple[str, Convolution | nn.Upsample]]:
    """Yield convolutions and upsamplings, in the order in which they run."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Upsample):
            yield name, module


def uneven_layers(generator: Generator, discriminator: Discriminator) -> list[UnevenLayer]:
    """Return the layers whose kernel is not a multiple of their stride."""
    return [
        UnevenLayer(network_name, name, module.kernel_size[0], module.stride[0])
        for network_name, network in (("generator", generator), ("discriminator", discriminator))
        for name, module in _convolutions(network)
        if not isinstance(module, nn.Upsample) and module.kernel_size[0] % module.stride[0]
    ]


def times_read(discriminator: Discriminator, image_size: int) -> Tensor:
    """Count the paths from each pixel to the outputs of the last convolution: [S, S], integers.

    That is the gradient of the sum of the outputs if all weights are 1 and there are only convolutions.
    """
    x = torch.ones(1, 1, image_size, image_size, dtype=torch.float64, requires_grad=True)
    (counts,) = torch.autograd.grad(_counting(discriminator)(x).sum(), x)
    return counts[0, 0]


def times_written(generator: Generator, image_size: int) -> Tensor:
    """Count the paths from the innermost maps of the generator to each pixel: [S, S], integers."""
    layers = [module for _, module in _convolutions(generator)]
    size = image_size
    for layer in reversed(layers):
        if isinstance(layer, nn.Upsample):
            size //= 2
        elif isinstance(layer, nn.ConvTranspose2d):
            size = -(-(size - int(layer.output_padding[0])) // layer.stride[0])
    with torch.no_grad():
        return _counting(generator)(torch.ones(1, 1, size, size, dtype=torch.float64))[0, 0]


def _counting(network: nn.Module) -> nn.Sequential:
    """Return the network's convolutions with one channel, weights 1 and no biases."""
    layers: list[nn.Module] = []
    for _, module in _convolutions(network):
        if isinstance(module, nn.Upsample):
            layers.append(nn.Upsample(scale_factor=module.scale_factor, mode="nearest"))
            continue
        kernel, stride = module.kernel_size[0], module.stride[0]
        layer: Convolution
        if isinstance(module, SameConv2d):
            layer = SameConv2d(1, 1, kernel, stride)
        elif isinstance(module, SameConvTranspose2d):
            layer = SameConvTranspose2d(1, 1, kernel, stride, output_size=module.size)
        elif isinstance(module, nn.ConvTranspose2d):
            more = int(module.output_padding[0])
            layer = nn.ConvTranspose2d(1, 1, kernel, stride, module.padding[0], more)  # type: ignore[arg-type]
        else:
            layer = nn.Conv2d(1, 1, kernel, stride, module.padding)  # type: ignore[arg-type]
        nn.init.ones_(layer.weight)
        layer.bias = None
        layers.append(layer)
    return nn.Sequential(*layers).double()


def draw_contributions(generator: Generator, discriminator: Discriminator, image_size: int) -> np.ndarray:
    """Draw how often each pixel is read and written, white for the maximum: [H, W, 3] uint8."""
    maps = {}
    if list(_convolutions(discriminator)):
        maps["D reads"] = times_read(discriminator, image_size)
    if list(_convolutions(generator)):
        maps["G writes"] = times_written(generator, image_size)
    if not maps:
        raise UserError("--out: there is nothing to draw: dense layers read and write every pixel equally often.")
    titles = [f"{name} {int(counts.min())} to {int(counts.max())}" for name, counts in maps.items()]
    images = [_enlarged((255 * counts / counts.max()).round().byte().numpy()) for counts in maps.values()]
    return contact_sheet([[*images, _gray_scale(images[0].shape[0])]], [*titles, "times: 0 to the most"])


def _enlarged(image: np.ndarray) -> np.ndarray:
    """Enlarge [H, W] by `SCALE`, without interpolation: [H', W', 1]."""
    return image.repeat(SCALE, axis=0).repeat(SCALE, axis=1)[..., None]


def _gray_scale(size: int) -> np.ndarray:
    """Draw the gray scale, black at the left: [H, size, 1]."""
    grays = np.linspace(0, 255, SCALE_STEPS).round().astype(np.uint8)
    return np.repeat(grays, size // SCALE_STEPS)[None].repeat(size // SCALE_STEPS, axis=0)[..., None]
