"""Receptive fields: which pixels of the input an output unit sees.

Three ways, tested against each other:

- `receptive_field` of a list of `Layer`: closed form, one step of whole-number arithmetic a layer.
- `receptive_field` of a module: its own ``forward`` runs on a picture without values, and every function that it calls
  takes one such step. Skips and sums are unions over their paths. What cannot be read is refused.
- `measured_field` of a module: where the gradient of one output unit is not zero.

The other way round, `layers_for` finds the discriminator that sees a wanted number of pixels.

Pixels are numbered from 0. Padding, of whatever kind, counts as pixels outside of the picture: the first logit of the
70x70 PatchGAN sees pixels -23 to 46. Norms count as frozen: their statistics may come from the whole picture, but they
only scale and shift (with instance norm in the way, the gradient of that logit fills any picture).

Reference: Isola et al. 2017, Sec. 6.1.2 (the PatchGANs); Araujo et al. 2019, "Computing Receptive Fields of
Convolutional Neural Networks" (size, jump and centre).
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from types import EllipsisType, MethodType
from typing import Literal

import torch
from torch import Tensor, nn

from ganvas.nn.layers import DownConv2d, InstanceNorm2d, OutputConv2d, UpConv2d

Axis = Literal["height", "width"]
Span = tuple[int, int]  # the first and the last pixel seen


# ---- Geometry along one side of the image ----


@dataclass(frozen=True)
class Layer:
    """Geometry of a convolution, pooling, enlargement, padding or crop along one side of the image.

    Attributes:
        kernel: Taps.
        stride: Input units from one output unit to the next; for ``transposed`` the other way round.
        dilation: Units from one tap to the next.
        padding: Units added before and after, or a pair of both; negative ones are cut off. For ``transposed``, as in
            torch, the units that the output loses.
        transposed: The layer is the adjoint of such a convolution.
    """

    kernel: int
    stride: int = 1
    dilation: int = 1
    padding: int | tuple[int, int] = 0
    transposed: bool = False

    def __post_init__(self) -> None:
        if min(self.kernel, self.stride, self.dilation) < 1:
            raise ValueError(f"kernel, stride and dilation must be at least 1, not those of {self!r}")

    @property
    def paddings(self) -> tuple[int, int]:
        """Padding before the first and after the last unit."""
        return self.padding if isinstance(self.padding, tuple) else (self.padding, self.padding)

    @property
    def reach(self) -> int:
        """Units from the first tap to the last."""
        return self.dilation * (self.kernel - 1)

    def inputs(self, unit: int) -> list[int]:
        """List the input units that output ``unit`` reads; none where a transposed stride leaves a gap."""
        before, _ = self.paddings
        taps = range(0, self.reach + 1, self.dilation)
        if self.transposed:
            # Input i reaches the outputs i * stride - before + tap.
            places = [unit + before - tap for tap in taps]
            return [place // self.stride for place in places if place % self.stride == 0]
        return [unit * self.stride - before + tap for tap in taps]

    def output_size(self, size: int) -> int:
        """Count the units that come out where ``size`` go in."""
        if self.transposed:
            return (size - 1) * self.stride + self.reach + 1 - sum(self.paddings)
        return (size + sum(self.paddings) - self.reach - 1) // self.stride + 1

    @property
    def changes_nothing(self) -> bool:
        """Whether each unit reads its own place alone."""
        return self.kernel == self.stride == 1 and not any(self.paddings)

    def __str__(self) -> str:
        before, after = self.paddings
        parts = [f"{self.kernel}"]
        parts += [f"stride {self.stride}"] * (self.stride > 1)
        parts += [f"dilation {self.dilation}"] * (self.dilation > 1)
        parts += [f"pad {before}" if before == after else f"pad {before} and {after}"] * any(self.paddings)
        return ", ".join(parts)


@dataclass(frozen=True)
class ReceptiveField:
    """What the units of a layer see along one side of the image.

    After convolutions every unit sees as much as the next, one jump further on. After an enlargement, neighbors differ
    in their phase: what they see depends on the unit's number modulo ``period``. One span for each phase says it all.

    Attributes:
        spans: First and last pixel that the units 0 to ``period`` - 1 see, inside or outside of the image; None for
            a unit that sees nothing (a transposed convolution whose stride is wider than its kernel leaves some).
        shift: Pixels from what a unit sees to what the unit ``period`` further on sees.
    """

    spans: tuple[Span | None, ...]
    shift: int

    @property
    def period(self) -> int:
        """Units after which the phases repeat; 1 without enlargement."""
        return len(self.spans)

    @property
    def size(self) -> int:
        """Pixels from the first to the last that a unit sees; the largest over the phases."""
        return max((last - first + 1 for first, last in filter(None, self.spans)), default=0)

    @property
    def jump(self) -> float:
        """Pixels from one unit to the next: the stride of the output grid."""
        return self.shift / self.period

    @property
    def first_centre(self) -> float:
        """Position of unit 0's middle, where 0.0 is the middle of pixel 0; the mean over the phases, laid on unit 0."""
        middles = [sum(span) / 2 - self.jump * unit for unit, span in enumerate(self.spans) if span is not None]
        return sum(middles) / len(middles) if middles else math.nan

    def span(self, unit: int) -> Span | None:
        """Find the first and the last pixel that ``unit`` sees, inside or outside of the image."""
        periods, phase = divmod(unit, self.period)
        span = self.spans[phase]
        return None if span is None else (span[0] + periods * self.shift, span[1] + periods * self.shift)

    def through(self, layer: Layer) -> "ReceptiveField":
        """Give the field of the units that ``layer`` makes of these."""
        if layer.transposed:
            period, shift = self.period * layer.stride, self.shift
        else:
            period = self.period // math.gcd(self.period, layer.stride)
            shift = self.shift * layer.stride * period // self.period
        return ReceptiveField(tuple(_hull(map(self.span, layer.inputs(unit))) for unit in range(period)), shift)

    def union(self, other: "ReceptiveField") -> "ReceptiveField":
        """Give the field of units that see what both see: of a sum, or of channels side by side.

        Raises:
            ValueError: The jumps differ, so the units do not lie on one grid.
        """
        if self.shift * other.period != other.shift * self.period:
            raise ValueError(f"units {self.jump:g} and {other.jump:g} pixels apart cannot be joined")
        period = math.lcm(self.period, other.period)
        spans = (_hull((self.span(unit), other.span(unit))) for unit in range(period))
        return ReceptiveField(tuple(spans), self.shift * period // self.period)

    def __str__(self) -> str:
        return f"{self.size} pixels, jump {self.jump:g}, first center {self.first_centre:g}"


def _hull(spans: Iterable[Span | None]) -> Span | None:
    """Find the smallest span around all that are one."""
    some = [span for span in spans if span is not None]
    return (min(first for first, _ in some), max(last for _, last in some)) if some else None


_PIXEL = ReceptiveField(spans=((0, 0),), shift=1)  # what a pixel of the input sees of it
_POINT = Layer(kernel=1)  # what changes no field
# These reach the same result by a faster way; their geometry is that of the plain layer.
_FASTER: dict[type[nn.Module], type[nn.Module]] = {
    DownConv2d: nn.Conv2d,
    OutputConv2d: nn.Conv2d,
    UpConv2d: nn.ConvTranspose2d,
    InstanceNorm2d: nn.InstanceNorm2d,
}


# ---- Receptive field of a list of layers or of a module ----

Layers = Sequence[Layer | tuple[int, int, int, int]]


@dataclass(frozen=True)
class TracedLayer:
    """One row of the table that `trace` makes.

    Attributes:
        name: The module's name inside the network, as in ``named_modules()``; for a list the position in it.
        kind: What the layer does, in words.
        layer: Its geometry.
        field: Field of its output in the network's input.
        output_size: Height and width of its output.
    """

    name: str
    kind: str
    layer: Layer
    field: ReceptiveField
    output_size: tuple[int, int]

    def __str__(self) -> str:
        if self.kind not in ("pad", "crop") or self.layer.stride > 1:
            return f"{self.kind} {self.layer}"
        before, after = map(abs, self.layer.paddings)
        return f"{self.kind} {before}" if before == after else f"{self.kind} {before} and {after}"


def receptive_field(network: nn.Module | Layers, axis: Axis | None = None) -> ReceptiveField:
    """Find what the output units of a network see of its input.

    Args:
        network: A module that takes one picture [N, C, H, W]; or a list, from input to output, of `Layer` or of
            (kernel, stride, dilation, padding).
        axis: Side of the picture; to be given only where the network treats height and width differently.

    Raises:
        ValueError: A function that the module calls is not known to look at a fixed neighbourhood; or height and width
            differ and ``axis`` is not given.
    """
    if not isinstance(network, nn.Module):
        return reduce(ReceptiveField.through, map(_as_layer, network), _PIXEL)
    fields = _run(network, (_LARGE_PICTURE, _LARGE_PICTURE)).fields
    if axis is None and fields["height"] != fields["width"]:
        raise ValueError(
            f"the field is {fields['height']} in height and {fields['width']} in width; "
            "choose with axis='height' or axis='width'"
        )
    return fields[axis or "height"]


def trace(
    network: nn.Module | Layers, picture_size: tuple[int, int] = (256, 256), axis: Axis = "height"
) -> list[TracedLayer]:
    """List convolutions and whatever else changes size or field, in the order they run, with the field after each.

    Args:
        network: As for `receptive_field`.
        picture_size: Height and width of the input, for the output sizes.
        axis: Side of the image whose geometry is listed.

    Raises:
        ValueError: As for `receptive_field`; or the network refuses a image of this size.
    """
    if isinstance(network, nn.Module):
        return [
            TracedLayer(step.name, step.kind, step.layers[axis], step.fields[axis], step.output_size)
            for step in _run(network, picture_size).tape.steps
        ]
    rows = []
    current, (H, W) = _PIXEL, picture_size
    for position, layer in enumerate(map(_as_layer, network)):
        current, H, W = current.through(layer), layer.output_size(H), layer.output_size(W)
        kind = "transposed conv" if layer.transposed else "conv"
        rows.append(TracedLayer(str(position), kind, layer, current, (H, W)))
    return rows


def _as_layer(layer: Layer | tuple[int, int, int, int]) -> Layer:
    return layer if isinstance(layer, Layer) else Layer(*layer)


# ---- Reading a module: its forward runs on a image without values ----

# Divisible by 2 often enough for any U-Net, so that none pads it; it takes no memory.
_LARGE_PICTURE = 4096


@dataclass(frozen=True)
class _Step:
    """A layer that has run, along both sides of the image."""

    name: str
    kind: str
    layers: dict[Axis, Layer]
    fields: dict[Axis, ReceptiveField]
    output_size: tuple[int, int]


@dataclass
class _Tape:
    """What is written down on the way: the modules that are running now, outermost first, and the layers so far."""

    running: list[str] = field(default_factory=list)
    steps: list[_Step] = field(default_factory=list)

    def enter(self, name: str, *_: object) -> None:
        """Note that a module begins."""
        self.running.append(name)

    def leave(self, *_: object) -> None:
        """Note that it has ended."""
        self.running.pop()

    def write(self, step: _Step) -> None:
        """Note a layer; padding that does one side after the other is one layer."""
        last = self.steps[-1] if self.steps else None
        if last and last.name == step.name and last.kind == step.kind == "pad" and step.layers["height"] == _POINT:
            self.steps.pop()
            step = replace(step, layers={"height": last.layers["height"], "width": step.layers["width"]})
        self.steps.append(step)


class _Picture(Tensor):
    """A picture [N, C, H, W] without values (on torch's device "meta") that knows its field in the network's input.

    Torch hands each function that is called on it to ``__torch_function__``.
    """

    tape: _Tape
    fields: dict[Axis, ReceptiveField]

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Call ``func``, which finds the shape of its result, and find the result's field."""
        if func == Tensor.device.__get__:
            return torch.device("cpu")  # so that positions computed beside the image have values
        kwargs = kwargs or {}
        result = super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        if isinstance(result, _Picture):
            _follow(func.__name__.strip("_"), result, args, kwargs)
        return result


def _run(network: nn.Module, picture_size: tuple[int, int]) -> _Picture:
    """Run a copy of ``network``, without values in its weights, on a image without values."""
    skeleton = copy.deepcopy(network).to("meta").eval()
    tape = _Tape()
    for name, module in skeleton.named_modules():
        module.register_forward_pre_hook(partial(tape.enter, name))
        module.register_forward_hook(tape.leave)
        for faster, plain in _FASTER.items():
            if isinstance(module, faster):
                module.forward = MethodType(plain.forward, module)

    picture = torch.empty(1, _in_channels(network), *picture_size, device="meta").as_subclass(_Picture)
    picture.tape, picture.fields = tape, {"height": _PIXEL, "width": _PIXEL}
    output = skeleton(picture)
    if not isinstance(output, _Picture):
        raise ValueError(f"the network gives a {type(output).__name__}; it must give one tensor made of its input")
    return output


def _in_channels(network: nn.Module) -> int:
    """Find the channels that the network's first convolution takes; a network without any gets one channel."""
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d))
    return next((convolution.in_channels for convolution in convolutions), 1)


def _follow(name: str, result: _Picture, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
    """Give the result of the function ``name`` its field, and write the layer down if it is one."""
    pictures = list(_pictures([*args, *kwargs.values()]))
    tape = pictures[0].tape
    try:
        kind, layers = _geometry(name, pictures, args, kwargs)
        fields = {axis: reduce(ReceptiveField.union, (p.fields[axis] for p in pictures)) for axis in layers}
    except ValueError as error:
        raise ValueError(f"no receptive field: {name!r}, called in module {tape.running[-1]!r}: {error}") from error
    result.tape, result.fields = tape, {axis: fields[axis].through(layers[axis]) for axis in layers}
    if kind.endswith("conv") or not all(layer.changes_nothing for layer in layers.values()):
        H, W = result.shape[-2:]
        tape.write(_Step(tape.running[-1], kind, layers, result.fields, (H, W)))


def _pictures(values: Iterable[object]) -> Iterable[_Picture]:
    """Find the pictures among a function's arguments, also inside lists."""
    for value in values:
        if isinstance(value, _Picture):
            yield value
        elif isinstance(value, list | tuple):
            yield from _pictures(value)


# ---- What torch's functions look at ----

_ARITHMETIC = {"abs", "add", "clamp", "div", "iadd", "imul", "mul", "neg", "radd", "rmul", "rsub", "sub", "truediv"}
_ACTIVATIONS = {"elu", "gelu", "hardtanh", "leaky_relu", "mish", "prelu", "relu", "relu6", "sigmoid", "silu", "tanh"}
_NORMS_AND_DROPOUT = {"batch_norm", "group_norm", "instance_norm", "dropout", "dropout2d", "feature_dropout"}
_COPIES = {"clone", "contiguous", "detach", "double", "float", "to", "type_as"}
_POINTWISE = _ARITHMETIC | _ACTIVATIONS | _NORMS_AND_DROPOUT | _COPIES


def _geometry(
    name: str, pictures: Sequence[_Picture], args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[str, dict[Axis, Layer]]:
    """Find what the function ``name`` does, in words, and its geometry along both sides.

    Raises:
        ValueError: It is not known to look at a fixed neighbourhood.
    """
    if name in _LAYERS:
        kind, read = _LAYERS[name]
        height, width = read(*args, **kwargs)
        return kind, {"height": height, "width": width}
    if name not in _POINTWISE:
        raise ValueError("not known to look at a fixed neighbourhood of each pixel")
    if len({picture.shape[-2:] for picture in pictures}) > 1:
        raise ValueError("its images differ in size")
    return "pointwise", {"height": _POINT, "width": _POINT}


_Pair = tuple[Layer, Layer]  # along height and width
_Size = int | Sequence[int]  # as torch takes it: one number for both sides, or two


def _two(size: _Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[-1])


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Size = 1,
    padding: str | _Size = 0,
    dilation: _Size = 1,
    groups: int = 1,
) -> _Pair:
    strides, dilations = _two(stride), _two(dilation)

    def side(i: int) -> Layer:
        layer = Layer(weight.shape[2 + i], strides[i], dilations[i])
        if padding == "same":  # torch puts the odd one after
            sides = layer.reach // 2, layer.reach - layer.reach // 2
        else:
            sides = (0, 0) if isinstance(padding, str) else (_two(padding)[i],) * 2
        return Layer(layer.kernel, layer.stride, layer.dilation, sides)

    return side(0), side(1)


def _conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Size = 1,
    padding: _Size = 0,
    output_padding: _Size = 0,
    groups: int = 1,
    dilation: _Size = 1,
) -> _Pair:
    def side(i: int) -> Layer:
        before = _two(padding)[i]
        cut = before, before - _two(output_padding)[i]
        return Layer(weight.shape[2 + i], _two(stride)[i], _two(dilation)[i], cut, transposed=True)

    return side(0), side(1)


def _max_pool2d(
    x: Tensor,
    kernel_size: _Size,
    stride: _Size | None = None,
    padding: _Size = 0,
    dilation: _Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> _Pair:
    kernels, strides, dilations = _two(kernel_size), _two(stride or kernel_size), _two(dilation)
    height, width = map(Layer, kernels, strides, dilations, _two(padding))
    return height, width


def _avg_pool2d(
    x: Tensor, kernel_size: _Size, stride: _Size | None = None, padding: _Size = 0, *how_to_average: object
) -> _Pair:
    return _max_pool2d(x, kernel_size, stride, padding)


def _interpolate(
    x: Tensor,
    size: _Size | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> _Pair:
    if mode not in ("nearest", "nearest-exact", "bilinear") or align_corners or antialias:
        raise ValueError("of enlargements only nearest and bilinear without aligned corners or antialiasing are known")

    def side(i: int) -> Layer:
        old = x.shape[2 + i]
        if size is not None:
            factor = _two(size)[i] / old
        else:
            factor = scale_factor if isinstance(scale_factor, int | float) else (scale_factor or (1.0,))[i]
        stride = round(factor)
        if stride != factor or stride < 1:
            raise ValueError(f"it scales by {factor:g}; only whole numbers give every unit a neighbourhood alike")
        if mode != "bilinear":
            return Layer(stride, stride, transposed=True)
        # Weights fall to zero at the neighbors' middles; where stride is odd, output units lie just there.
        kernel = 2 * stride - stride % 2
        return Layer(kernel, stride, padding=(kernel - stride) // 2, transposed=True)

    return side(0), side(1)


def _pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> _Pair:
    left, right, top, bottom = [*pad, 0, 0][:4]
    if any(pad[4:]):
        raise ValueError("it pads more than height and width")
    return Layer(1, padding=(top, bottom)), Layer(1, padding=(left, right))


def _index_select(x: Tensor, dim: int, index: Tensor) -> _Pair:
    """Read padding that picks its pixels by position, such as repeated mirroring."""
    axis = dim % 4
    if axis < 2:
        return _POINT, _POINT
    # The image itself is where all its positions follow one another; of several such places the middle one.
    size, padded = x.shape[axis], len(index)
    starts = [s for s in range(padded - size + 1) if torch.equal(index[s : s + size], torch.arange(size))]
    if not starts:
        raise ValueError("the positions that it picks are not the whole image with padding around")
    before = min(starts, key=lambda start: abs(padded - size - 2 * start))
    layer = Layer(1, padding=(before, padded - size - before))
    return (layer, _POINT) if axis == 2 else (_POINT, layer)


def _getitem(x: Tensor, index: slice | int | EllipsisType | tuple[slice | int | EllipsisType, ...]) -> _Pair:
    """Read a crop."""
    items = index if isinstance(index, tuple) else (index,)
    if Ellipsis in items:
        place = items.index(Ellipsis)
        items = items[:place] + (slice(None),) * (5 - len(items)) + items[place + 1 :]
    _, _, rows, columns = items + (slice(None),) * (4 - len(items))

    def side(item: slice | int | EllipsisType, size: int) -> Layer:
        if not isinstance(item, slice):
            raise ValueError("it picks a single row or column")
        start, stop, step = item.indices(size)
        return Layer(1, stride=step, padding=(-start, stop - size))

    return side(rows, x.shape[2]), side(columns, x.shape[3])


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> _Pair:
    if dim % 4 > 1:
        raise ValueError("it joins images along height or width")
    return _POINT, _POINT


# Each reads the arguments of the torch function of this name.
_LAYERS: Mapping[str, tuple[str, Callable[..., _Pair]]] = {
    "conv2d": ("conv", _conv2d),
    "conv_transpose2d": ("transposed conv", _conv_transpose2d),
    "max_pool2d": ("pool", _max_pool2d),
    "avg_pool2d": ("pool", _avg_pool2d),
    "interpolate": ("enlarge", _interpolate),
    "pad": ("pad", _pad),
    "index_select": ("pad", _index_select),
    "getitem": ("crop", _getitem),
    "cat": ("join", _cat),
}


# ---- Measuring by gradients ----

_NORMS = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm)


def measured_field(network: nn.Module, picture_size: int, *, period: int = 1, axis: Axis = "height") -> ReceptiveField:
    """Find what a unit in the middle sees by the gradient that comes back from it.

    Works on a copy with norms taken out and all weights positive, so that neither statistics nor weights that cancel
    hide or add anything. Max pooling becomes average pooling: only the winner would get a gradient.

    Args:
        network: A module that takes one image [N, C, H, W].
        picture_size: Pixels a side of the image to measure with; wider than the field.
        period: Units after which what they see repeats: the product of all enlargements, 1 without any.
        axis: Side of the image.

    Raises:
        ValueError: The field reaches the border of the image, which hides its size.
    """
    linear = _with_positive_weights(network)
    picture = torch.ones(1, _in_channels(network), picture_size, picture_size, dtype=torch.float64, requires_grad=True)
    dim = 2 if axis == "height" else 3
    output = linear(picture).sum(dim=(0, 1, 5 - dim))  # [units along the axis]; nothing cancels in the sum
    units = len(output)
    first_unit = units // 2 // period * period
    if first_unit + 2 * period > units:
        raise ValueError(f"{units} units come out; picture_size must be larger than {picture_size}")

    def seen(unit: int) -> Span | None:
        (gradient,) = torch.autograd.grad(output[unit], picture, retain_graph=True)
        pixels = gradient.sum(dim=(0, 1, 5 - dim)).nonzero().flatten().tolist()
        if pixels and (pixels[0] == 0 or pixels[-1] == picture_size - 1):
            raise ValueError(f"the field reaches the border; picture_size must be larger than {picture_size}")
        return (pixels[0], pixels[-1]) if pixels else None

    spans = [seen(first_unit + phase) for phase in range(period)]
    phase, span = next(((phase, span) for phase, span in enumerate(spans) if span), (0, None))
    later = seen(first_unit + period + phase)
    if span is None or later is None:
        raise ValueError(f"units in the middle see nothing, or what they see does not repeat after period={period}")
    here = ReceptiveField(tuple(spans), shift=later[0] - span[0])
    return ReceptiveField(tuple(here.span(phase - first_unit) for phase in range(period)), here.shift)


def _with_positive_weights(network: nn.Module) -> nn.Module:
    """Copy ``network`` so that every path from an input to an output shows in the gradient."""
    linear = copy.deepcopy(network).cpu().double().eval()
    for parent in list(linear.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _NORMS):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    with torch.no_grad():
        for parameter in linear.parameters():
            # Kernels become means, which keeps values far from overflow and from the flat ends of a tanh; biases 0.
            parameter.fill_(1 / parameter[0].numel() if parameter.dim() > 1 else 0)
    return linear


# ---- The other way round: from the field to the layers ----

MAX_LAYERS = 6  # of a PatchGAN, see `ganvas.nn.patchgan`


@dataclass(frozen=True)
class LayerChoice:
    """How many stride-2 layers come nearest to a wanted field.

    Attributes:
        num_layers: Stride-2 layers; of the PatchGANs, 0 is the pixel discriminator.
        size: Pixels that a unit then sees.
        exact: Whether these are the pixels wanted.
    """

    num_layers: int
    size: int
    exact: bool


def strided_layers(num_layers: int) -> list[Layer]:
    """Give a plain stack of 4x4 stride-2 convolutions, as in DCGAN (Radford et al. 2016)."""
    return [Layer(kernel=4, stride=2, padding=1)] * num_layers


def patchgan_layers(num_layers: int) -> list[Layer]:
    """Give the PatchGAN's convolutions: ``num_layers`` of stride 2, two of stride 1; for 0 the pixel discriminator's.

    Reference: Isola et al. 2017, Sec. 6.1.2.
    """
    if num_layers == 0:
        return [_POINT] * 3
    return strided_layers(num_layers) + [Layer(kernel=4, padding=1)] * 2


def layers_for(target: int, stack: Callable[[int], Layers] = patchgan_layers, fewest: int = 0) -> LayerChoice:
    """Find the number of stride-2 layers whose field is nearest to ``target`` pixels; of two the smaller.

    Args:
        target: Wanted size of the field in pixels.
        stack: The layers for a number of stride-2 layers: `patchgan_layers` or `strided_layers`.
        fewest: Stride-2 layers at least (6 at most); 1 where there is no network without any.

    Raises:
        ValueError: ``target`` is less than 1.
    """
    if target < 1:
        raise ValueError(f"target is {target}; a unit sees at least 1 pixel")
    sizes = {num_layers: receptive_field(stack(num_layers)).size for num_layers in range(fewest, MAX_LAYERS + 1)}
    num_layers = min(sizes, key=lambda n: abs(sizes[n] - target))
    return LayerChoice(num_layers, sizes[num_layers], exact=sizes[num_layers] == target)
