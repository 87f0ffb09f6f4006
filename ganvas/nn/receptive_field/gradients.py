"""Receptive field of a module, measured by the gradient of single output units."""

import copy

import torch
from torch import nn

from ganvas.nn.layers import LayerNorm2d
from ganvas.nn.receptive_field.geometry import ReceptiveField, Span
from ganvas.nn.receptive_field.tracing import AXES, Axis, in_channels, replace_by_identity

_NORMS = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm, LayerNorm2d)


def measured_receptive_field(
    network: nn.Module, image_size: int, *, period: int = 1, axis: Axis = "height"
) -> ReceptiveField:
    """Measure the receptive field by the gradient of units in the middle of the output.

    A copy is measured, without norms and with positive weights, so that neither statistics nor weights that cancel
    change the result. Max pooling becomes average pooling, since only the maximum would have a gradient.

    Args:
        network: A module that takes one image [N, C, H, W].
        image_size: Pixels a side of the image to measure with; larger than the receptive field.
        period: Units after which receptive fields repeat: the product of all upsampling factors.
        axis: Side of the image.

    Raises:
        ValueError: The receptive field reaches the border of the image, or does not repeat after ``period``.

    Example:
        >>> from torch import nn
        >>> layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3, stride=2))
        >>> measured_receptive_field(layers, image_size=32).size
        5
    """
    linear = _with_positive_weights(network)
    image = torch.ones(1, in_channels(network), image_size, image_size, dtype=torch.float64, requires_grad=True)
    others = (0, 1, 3 - AXES[axis])
    output = linear(image).sum(dim=others)  # [units along the axis]; nothing cancels in the sum
    units = len(output)
    first_unit = units // 2 // period * period
    if first_unit + 2 * period > units:
        raise ValueError(f"there are {units} output units; image_size must be larger than {image_size}")

    def measure(unit: int) -> Span | None:
        (gradient,) = torch.autograd.grad(output[unit], image, retain_graph=True)
        pixels = gradient.sum(dim=others).nonzero().flatten().tolist()
        if pixels and (pixels[0] == 0 or pixels[-1] == image_size - 1):
            raise ValueError(f"the receptive field reaches the border; image_size must be larger than {image_size}")
        return (pixels[0], pixels[-1]) if pixels else None

    spans = [measure(first_unit + phase) for phase in range(period)]
    phase, span = next(((phase, span) for phase, span in enumerate(spans) if span), (0, None))
    later = measure(first_unit + period + phase)
    if span is None or later is None:
        raise ValueError(f"units in the middle see nothing, or what they see does not repeat after period={period}")
    middle = ReceptiveField(tuple(spans), shift=later[0] - span[0])
    return ReceptiveField(tuple(middle.span(phase - first_unit) for phase in range(period)), middle.shift)


def _with_positive_weights(network: nn.Module) -> nn.Module:
    """Copy ``network`` so that every path from an input to an output has a positive gradient."""
    linear = copy.deepcopy(network).cpu().double().eval()
    replace_by_identity(linear, *_NORMS)
    for parent in list(linear.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    with torch.no_grad():
        for parameter in linear.parameters():
            # Kernels become means, so that values neither overflow nor saturate a tanh; biases become 0.
            parameter.fill_(1 / parameter[0].numel() if parameter.dim() > 1 else 0)
    return linear
