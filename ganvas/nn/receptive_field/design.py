"""Discriminators with a wanted receptive field."""

from collections.abc import Callable, Sequence

from torch import nn

from ganvas.nn.receptive_field.geometry import Layer
from ganvas.nn.receptive_field.tracing import receptive_field

MAX_LAYERS = 6  # stride-2 layers of a PatchGAN, see `ganvas.nn.patchgan`


def strided_layers(num_layers: int) -> list[Layer]:
    """Return a stack of 4x4 stride-2 convolutions, as in DCGAN (Radford et al. 2016)."""
    return [Layer(kernel=4, stride=2, padding=1)] * num_layers


def patchgan_layers(num_layers: int) -> list[Layer]:
    """Return the PatchGAN's convolutions, ``num_layers`` of stride 2 and two of stride 1; 0 is the pixel discriminator.

    Reference: Isola et al. 2017, Sec. 6.1.2.
    """
    if num_layers == 0:
        return [Layer(kernel=1)] * 3
    return strided_layers(num_layers) + [Layer(kernel=4, padding=1)] * 2


def find_num_layers(
    target: int, stack: Callable[[int], nn.Module | Sequence[Layer]] = patchgan_layers, *, min_layers: int = 0
) -> tuple[int, int]:
    """Find the number of stride-2 layers whose receptive field is nearest to ``target`` pixels.

    Args:
        target: Wanted receptive field in pixels.
        stack: The network for a number of stride-2 layers, or its layers: `patchgan_layers` or `strided_layers`.
        min_layers: Minimum number of stride-2 layers; the maximum is 6.

    Returns:
        The number of layers and their receptive field in pixels; of two equally near ones the smaller.

    Raises:
        ValueError: ``target`` is less than 1.

    Example:
        >>> find_num_layers(target=70)
        (3, 70)
    """
    if target < 1:
        raise ValueError(f"target is {target}; a receptive field has at least 1 pixel")
    sizes = {n: receptive_field(stack(n)).size for n in range(min_layers, MAX_LAYERS + 1)}
    num_layers = min(sizes, key=lambda n: abs(sizes[n] - target))
    return num_layers, sizes[num_layers]
