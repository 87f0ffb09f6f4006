"""Pictures in and out of files, and between arrays and tensors.

An array is [H, W, C], uint8, uint16 or float32 (float in [0, 1]); a tensor is [C, H, W] float32 in [-1, 1].
"""

import contextlib
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import DTypeLike
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from ganvas.data.arrays import TOLERANCE, fit_gray
from ganvas.data.encoding import EIGHT_BITS, ENCODING, FORMATS, IMAGE_SUFFIXES, JPEG_SUFFIXES, TIFF_SUFFIXES
from ganvas.data.sentinels import find_sentinels, number, range_without, rounded_range
from ganvas.data.tiff import Alpha, Tags, read_tiff, write_tiff
from ganvas.errors import UserError
from ganvas.files import new_file
from ganvas.messages import describe_missing

CHANNELS = {".png": (1, 2, 3, 4), ".webp": (1, 3, 4), ".bmp": (1, 3), **dict.fromkeys(JPEG_SUFFIXES, (1, 3))}
LONGEST_SIDE = {".webp": 16383, **dict.fromkeys(JPEG_SUFFIXES, 65500)}  # pixels; of JPEG, what its usual library writes
ORIENTATION = 0x0112  # tag of EXIF
ValueRange = tuple[float, float]
FULL_RANGE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """A decoded picture and what its file says beside it.

    Attributes:
        array: [H, W, C] uint8, uint16 or float32.
        tags: Of a TIFF; else empty.
        holes: Pixels without data, [H, W] bool.
        alpha: Whether the array's last channel is alpha, and whether the others are multiplied by it.
    """

    array: np.ndarray
    tags: Tags
    holes: np.ndarray
    alpha: Alpha = "none"


def plain_picture(array: np.ndarray) -> Picture:
    """Give an array [H, W, C] as a picture of which there is no more to say."""
    return Picture(array, Tags(), np.zeros(array.shape[:2], dtype=bool))


def read_image(path: Path, channels: int | None = None) -> np.ndarray:
    """Decode a picture to [H, W, C] uint8, uint16 or float32.

    EXIF orientation is applied, palettes are expanded, CMYK becomes RGB. Alpha is kept where ``channels`` counts it
    (4, or 2 with grayscale), and composed over white elsewhere. Whole numbers with a sign or of more than 16 bits, and
    other floats, become float32. A .npy file holds [H, W] or [H, W, C]. Pixels without data, whose value a TIFF may
    name, get the least value that the picture has elsewhere.

    Args:
        path: The file.
        channels: Channels wanted. 3 repeats a grayscale picture; nothing else is converted.

    Raises:
        UserError: The file is missing, unreadable, larger than Pillow's limit against decompression bombs, or has
            another number of channels.
    """
    return read_picture(path, channels).array


def read_picture(path: Path, channels: int | None = None, *, keep_alpha: bool = False) -> Picture:
    """Decode a picture as `read_image` does, and keep what its file says beside it.

    Args:
        path: The file.
        channels: Channels wanted, as in `read_image`.
        keep_alpha: Keep alpha as the last channel even if ``channels`` does not count it.

    Raises:
        UserError: As `read_image`.
    """
    try:
        array, alpha, tags = _decode(path)
    except FileNotFoundError:
        raise UserError(f"{path}: {describe_missing(path, 'picture')}.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path}: has too many pixels to be a safe picture ({error}). Scale it down first: python -m "
            "data_scripts resize --huge."
        ) from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: is no picture that can be read. Remove it, or save it anew as PNG or JPEG.") from None
    except (OSError, SyntaxError, ValueError, MemoryError, cv2.error) as error:
        raise UserError(f"{path}: cannot be decoded ({error}). Remove it, or save it anew.") from None
    array, holes = _filled(array, alpha, tags)
    if not keep_alpha:
        array, alpha = composed(array, alpha, channels)
    return Picture(array if channels is None else fit_channels(array, channels, path), tags, holes, alpha)


def _filled(array: np.ndarray, alpha: Alpha, tags: Tags) -> tuple[np.ndarray, np.ndarray]:
    """Find the pixels without data, and give them the least value elsewhere; alpha has no part in either."""
    C = array.shape[2] - (alpha != "none")
    holes = tags.holes(array[:, :, :C])
    if holes.any():
        array = array.copy()
        array[holes, :C] = array[~holes, :C].min() if not holes.all() else 0
    return array, holes


@contextlib.contextmanager
def huge_pictures() -> Iterator[None]:
    """Let pictures of any size be read meanwhile, in all threads: Pillow's limit against decompression bombs rests."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


class ChannelsError(UserError):
    """An image of another number of channels than are wanted.

    Args:
        path: The file.
        found: Channels that it has.
        wanted: Channels that it should have.
    """

    def __init__(self, path: Path, found: int, wanted: int) -> None:
        super().__init__(
            f"{path}: has {found} channels, {wanted} are expected. Convert the file, or train with as many channels as "
            "it has (train --help names the options)."
        )
        self.path, self.found, self.wanted = path, found, wanted


def fit_channels(picture: np.ndarray, channels: int, path: Path) -> np.ndarray:
    """Give a picture [H, W, C] the channels that are wanted: 3 repeats a grayscale one; nothing else is converted.

    Args:
        picture: Of any type.
        channels: How many are wanted.
        path: Where it was read from, for the message.

    Raises:
        ChannelsError: It has another number of channels.
    """
    picture = fit_gray(picture, channels)
    if picture.shape[2] != channels:
        raise ChannelsError(path, picture.shape[2], channels)
    return picture


def read_stacked(paths: Sequence[Path], channels: int) -> Picture:
    """Read pictures of one size and type and join their channels; the tags are the first one's.

    Args:
        paths: The files.
        channels: Channels wanted in all.

    Raises:
        UserError: A file cannot be read, they differ in size or type, or have other channels in all.
    """
    pictures = [read_picture(path) for path in paths]
    kinds = {(picture.array.shape[:2], picture.array.dtype.name) for picture in pictures}
    if len(kinds) > 1:
        found = ", ".join(
            f"{path} {p.array.shape[1]}x{p.array.shape[0]} {p.array.dtype}"
            for path, p in zip(paths, pictures, strict=True)
        )
        raise UserError(f"These pictures are to be stacked, and differ in size or type: {found}. Make them alike.")
    holes = np.logical_or.reduce([picture.holes for picture in pictures])
    joined = np.concatenate([picture.array for picture in pictures], axis=2)
    if joined.shape[2] != channels:
        each = " + ".join(str(picture.array.shape[2]) for picture in pictures)
        raise UserError(
            f"{', '.join(map(str, paths))}: have {each} = {joined.shape[2]} channels, {channels} are expected. Give "
            f"--source-channels {joined.shape[2]}."
        )
    return Picture(joined, pictures[0].tags, holes)


def require_range(picture: np.ndarray, value_range: ValueRange | None, what: str) -> np.ndarray:
    """Refuse values that the network cannot be given; give the picture back.

    Args:
        picture: [H, W, C].
        value_range: As in `to_tensor`; without one, floats have to lie in [0, 1].
        what: Begins the message: the picture's file and a colon, or "the picture".

    Raises:
        UserError: There are values that are not finite, or floats beyond [0, 1] without a range.
    """
    if picture.dtype != np.float32:
        return picture
    low, high = float(picture.min()), float(picture.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(
            f"{what} has values that are not finite (NaN or infinite). Fill them, or name the value of pixels without "
            "data in the file, as GeoTIFF does."
        )
    if value_range is None and (low < -TOLERANCE or high > 1 + TOLERANCE):
        raise UserError(
            f"{what} has values from {low:g} to {high:g}, while floats without a range have to lie in 0 to 1. "
            f"{_advice(picture)}"
        )
    return picture


def _advice(picture: np.ndarray) -> str:
    """Return what to do about floats beyond 0 to 1, with the range that these have."""
    marks = find_sentinels(picture)
    found = range_without(picture, marks)
    advice = ""
    if marks:
        first = number(next(iter(marks)))
        advice = (
            f"{first} looks like a mark of missing data: name it in the file (gdal_edit.py -a_nodata {first} FILE). "
        )
    if found is None or (found[0] >= -TOLERANCE and found[1] <= 1 + TOLERANCE):
        return advice.rstrip()
    proposed = ":".join(f"{end:g}" for end in rounded_range(*found))
    return (
        f"{advice}Train with the range of all images (for this one --value-range={proposed}; python -m data_scripts "
        "check finds that of all), or scale the values."
    )


def _decode(path: Path) -> tuple[np.ndarray, Alpha, Tags]:
    """Decode by the library that knows the format: Pillow, but TIFF mostly by tifffile, 16-bit PNG by OpenCV."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _in_three_types(_load_array(path)), "none", Tags()
    if suffix in TIFF_SUFFIXES and (tiff := read_tiff(path, Image.MAX_IMAGE_PIXELS)) is not None:
        return _turned(_in_three_types(tiff.picture), tiff.orientation), tiff.alpha, tiff.tags
    with _open(path) as file:
        if file.format == "PNG" and file.mode != "I;16" and any("16" in str(tile.args) for tile in file.tile):
            return *_decode_deep_png(path, file), Tags()
        return *_as_array(ImageOps.exif_transpose(file)), Tags()


def _load_array(path: Path) -> np.ndarray:
    """Read a NumPy file; code in it is never run.

    Raises:
        ValueError: It holds something else than a picture.
        Image.DecompressionBombError: It has more pixels than Pillow's limit.
    """
    with path.open("rb") as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"the array's shape is {array.shape}; expected [H, W] or [H, W, C]")
    if array.shape[0] * array.shape[1] > (Image.MAX_IMAGE_PIXELS or math.inf):
        pixels = array.shape[0] * array.shape[1]
        raise Image.DecompressionBombError(f"{pixels} pixels, the limit is {Image.MAX_IMAGE_PIXELS}")
    return array


def _in_three_types(array: np.ndarray) -> np.ndarray:
    """Give an array of numbers as uint8, uint16 or float32, whichever holds its type.

    Raises:
        ValueError: Its values are no numbers.
    """
    if array.dtype.kind not in "uif":
        raise ValueError(f"values of the type {array.dtype} are no picture")
    kind = array.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # doubles that float32 cannot hold become infinite
        return array.astype(kind if kind in FULL_RANGE else np.float32, copy=False)


def _open(path: Path) -> ImageFile.ImageFile:
    """Read the header; more pixels than Pillow's limit are an error, not a warning.

    Python's list of warning filters belongs to all threads, so only one of them may change it at a time.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path, formats=FORMATS)


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (1 to 8) to [H, W, C]."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _decode_deep_png(path: Path, file: ImageFile.ImageFile) -> tuple[np.ndarray, Alpha]:
    """Decode 16-bit colour or alpha, for which Pillow has no mode."""
    array = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.ndim != 3:
        raise UnidentifiedImageError
    array = array[..., [2, 1, 0, *range(3, array.shape[2])]]  # OpenCV has blue first
    if any(str(tile.args).startswith("LA") for tile in file.tile):
        array = array[..., 2:]  # OpenCV repeats gray
    turned = _turned(array, file.getexif().get(ORIENTATION, 1))  # which OpenCV does not do for PNG
    return turned, "straight" if turned.shape[2] in (2, 4) else "none"


def composed(array: np.ndarray, alpha: Alpha, channels: int | None) -> tuple[np.ndarray, Alpha]:
    """Compose a picture over white, unless it has as many channels as are wanted with its alpha.

    Args:
        array: [H, W, C] of any type.
        alpha: Whether the last channel is alpha, and whether the others are multiplied by it.
        channels: How many are wanted; None counts no alpha.

    Returns:
        The picture, and what its last channel is now.
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


def _as_array(picture: Image.Image) -> tuple[np.ndarray, Alpha]:
    """Give Pillow's modes as arrays of their own depth."""
    if picture.mode in ("I;16", "I;16B", "I;16L", "I"):
        return _in_three_types(np.asarray(picture))[:, :, None], "none"
    if picture.mode == "F":
        return np.asarray(picture, dtype=np.float32)[:, :, None], "none"
    if picture.mode == "1" or (picture.mode == "L" and "transparency" not in picture.info):
        return np.asarray(picture.convert("L"))[:, :, None], "none"
    if picture.mode in ("L", "LA"):
        return np.asarray(picture.convert("LA")), "straight"
    if picture.mode in ("PA", "RGBA") or "transparency" in picture.info:
        return np.asarray(picture.convert("RGBA")), "straight"
    return np.asarray(picture.convert("RGB")), "none"


def require_picture_suffix(path: Path) -> None:
    """Refuse a name that no picture can be written under; ask this before the work whose result it is to hold.

    Raises:
        UserError: The suffix is that of no picture format.
    """
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise UserError(
            f"{path}: {suffix or 'no suffix'} is no picture format; use {', '.join(sorted(IMAGE_SUFFIXES))}."
        )


def write_image(path: Path, picture: np.ndarray, tags: Tags | None = None, alpha: Alpha = "none") -> None:
    """Write [H, W, C], uint8, uint16 or float32, by the file's suffix.

    TIFF and .npy hold everything. PNG holds 1 to 4 channels (2 and 4 are gray and colour with alpha; 2 with 8 bits
    only) of 8 or 16 bits, WebP 1, 3 or 4, JPEG and BMP 1 or 3 of 8 bits: deeper pictures are brought to what the format
    holds. The file appears whole or not at all.

    Args:
        path: The file.
        picture: The picture.
        tags: What a TIFF is to say beside its pixels: those of the picture that this one was made from.
        alpha: What a TIFF is to say of the last channel; in other formats the number of channels tells.

    Raises:
        UserError: The place cannot be written, or the format does not hold such a picture.
    """
    require_picture_suffix(path)
    suffix = path.suffix.lower()
    if picture.shape[2] not in CHANNELS.get(suffix, (picture.shape[2],)):
        raise UserError(
            f"{path}: {suffix} does not hold {picture.shape[2]} channels. Write .tif or .npy, which hold any number."
        )
    longest, most = max(picture.shape[:2]), LONGEST_SIDE.get(suffix, math.inf)
    if longest > most:
        raise UserError(
            f"{path}: the format does not hold this picture ({longest} pixels in a row; {most} are the most). Choose "
            "another."
        )
    if suffix in EIGHT_BITS:
        picture = to_array(to_tensor(picture), np.uint8)
    elif suffix == ".png" and picture.dtype == np.float32:
        picture = to_array(to_tensor(picture), np.uint16)
    with new_file(path) as aside:
        try:
            _encode(aside, np.ascontiguousarray(picture), tags or Tags(), alpha)
        except ValueError as error:
            raise UserError(f"{path}: the format does not hold this picture ({error}). Choose another.") from None


def marked(suffix: str, picture: np.ndarray, holes: np.ndarray, tags: Tags) -> tuple[np.ndarray, Tags]:
    """Mark pixels without data as a format can: by a value that the file names, which is TIFF's alone, or just by it.

    Args:
        suffix: Of the file, such as ".png".
        picture: [H, W, C], that has no alpha but for what the format takes for it.
        holes: [H, W] bool.
        tags: Of the picture that this one was made from.
    """
    is_tiff = suffix.lower() in TIFF_SUFFIXES
    has_alpha = suffix.lower() in (".png", ".webp") and picture.shape[2] in (2, 4)
    return tags.punched(picture, holes, "straight" if has_alpha else "none", is_told=is_tiff)


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture with what is known of it beside its pixels, so that `read_picture` gives it back.

    Raises:
        UserError: As `write_image`.
    """
    array, tags = picture.tags.punched(picture.array, picture.holes, picture.alpha)
    write_image(path, array, tags, picture.alpha)


def holds(suffix: str, picture: np.ndarray, *, exactly: bool) -> bool:
    """Tell whether a format holds a picture's size and channels and, if it is to do so exactly, its type.

    Args:
        suffix: Of the file, such as ".png".
        picture: [H, W, C].
        exactly: Whether bringing it to fewer bits would be wrong, as it is for values of a range of their own.
    """
    suffix, C = suffix.lower(), picture.shape[2]
    if C not in CHANNELS.get(suffix, (C,)) or max(picture.shape[:2]) > LONGEST_SIDE.get(suffix, math.inf):
        return False
    if suffix == ".png" and C == 2:
        return picture.dtype == np.uint8
    types = {".png": (np.uint8, np.uint16)} | dict.fromkeys(EIGHT_BITS, (np.uint8,))
    return not exactly or suffix not in types or picture.dtype in types[suffix]


def holds_all(suffix: str, picture: Picture) -> bool:
    """Tell whether a format holds a picture's pixels exactly, and alpha and pixels without data as what they are.

    Args:
        suffix: Of the file, such as ".png".
        picture: The picture.
    """
    suffix = suffix.lower()
    if suffix in TIFF_SUFFIXES:
        return True
    means_alpha = suffix in CHANNELS and picture.array.shape[2] in (2, 4)
    has_alpha = picture.alpha == ("straight" if means_alpha else "none")
    return has_alpha and picture.tags.no_data is None and holds(suffix, picture.array, exactly=True)


def _encode(path: Path, picture: np.ndarray, tags: Tags, alpha: Alpha) -> None:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        np.save(path, picture, allow_pickle=False)
    elif suffix in TIFF_SUFFIXES:
        write_tiff(path, picture, tags, alpha)
    elif picture.dtype == np.uint8:
        options = ENCODING.get(suffix, {})
        Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(path, **options)
    else:
        path.write_bytes(_encode_deep_png(picture))


def _encode_deep_png(picture: np.ndarray) -> bytes:
    """Encode 16 bits, for which Pillow has a mode for gray alone; OpenCV has blue first."""
    C = picture.shape[2]
    if C == 2:
        raise ValueError("16-bit gray with alpha")
    if C > 2:
        picture = picture[..., [2, 1, 0, *range(3, C)]]
    written, content = cv2.imencode(".png", picture)
    if not written:
        raise OSError(f"the encoder refused {C} channels of {picture.dtype}")
    return content.tobytes()


def to_tensor(picture: np.ndarray, value_range: ValueRange | None = None) -> Tensor:
    """Give [H, W, C] of any supported type as [C, H, W] float32 in [-1, 1].

    Args:
        picture: uint8, uint16 or float32.
        value_range: The values that become -1 and 1; what lies beyond is cut. By default the type's own: 0 and its
            largest value, of floats 0 and 1.

    Raises:
        ValueError: Another type.
    """
    if picture.dtype not in FULL_RANGE:
        raise ValueError(f"the picture's type is {picture.dtype}; allowed are uint8, uint16 and float32")
    low, high = value_range or (0.0, FULL_RANGE[picture.dtype])
    # In place and in NumPy: many small pictures a second would wait for torch's threads.
    values = np.ascontiguousarray(picture.transpose(2, 0, 1)).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite stays so
        values -= np.float32(low)
        values *= np.float32(2 / (high - low))
        values -= 1
    return torch.from_numpy(values if value_range is None else values.clip(-1, 1))


def to_array(picture: Tensor, dtype: DTypeLike, value_range: ValueRange | None = None) -> np.ndarray:
    """Give [C, H, W] in [-1, 1] as [H, W, C] of ``dtype``: clipped, and rounded to whole numbers for integers.

    Args:
        picture: The tensor.
        dtype: uint8, uint16 or float32.
        value_range: The values that -1 and 1 become; by default the type's own, as in `to_tensor`.

    Raises:
        ValueError: Another type.
    """
    kind = np.dtype(dtype)
    if kind not in FULL_RANGE:
        raise ValueError(f"the type asked for is {kind}; allowed are uint8, uint16 and float32")
    low, high = value_range or (0.0, FULL_RANGE[kind])
    values = picture.detach().float().cpu().clamp(-1, 1).add(1).mul((high - low) / 2).add(low).permute(1, 2, 0).numpy()
    return values.astype(kind) if kind == np.float32 else np.rint(values).clip(0, FULL_RANGE[kind]).astype(kind)


def for_the_eye(picture: np.ndarray, value_range: ValueRange | None = None) -> np.ndarray:
    """Bring [H, W, C] of any supported type to [H, W, 3] uint8: gray is repeated, of many channels three are shown.

    Args:
        picture: uint8, uint16 or float32.
        value_range: The values that become black and white, as in `to_tensor`.
    """
    picture = to_array(to_tensor(np.nan_to_num(picture), value_range), np.uint8)
    return picture[..., :3] if picture.shape[2] >= 3 else picture[..., :1].repeat(3, axis=2)
