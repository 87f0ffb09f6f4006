"""Images in and out of files, and between arrays and tensors.

An array is [H, W, C], uint8, uint16 or float32 (float in [0, 1]); a tensor is [C, H, W] float32 in [-1, 1].
"""

import contextlib
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import imagecodecs
import numpy as np
import torch
from numpy.typing import DTypeLike
from PIL import Image
from torch import Tensor

from ganvas.data.arrays import FULL_RANGE, TOLERANCE, Alpha, apply_orientation, composite_over_white, expand_gray
from ganvas.data.decode import Decoded, decode_basic, decoding, open_pillow, orientation_of, peek
from ganvas.data.encoding import EIGHT_BITS, ENCODING, IMAGE_SUFFIXES, JPEG_SUFFIXES, TIFF_SUFFIXES
from ganvas.data.sentinels import find_sentinels, number, range_without, rounded_range
from ganvas.data.tiff import Tags, fitting_profile, profile_tags, read_tiff, write_tiff
from ganvas.data.tiff_check import is_tiff
from ganvas.errors import UserError
from ganvas.files import new_file, open_regular

CHANNELS = {".png": (1, 2, 3, 4), ".webp": (1, 3, 4), ".bmp": (1, 3), **dict.fromkeys(JPEG_SUFFIXES, (1, 3))}
LONGEST_SIDE = {".webp": 16383, **dict.fromkeys(JPEG_SUFFIXES, 65500)}  # pixels; of JPEG, what its usual library writes
PROFILED = JPEG_SUFFIXES | {".png", ".webp"}  # formats with a place for an ICC profile, beside TIFF
ValueRange = tuple[float, float]


@dataclass(frozen=True)
class Raster:
    """A decoded image and what its file says beside it.

    Attributes:
        array: [H, W, C] uint8, uint16 or float32.
        tags: Of a TIFF; of other formats, an ICC profile alone.
        nodata_mask: Pixels without data, [H, W] bool.
        alpha: Whether the array's last channel is alpha, and whether the others are multiplied by it.
        conversions: What was converted or left out: "transparency", "palette", "CMYK", "animation".
    """

    array: np.ndarray
    tags: Tags
    nodata_mask: np.ndarray
    alpha: Alpha = "none"
    conversions: tuple[str, ...] = ()


def plain_raster(array: np.ndarray) -> Raster:
    """Give an array [H, W, C] as a image of which there is no more to say."""
    return Raster(array, Tags(), np.zeros(array.shape[:2], dtype=bool))


def read_image(path: Path, channels: int | None = None) -> np.ndarray:
    """Decode a image to [H, W, C] uint8, uint16 or float32.

    EXIF orientation is applied, palettes are expanded, CMYK becomes RGB. Alpha is kept where ``channels`` counts it
    (4, or 2 with grayscale), and composed over white elsewhere. Whole numbers with a sign or of more than 16 bits, and
    other floats, become float32. A .npy file holds [H, W] or [H, W, C]. Pixels without data, whose value a TIFF may
    name, get the least value that the image has elsewhere.

    Args:
        path: The file.
        channels: Channels wanted. 3 repeats a grayscale image; nothing else is converted.

    Raises:
        UserError: The file is missing, unreadable, larger than Pillow's limit against decompression bombs, or has
            another number of channels.
    """
    return read_raster(path, channels).array


def read_raster(path: Path, channels: int | None = None, *, keep_alpha: bool = False) -> Raster:
    """Decode a image as `read_image` does, and keep what its file says beside it.

    Args:
        path: The file.
        channels: Channels wanted, as in `read_image`.
        keep_alpha: Keep alpha as the last channel even if ``channels`` does not count it.

    Raises:
        UserError: As `read_image`.
    """
    with decoding(path), open_regular(path) as file:
        return decode_raster(file, path, channels, keep_alpha=keep_alpha)


def decode_raster(file: BinaryIO, where: Path, channels: int | None = None, *, keep_alpha: bool = False) -> Raster:
    """Decode an open file as `read_raster` does.

    Args:
        file: The file, which can be sought in.
        where: What it is, for messages.
        channels: As in `read_raster`.
        keep_alpha: As in `read_raster`.

    Raises:
        UserError: As `read_raster`.
    """
    with decoding(where):
        found, tags = _decode(file)
        array, alpha = found.array, found.alpha
        array, nodata_mask = _filled(array, alpha, tags)
        if not keep_alpha:
            array, alpha = composite_over_white(array, alpha, channels)
        array = array if channels is None else fit_channels(array, channels, where)
    return Raster(array, tags, nodata_mask, alpha, found.conversions)


def _filled(array: np.ndarray, alpha: Alpha, tags: Tags) -> tuple[np.ndarray, np.ndarray]:
    """Find the pixels without data, and give them the least value elsewhere; alpha has no part in either."""
    C = array.shape[2] - (alpha != "none")
    nodata_mask = tags.nodata_mask(array[:, :, :C])
    if nodata_mask.any():
        array = array.copy()
        array[nodata_mask, :C] = array[~nodata_mask, :C].min() if not nodata_mask.all() else 0
    return array, nodata_mask


@contextlib.contextmanager
def allow_huge_images() -> Iterator[None]:
    """Let images of any size be read meanwhile, in all threads: Pillow's limit against decompression bombs rests."""
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
    """Give a image [H, W, C] the channels that are wanted: 3 repeats a grayscale one; nothing else is converted.

    Args:
        image: Of any type.
        channels: How many are wanted.
        path: Where it was read from, for the message.

    Raises:
        ChannelsError: It has another number of channels.
    """
    picture = expand_gray(picture, channels)
    if picture.shape[2] != channels:
        raise ChannelsError(path, picture.shape[2], channels)
    return picture


def read_stacked(paths: Sequence[Path], channels: int) -> Raster:
    """Read images of one size and type and join their channels; the tags are the first one's.

    Args:
        paths: The files.
        channels: Channels wanted in all.

    Raises:
        UserError: A file cannot be read, they differ in size or type, or have other channels in all.
    """
    pictures = [read_raster(path) for path in paths]
    kinds = {(picture.array.shape[:2], picture.array.dtype.name) for picture in pictures}
    if len(kinds) > 1:
        found = ", ".join(
            f"{path} {p.array.shape[1]}x{p.array.shape[0]} {p.array.dtype}"
            for path, p in zip(paths, pictures, strict=True)
        )
        raise UserError(f"These images are to be stacked, and differ in size or type: {found}. Make them alike.")
    nodata_mask = np.logical_or.reduce([picture.nodata_mask for picture in pictures])
    joined = np.concatenate([picture.array for picture in pictures], axis=2)
    if joined.shape[2] != channels:
        each = " + ".join(str(picture.array.shape[2]) for picture in pictures)
        raise UserError(
            f"{', '.join(map(str, paths))}: have {each} = {joined.shape[2]} channels, {channels} are expected. Give "
            f"--source-channels {joined.shape[2]}."
        )
    return Raster(joined, pictures[0].tags, nodata_mask)


def require_range(picture: np.ndarray, value_range: ValueRange | None, what: str) -> np.ndarray:
    """Refuse values that the network cannot be given; give the image back.

    Args:
        image: [H, W, C].
        value_range: As in `to_tensor`; without one, floats have to lie in [0, 1].
        what: Begins the message: the image's file and a colon, or "the image".

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


def _decode(file: BinaryIO) -> tuple[Decoded, Tags]:
    """Decode by the library that knows the format: Pillow, but TIFF mostly by tifffile, 16-bit PNG by imagecodecs."""
    head = peek(file)
    if is_tiff(head) and (tiff := read_tiff(file, Image.MAX_IMAGE_PIXELS)) is not None:
        conversion = "transparency" if tiff.alpha != "none" else "CMYK" if tiff.is_cmyk else ""
        return Decoded(tiff.picture, tiff.alpha, (conversion,) if conversion else ()), tiff.tags
    found = _decode_deep_png(file) if _is_deep_png(head) else decode_basic(file)
    return found, profile_tags(found.profile)


def _is_deep_png(head: bytes) -> bool:
    return head.startswith(b"\x89PNG") and head[12:16] == b"IHDR" and head[24:25] == b"\x10"


def _decode_deep_png(file: BinaryIO) -> Decoded:
    """Decode 16-bit PNG, for whose colors and alpha Pillow has no mode; chunk tRNS becomes alpha."""
    with open_pillow(file) as image:  # which checks the size
        profile, orientation = image.info.get("icc_profile"), orientation_of(image)
    file.seek(0)
    array = imagecodecs.png_decode(file.read())
    array = apply_orientation(array if array.ndim == 3 else array[:, :, None], orientation)
    if array.shape[2] in (1, 3):
        return Decoded(array, profile=profile)
    return Decoded(array, "straight", ("transparency",), profile)


def require_image_suffix(path: Path) -> None:
    """Refuse a name that no image can be written under; ask this before the work whose result it is to hold.

    Raises:
        UserError: The suffix is that of no image format.
    """
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise UserError(f"{path}: {suffix or 'no suffix'} is no image format; use {', '.join(sorted(IMAGE_SUFFIXES))}.")


def write_image(path: Path, picture: np.ndarray, tags: Tags | None = None, alpha: Alpha = "none") -> None:
    """Write [H, W, C], uint8, uint16 or float32, by the file's suffix.

    TIFF and .npy hold everything. PNG holds 1 to 4 channels (2 and 4 are gray and color with alpha; 2 with 8 bits
    only) of 8 or 16 bits, WebP 1, 3 or 4, JPEG and BMP 1 or 3 of 8 bits: deeper images are brought to what the format
    holds. The file appears whole or not at all.

    Args:
        path: The file.
        image: The image.
        tags: What a TIFF is to say beside its pixels: those of the image that this one was made from.
        alpha: What a TIFF is to say of the last channel; in other formats the number of channels tells.

    Raises:
        UserError: The place cannot be written, or the format does not hold such a image.
    """
    require_image_suffix(path)
    suffix = path.suffix.lower()
    if picture.shape[2] not in CHANNELS.get(suffix, (picture.shape[2],)):
        raise UserError(
            f"{path}: {suffix} does not hold {picture.shape[2]} channels. Write .tif or .npy, which hold any number."
        )
    longest, most = max(picture.shape[:2]), LONGEST_SIDE.get(suffix, math.inf)
    if longest > most:
        raise UserError(
            f"{path}: the format does not hold this image ({longest} pixels in a row; {most} are the most). Choose "
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
            raise UserError(f"{path}: the format does not hold this image ({error}). Choose another.") from None


def apply_nodata(suffix: str, picture: np.ndarray, nodata_mask: np.ndarray, tags: Tags) -> tuple[np.ndarray, Tags]:
    """Mark pixels without data as a format can: by a value that the file names, which is TIFF's alone, or just by it.

    Args:
        suffix: Of the file, such as ".png".
        image: [H, W, C], that has no alpha but for what the format takes for it.
        nodata_mask: [H, W] bool.
        tags: Of the image that this one was made from.
    """
    is_tiff = suffix.lower() in TIFF_SUFFIXES
    has_alpha = suffix.lower() in (".png", ".webp") and picture.shape[2] in (2, 4)
    return tags.apply_nodata(picture, nodata_mask, "straight" if has_alpha else "none", is_told=is_tiff)


def write_raster(path: Path, picture: Raster) -> None:
    """Write a image with what is known of it beside its pixels, so that `read_raster` gives it back.

    Raises:
        UserError: As `write_image`.
    """
    array, tags = picture.tags.apply_nodata(picture.array, picture.nodata_mask, picture.alpha)
    write_image(path, array, tags, picture.alpha)


def format_supports(suffix: str, picture: np.ndarray, *, exactly: bool) -> bool:
    """Tell whether a format holds a image's size and channels and, if it is to do so exactly, its type.

    Args:
        suffix: Of the file, such as ".png".
        image: [H, W, C].
        exactly: Whether bringing it to fewer bits would be wrong, as it is for values of a range of their own.
    """
    suffix, C = suffix.lower(), picture.shape[2]
    if C not in CHANNELS.get(suffix, (C,)) or max(picture.shape[:2]) > LONGEST_SIDE.get(suffix, math.inf):
        return False
    if suffix == ".png" and C == 2:
        return picture.dtype == np.uint8
    types = {".png": (np.uint8, np.uint16)} | dict.fromkeys(EIGHT_BITS, (np.uint8,))
    return not exactly or suffix not in types or picture.dtype in types[suffix]


def format_preserves(suffix: str, picture: Raster) -> bool:
    """Tell whether a format holds a image's pixels exactly, and alpha and pixels without data as what they are.

    Args:
        suffix: Of the file, such as ".png".
        image: The image.
    """
    suffix = suffix.lower()
    if suffix in TIFF_SUFFIXES:
        return True
    means_alpha = suffix in CHANNELS and picture.array.shape[2] in (2, 4)
    has_alpha = picture.alpha == ("straight" if means_alpha else "none")
    return has_alpha and picture.tags.nodata is None and format_supports(suffix, picture.array, exactly=True)


def _encode(path: Path, picture: np.ndarray, tags: Tags, alpha: Alpha) -> None:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        np.save(path, picture, allow_pickle=False)
        return
    if suffix in TIFF_SUFFIXES:
        write_tiff(path, picture, tags, alpha)
        return
    meaning: Alpha = "straight" if picture.shape[2] in (2, 4) else "none"
    profile = fitting_profile(tags, picture.shape[2], meaning) if suffix in PROFILED else None
    if picture.dtype == np.uint8:
        options = ENCODING.get(suffix, {}) | ({"icc_profile": profile} if profile else {})
        Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(path, **options)
    else:
        path.write_bytes(_encode_deep_png(picture, profile))


def _encode_deep_png(picture: np.ndarray, profile: bytes | None) -> bytes:
    """Encode 16 bits, for which Pillow has a mode for gray alone; OpenCV has blue first."""
    C = picture.shape[2]
    if C == 2:
        raise ValueError("16-bit gray with alpha")
    if C > 2:
        picture = picture[..., [2, 1, 0, *range(3, C)]]
    written, content = cv2.imencode(".png", picture)
    if not written:
        raise OSError(f"the encoder refused {C} channels of {picture.dtype}")
    png = content.tobytes()
    if not profile:
        return png
    body = b"iCCPICC profile\0\0" + zlib.compress(profile)  # PNG 1.2, Sec. 4.2.2.4: after the header of 33 bytes
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]


def to_tensor(picture: np.ndarray, value_range: ValueRange | None = None) -> Tensor:
    """Give [H, W, C] of any supported type as [C, H, W] float32 in [-1, 1].

    Args:
        image: uint8, uint16 or float32.
        value_range: The values that become -1 and 1; what lies beyond is cut. By default the type's own: 0 and its
            largest value, of floats 0 and 1.

    Raises:
        ValueError: Another type.
    """
    if picture.dtype not in FULL_RANGE:
        raise ValueError(f"the image's type is {picture.dtype}; allowed are uint8, uint16 and float32")
    low, high = value_range or (0.0, FULL_RANGE[picture.dtype])
    # In place and in NumPy: many small images a second would wait for torch's threads.
    values = np.ascontiguousarray(picture.transpose(2, 0, 1)).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite stays so
        values -= np.float32(low)
        values *= np.float32(2 / (high - low))
        values -= 1
    return torch.from_numpy(values if value_range is None else values.clip(-1, 1))


def to_array(picture: Tensor, dtype: DTypeLike, value_range: ValueRange | None = None) -> np.ndarray:
    """Give [C, H, W] in [-1, 1] as [H, W, C] of ``dtype``: clipped, and rounded to whole numbers for integers.

    Args:
        image: The tensor.
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


def to_display(picture: np.ndarray, value_range: ValueRange | None = None) -> np.ndarray:
    """Bring [H, W, C] of any supported type to [H, W, 3] uint8: gray is repeated, of many channels three are shown.

    Args:
        image: uint8, uint16 or float32.
        value_range: The values that become black and white, as in `to_tensor`.
    """
    picture = to_array(to_tensor(np.nan_to_num(picture), value_range), np.uint8)
    return picture[..., :3] if picture.shape[2] >= 3 else picture[..., :1].repeat(3, axis=2)
