"""Image arrays [H, W, C]: supported dtypes, alpha, gray for color, and the checks of a model's input.

Does not import torch: the ONNX runner uses it.
"""

from typing import Literal, get_args

import numpy as np

from ganvas.errors import UserError

ImageDtype = Literal["uint8", "uint16", "float32"]  # from the narrowest to the widest
Alpha = Literal["none", "straight", "premultiplied"]  # what the last channel is
TOLERANCE = 1e-3  # by which floats may exceed [0, 1] after resampling
FULL_RANGE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}


def image_dtype(image: np.ndarray) -> ImageDtype:
    """Return the name of an image's dtype, as a model file stores it.

    Raises:
        ValueError: The dtype is not supported.
    """
    for name in get_args(ImageDtype):
        if image.dtype.name == name:
            return name
    raise ValueError(f"the image's type is {image.dtype}; allowed are {', '.join(get_args(ImageDtype))}")


def to_supported_dtype(array: np.ndarray) -> np.ndarray:
    """Return an array of numbers as uint8, uint16 or float32, whichever holds its dtype.

    Raises:
        ValueError: Its values are not numbers.
    """
    if array.dtype.kind not in "uif":
        raise ValueError(f"values of the type {array.dtype} are not an image")
    dtype = array.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # doubles that float32 cannot hold become infinite
        return array.astype(dtype if dtype in FULL_RANGE else np.float32, copy=False)


def invert(array: np.ndarray) -> np.ndarray:
    """Convert values whose 0 is white to values whose 0 is black, and back."""
    return 1 - array if array.dtype.kind == "f" else ~array


def apply_orientation(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (1 to 8; other values are ignored) to [H, W, C]."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def composite_over_white(array: np.ndarray, alpha: Alpha, channels: int | None) -> tuple[np.ndarray, Alpha]:
    """Composite an image over white, unless it has the expected channels including its alpha.

    Args:
        array: [H, W, C] of a supported dtype.
        alpha: Whether the last channel is alpha, and whether the others are multiplied by it.
        channels: Expected channels; None counts no alpha.

    Returns:
        The image, and what its last channel is now.
    """
    if alpha == "none" or array.shape[2] == channels:
        return array, alpha
    top = FULL_RANGE[array.dtype]
    colors, opacity = array[..., :-1].astype(np.float64), array[..., -1:] / top
    result = (colors if alpha == "premultiplied" else colors * opacity) + top * (1 - opacity)
    if array.dtype != np.float32:
        result = np.rint(result.clip(0, top))
    return result.astype(array.dtype), "none"


def expand_gray(image: np.ndarray, channels: int) -> np.ndarray:
    """Return [H, W, 1] as three equal channels where three are expected; any other image as it is."""
    return np.repeat(image, 3, axis=2) if channels == 3 and image.shape[2] == 1 else image


def to_model_input(image: np.ndarray, channels: int, *, is_stacked: bool) -> np.ndarray:
    """Check an array and return it with the channels that a model takes: gray is repeated for three channels.

    Args:
        image: [H, W, C].
        channels: Channels that the model takes.
        is_stacked: Whether each of them comes from another image, so that gray is not repeated.

    Raises:
        ValueError: It has another shape or dtype, or no pixels.
        UserError: It has another number of channels.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"the array's shape is {image.shape}; give [H, W, C] or [H, W], at least one pixel each way")
    if image.dtype not in FULL_RANGE:
        raise ValueError(f"the image's type is {image.dtype}; allowed are uint8, uint16 and float32")
    C = image.shape[2]
    if channels != C and not (C == 1 and channels == 3 and not is_stacked):
        first = image.shape[0] == channels
        hint = " Its shape looks like [C, H, W]: give [H, W, C], array.transpose(1, 2, 0)." if first else ""
        raise UserError(f"the image has {C} channels, the model takes {channels}.{hint}")
    return expand_gray(image, channels)


def require_trained_range(
    image: np.ndarray, value_range: tuple[float, float] | None, trained: ImageDtype, what: str
) -> None:
    """Refuse an image of a wider dtype than in training whose values a model's range would clip.

    A model of 8 bits and the range 0:255 would see a 16-bit image as nearly white. In the dtype of the training, and in
    narrower ones, values beyond the range are clipped as in training.

    Args:
        image: [H, W, C].
        value_range: The model's; None is the full range of each dtype, which clips nothing.
        trained: Dtype of the training images.
        what: Start of the message: the image's file and a colon, or "the image".

    Raises:
        UserError: It has such values.
    """
    dtypes = get_args(ImageDtype)
    if value_range is None or dtypes.index(image_dtype(image)) <= dtypes.index(trained):
        return
    (bottom, top), low, high = value_range, float(image.min()), float(image.max())
    tolerance = TOLERANCE * (top - bottom)
    if low < bottom - tolerance or high > top + tolerance:
        raise UserError(
            f"{what} holds {image.dtype} values of {low:g} to {high:g}; the model was trained on {trained} images, "
            f"of which it sees {bottom:g} to {top:g}. Bring the image to those values, or train with the "
            "--value-range of such images."
        )
