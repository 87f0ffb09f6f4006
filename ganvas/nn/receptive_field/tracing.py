"""Receptive field of a module, by running its ``forward`` on an image without values."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import Literal

import torch
from torch import Tensor, nn

from ganvas.nn.layers import LayerNorm2d
from ganvas.nn.receptive_field.functions import POINT, geometry
from ganvas.nn.receptive_field.geometry import PIXEL, Layer, ReceptiveField

Axis = Literal["height", "width"]
AXES: dict[Axis, int] = {"height": 0, "width": 1}

_LARGE = 4096  # pixels a side: divisible by 2 often enough that no U-Net pads; it takes no memory


@dataclass(frozen=True)
class TracedLayer:
    """A layer along one side of the image, as `trace` lists it.

    Attributes:
        name: The module's name in ``named_modules()`` of the network.
        kind: What the layer does, such as "conv".
        layer: Its geometry.
        receptive_field: Receptive field of its output in the network's input.
        output_size: Height and width of its output.
    """

    name: str
    kind: str
    layer: Layer
    receptive_field: ReceptiveField
    output_size: tuple[int, int]

    def __str__(self) -> str:
        if self.kind not in ("pad", "crop") or self.layer.stride > 1:
            return f"{self.kind} {self.layer}"
        before, after = map(abs, self.layer.paddings)
        return f"{self.kind} {before}" if before == after else f"{self.kind} {before} and {after}"


def receptive_field(
    network: nn.Module | Sequence[Layer | tuple[int, int, int, int]], axis: Axis | None = None
) -> ReceptiveField:
    """Return the receptive field of a network's output units in its input.

    Args:
        network: A module that takes one image [N, C, H, W]; or a list, from input to output, of `Layer` or of
            (kernel, stride, dilation, padding).
        axis: Side of the image; required only where the network treats height and width differently.

    Raises:
        ValueError: The module calls a function that is not known to read a fixed neighborhood; or height and width
            differ and ``axis`` is missing.

    Example:
        >>> from ganvas.nn.patchgan import PatchDiscriminator
        >>> receptive_field(PatchDiscriminator()).size
        70
        >>> receptive_field([(4, 2, 1, 1), (3, 1, 2, 0)]).jump
        2.0
    """
    if not isinstance(network, nn.Module):
        return reduce(ReceptiveField.through, map(_as_layer, network), PIXEL)
    height, width = _run(network, (_LARGE, _LARGE)).receptive_fields
    if axis is None and height != width:
        raise ValueError(
            f"the receptive field is {height} in height and {width} in width; choose axis='height' or axis='width'"
        )
    return width if axis == "width" else height


def trace(network: nn.Module, image_size: tuple[int, int] = (256, 256), axis: Axis = "height") -> list[TracedLayer]:
    """List convolutions, and all else that changes the size or the receptive field, in the order in which they run.

    Args:
        network: A module that takes one image [N, C, H, W].
        image_size: Height and width of the input, for the output sizes.
        axis: Side of the image.

    Raises:
        ValueError: As for `receptive_field`; or the network refuses an image of this size.

    Example:
        >>> from ganvas.nn.patchgan import PatchDiscriminator
        >>> trace(PatchDiscriminator())[-1].receptive_field.size
        70
    """
    return [layer[AXES[axis]] for layer in _run(network, image_size).steps.layers]


def _as_layer(layer: Layer | tuple[int, int, int, int]) -> Layer:
    return layer if isinstance(layer, Layer) else Layer(*layer)


@dataclass
class _Steps:
    """The names of the modules that are running, outermost first, and the layers so far."""

    running: list[str] = field(default_factory=list)
    layers: list[tuple[TracedLayer, TracedLayer]] = field(default_factory=list)  # along height and width

    def enter(self, name: str, *_: object) -> None:
        self.running.append(name)

    def leave(self, *_: object) -> None:
        self.running.pop()

    def add(self, rows: TracedLayer, columns: TracedLayer) -> None:
        """Record a layer along height and width; padding of rows, then of columns, is one layer."""
        last = self.layers[-1][0] if self.layers else None
        if last and last.name == rows.name and last.kind == rows.kind == "pad" and rows.layer == POINT:
            self.layers.pop()
            rows = replace(rows, layer=last.layer)
        self.layers.append((rows, columns))


class _TracedImage(Tensor):
    """An image [N, C, H, W] on torch's device "meta" with its receptive fields along height and width."""

    steps: _Steps
    receptive_fields: tuple[ReceptiveField, ReceptiveField]

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Call ``func``, which computes the shape of its result, and set the result's receptive fields."""
        if func == Tensor.device.__get__:
            return torch.device("cpu")  # so that positions that are computed from it have values
        kwargs = kwargs or {}
        result = super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        if isinstance(result, _TracedImage):
            _follow(func.__name__.strip("_"), result, args, kwargs)
        return result


def _run(network: nn.Module, image_size: tuple[int, int]) -> _TracedImage:
    """Run a copy of ``network`` without weights on an image without values."""
    skeleton = copy.deepcopy(network).to("meta").eval()
    replace_by_identity(skeleton, LayerNorm2d)  # its permutations would hide the axes
    steps = _Steps()
    for name, module in skeleton.named_modules():
        module.register_forward_pre_hook(partial(steps.enter, name))
        module.register_forward_hook(steps.leave)
    image = torch.empty(1, in_channels(network), *image_size, device="meta").as_subclass(_TracedImage)
    image.steps, image.receptive_fields = steps, (PIXEL, PIXEL)
    output = skeleton(image)
    if not isinstance(output, _TracedImage):
        raise ValueError(f"the network returns a {type(output).__name__}; it must return one tensor made of its input")
    return output


def replace_by_identity(network: nn.Module, *kinds: type[nn.Module]) -> None:
    """Replace all submodules of some kinds, which do not change the receptive field, in place."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kinds):
                setattr(parent, name, nn.Identity())


def in_channels(network: nn.Module) -> int:
    """Return the input channels of the network's first convolution; 1 if it has none."""
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d))
    return next((convolution.in_channels for convolution in convolutions), 1)


def _follow(name: str, result: _TracedImage, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
    """Set the receptive fields of the result of the function ``name``, and record it if it is a layer."""
    images = list(_traced_images([*args, *kwargs.values()]))
    steps = images[0].steps
    try:
        kind, layers = geometry(name, images, args, kwargs)
        height, width = (
            reduce(ReceptiveField.union, (image.receptive_fields[side] for image in images)).through(layers[side])
            for side in (0, 1)
        )
    except ValueError as error:
        raise ValueError(f"no receptive field: {name!r}, called in module {steps.running[-1]!r}: {error}") from error
    result.steps, result.receptive_fields = steps, (height, width)
    if kind.endswith("conv") or not all(layer.is_identity for layer in layers):
        H, W = result.shape[-2:]
        name = steps.running[-1]
        rows, columns = (
            TracedLayer(name, kind, layers[side], result.receptive_fields[side], (H, W)) for side in (0, 1)
        )
        steps.add(rows, columns)


def _traced_images(values: Iterable[object]) -> Iterator[_TracedImage]:
    """Yield the images among a function's arguments, also inside lists."""
    for value in values:
        if isinstance(value, _TracedImage):
            yield value
        elif isinstance(value, list | tuple):
            yield from _traced_images(value)
