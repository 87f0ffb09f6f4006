"""What a image may be as an array [H, W, C]: its types, alpha, gray for color, values of a model's range.

Free of torch, for the ONNX runner.
"""

from typing import Literal, get_args

import numpy as np

from ganvas.errors import UserError

ImageDtype = Literal["uint8", "uint16", "float32"]  # from the narrowest to the widest
Alpha = Literal["none", "straight", "premultiplied"]  # what the last channel is
TOLERANCE = 1e-3  # of floats beyond [0, 1]: what resampling leaves
FULL_RANGE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}


def image_dtype(picture: np.ndarray) -> ImageDtype:
    """Name the type of a image, as a model file does.

    Raises:
        ValueError: It is none of the three that images have.
    """
    for name in get_args(ImageDtype):
        if picture.dtype.name == name:
            return name
    raise ValueError(f"the image's type is {picture.dtype}; allowed are {', '.join(get_args(ImageDtype))}")


def to_supported_dtype(array: np.ndarray) -> np.ndarray:
    """Return an array of numbers as uint8, uint16 or float32, whichever holds its type.

    Raises:
        ValueError: Its values are no numbers.
    """
    if array.dtype.kind not in "uif":
        raise ValueError(f"values of the type {array.dtype} are no image")
    kind = array.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # doubles that float32 cannot hold become infinite
        return array.astype(kind if kind in FULL_RANGE else np.float32, copy=False)


def invert(array: np.ndarray) -> np.ndarray:
    """Return values of a TIFF whose 0 is white as values whose 0 is black; applied twice, nothing changes."""
    return 1 - array if array.dtype.kind == "f" else ~array


def apply_orientation(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (1 to 8; others change nothing) to [H, W, C]."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def composite_over_white(array: np.ndarray, alpha: Alpha, channels: int | None) -> tuple[np.ndarray, Alpha]:
    """Compose a image over white, unless it has as many channels as are wanted with its alpha.

    Args:
        array: [H, W, C] of any type.
        alpha: Whether the last channel is alpha, and whether the others are multiplied by it.
        channels: How many are wanted; None counts no alpha.

    Returns:
        The image, and what its last channel is now.
    """
    if alpha == "none" or array.shape[2] == channels:
        return array, alpha
    return _over_white(array, premultiplied=alpha == "premultiplied"), "none"


def _over_white(array: np.ndarray, *, premultiplied: bool) -> np.ndarray:
    """Compose [H, W, C + 1], alpha last, over white: [H, W, C]."""
    top = FULL_RANGE[array.dtype]
    colours, alpha = array[..., :-1].astype(np.float64), array[..., -1:] / top
    composed = (colours if premultiplied else colours * alpha) + top * (1 - alpha)
    if array.dtype != np.float32:
        composed = np.rint(composed.clip(0, top))
    return composed.astype(array.dtype)


def expand_gray(picture: np.ndarray, channels: int) -> np.ndarray:
    """Give a gray image [H, W, 1] as three equal channels where three are wanted; any other as it is.

    Args:
        image: [H, W, C] of any type.
        channels: How many are wanted.
    """
    return np.repeat(picture, 3, axis=2) if channels == 3 and picture.shape[2] == 1 else picture


def to_model_input(picture: np.ndarray, channels: int, *, is_stacked: bool) -> np.ndarray:
    """Return an array as a model takes it: gray is repeated for one of three channels.

    Args:
        image: [H, W, C].
        channels: How many the model takes.
        is_stacked: Whether each of these is of another image, of which gray fills only one.

    Raises:
        ValueError: It has another shape or type, or no pixels.
        UserError: It has another number of channels.
    """
    if picture.ndim != 3 or 0 in picture.shape:
        raise ValueError(f"the array's shape is {picture.shape}; give [H, W, C] or [H, W], at least one pixel each way")
    if picture.dtype not in FULL_RANGE:
        raise ValueError(f"the image's type is {picture.dtype}; allowed are uint8, uint16 and float32")
    C = picture.shape[2]
    if channels != C and not (C == 1 and channels == 3 and not is_stacked):
        first = picture.shape[0] == channels
        hint = " Its shape looks like [C, H, W]: give [H, W, C], array.transpose(1, 2, 0)." if first else ""
        raise UserError(f"the image has {C} channels, the model takes {channels}.{hint}")
    return expand_gray(picture, channels)


def require_trained_range(
    picture: np.ndarray, value_range: tuple[float, float] | None, trained: ImageDtype, what: str
) -> None:
    """Refuse values that a model's range would cut, but not in training: of a wider type than it was trained with.

    A model of 8 bits and the range 0:255 would see a image of 16 bits nearly all white. In the training's own type,
    and in narrower ones, values beyond the range are cut as in training.

    Args:
        image: [H, W, C].
        value_range: The model's; None is the whole range of each image's type, which cuts nothing.
        trained: Type of the images in training.
        what: Begins the message: the image's file and a colon, or "the image".

    Raises:
        UserError: It holds such values.
    """
    widths = get_args(ImageDtype)
    if value_range is None or widths.index(image_dtype(picture)) <= widths.index(trained):
        return
    (least, most), low, high = value_range, float(picture.min()), float(picture.max())
    slack = TOLERANCE * (most - least)
    if low < least - slack or high > most + slack:
        raise UserError(
            f"{what} holds {picture.dtype} values of {low:g} to {high:g}; the model was trained on {trained} images, "
            f"of which it sees {least:g} to {most:g}. Bring the image to those values, or train with the "
            "--value-range of such images."
        )
