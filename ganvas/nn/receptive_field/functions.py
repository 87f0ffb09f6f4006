"""Geometry of torch's functions: for each one, the `Layer` along height and along width, read from its arguments."""

from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType

import torch
from torch import Tensor

from ganvas.nn.receptive_field.geometry import Layer

Layers = tuple[Layer, Layer]  # along height and width
Size = int | Sequence[int]  # torch's: one number for both sides, or two
Index = slice | int | EllipsisType

POINT = Layer(kernel=1)
_ARITHMETIC = {"abs", "add", "clamp", "div", "iadd", "imul", "mul", "neg", "radd", "rmul", "rsub", "sub", "truediv"}
_ACTIVATIONS = {"elu", "gelu", "hardtanh", "leaky_relu", "mish", "prelu", "relu", "relu6", "sigmoid", "silu", "tanh"}
_NORMS_AND_DROPOUT = {"batch_norm", "group_norm", "instance_norm", "dropout", "dropout2d", "feature_dropout"}
_COPIES = {"clone", "contiguous", "detach", "double", "float", "to", "type_as"}
_POINTWISE = _ARITHMETIC | _ACTIVATIONS | _NORMS_AND_DROPOUT | _COPIES


def geometry(
    name: str, images: Sequence[Tensor], args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[str, Layers]:
    """Return what the torch function ``name`` does, and its geometry.

    Args:
        name: ``__name__`` of the function, without underscores.
        images: Its arguments that are [N, C, H, W].
        args: All its arguments.
        kwargs: Its keyword arguments.

    Raises:
        ValueError: It is unknown whether it reads a fixed neighborhood of each pixel.
    """
    if name in _LAYERS:
        kind, read = _LAYERS[name]
        return kind, read(*args, **kwargs)
    if name not in _POINTWISE:
        raise ValueError("not known to look at a fixed neighborhood of each pixel")
    if len({image.shape[-2:] for image in images}) > 1:
        raise ValueError("its images differ in size")
    return "pointwise", (POINT, POINT)


def _two(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[-1])


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: str | Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Layers:
    def side(i: int) -> Layer:
        layer = Layer(weight.shape[2 + i], _two(stride)[i], _two(dilation)[i])
        if padding == "same":  # torch adds the odd one after
            sides = layer.reach // 2, layer.reach - layer.reach // 2
        else:
            sides = (0, 0) if isinstance(padding, str) else (_two(padding)[i],) * 2
        return Layer(layer.kernel, layer.stride, layer.dilation, sides)

    return side(0), side(1)


def _conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Layers:
    def side(i: int) -> Layer:
        before = _two(padding)[i]
        crop = before, before - _two(output_padding)[i]
        return Layer(weight.shape[2 + i], _two(stride)[i], _two(dilation)[i], crop, transposed=True)

    return side(0), side(1)


def _max_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Layers:
    height, width = map(Layer, _two(kernel_size), _two(stride or kernel_size), _two(dilation), _two(padding))
    return height, width


def _avg_pool2d(
    x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, *options: object
) -> Layers:
    return _max_pool2d(x, kernel_size, stride, padding)


def _interpolate(
    x: Tensor,
    size: Size | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Layers:
    if mode not in ("nearest", "nearest-exact", "bilinear") or align_corners or antialias:
        raise ValueError("only nearest and bilinear upsampling without align_corners or antialias is supported")

    def side(i: int) -> Layer:
        if size is not None:
            factor = _two(size)[i] / x.shape[2 + i]
        else:
            factor = scale_factor if isinstance(scale_factor, int | float) else (scale_factor or (1.0,))[i]
        stride = round(factor)
        if stride != factor or stride < 1:
            raise ValueError(f"it scales by {factor:g}; only integer factors give all units the same neighborhood")
        if mode != "bilinear":
            return Layer(stride, stride, transposed=True)
        # Weights fall to zero at the centers of the neighbors, where output units lie if the stride is odd.
        kernel = 2 * stride - stride % 2
        return Layer(kernel, stride, padding=(kernel - stride) // 2, transposed=True)

    return side(0), side(1)


def _pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Layers:
    left, right, top, bottom = [*pad, 0, 0][:4]
    if any(pad[4:]):
        raise ValueError("it pads more than height and width")
    return Layer(1, padding=(top, bottom)), Layer(1, padding=(left, right))


def _index_select(x: Tensor, dim: int, index: Tensor) -> Layers:
    """Padding whose pixels are picked by position, such as repeated reflection."""
    axis = dim % 4
    if axis < 2:
        return POINT, POINT
    # The image is where all its positions follow one another; of several such places, take the middle one.
    size, padded = x.shape[axis], len(index)
    starts = [s for s in range(padded - size + 1) if torch.equal(index[s : s + size], torch.arange(size))]
    if not starts:
        raise ValueError("the positions that it picks do not contain the image with padding around it")
    before = min(starts, key=lambda start: abs(padded - size - 2 * start))
    layer = Layer(1, padding=(before, padded - size - before))
    return (layer, POINT) if axis == 2 else (POINT, layer)


def _getitem(x: Tensor, index: Index | tuple[Index, ...]) -> Layers:
    """Return the geometry of a crop."""
    items = index if isinstance(index, tuple) else (index,)
    if Ellipsis in items:
        place = items.index(Ellipsis)
        items = items[:place] + (slice(None),) * (5 - len(items)) + items[place + 1 :]
    _, _, rows, columns = items + (slice(None),) * (4 - len(items))

    def side(item: Index, size: int) -> Layer:
        if not isinstance(item, slice):
            raise ValueError("it picks a single row or column")
        start, stop, step = item.indices(size)
        return Layer(1, stride=step, padding=(-start, stop - size))

    return side(rows, x.shape[2]), side(columns, x.shape[3])


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Layers:
    if dim % 4 > 1:
        raise ValueError("it joins images along height or width")
    return POINT, POINT


# Each takes the arguments of the torch function of this name.
_LAYERS: Mapping[str, tuple[str, Callable[..., Layers]]] = {
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
