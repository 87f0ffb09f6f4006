"""Reading of image files of any supported format and depth as arrays [H, W, C] of uint8, uint16 or float32."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL import Image

from ganvas.data.arrays import apply_orientation, composite_over_white, expand_gray
from ganvas.data.decode_basic import Decoded, decode_basic, open_pillow, orientation_of, peek
from ganvas.data.decode_errors import decoding
from ganvas.data.nodata import fill_nodata
from ganvas.data.raster import Raster
from ganvas.data.tiff import read_tiff
from ganvas.data.tiff_check import is_tiff
from ganvas.data.tiff_tags import Tags, profile_tags
from ganvas.errors import UserError
from ganvas.files import open_regular


def read_image(path: Path, channels: int | None = None) -> np.ndarray:
    """Read an image as [H, W, C] uint8, uint16 or float32.

    EXIF orientation is applied, palettes are expanded, CMYK becomes RGB. Alpha is kept where ``channels`` counts it
    (4, or 2 with grayscale), and composited over white elsewhere. Signed integers, integers of more than 16 bits and
    other floats become float32. A .npy file holds [H, W] or [H, W, C]. Pixels without data, whose value a TIFF may
    define, get the smallest value that the image has elsewhere.

    Args:
        path: The file.
        channels: Expected channels. 3 repeats a grayscale image; nothing else is converted.

    Raises:
        UserError: The file is missing, unreadable, larger than Pillow's limit against decompression bombs, or has
            another number of channels.
    """
    return read_raster(path, channels).array


def read_raster(path: Path, channels: int | None = None, *, keep_alpha: bool = False) -> Raster:
    """Read an image as `read_image` does, with its tags, nodata mask and alpha.

    Args:
        path: The file.
        channels: Expected channels, as in `read_image`.
        keep_alpha: Keep alpha as the last channel even if ``channels`` does not count it.

    Raises:
        UserError: As `read_image`.
    """
    with decoding(path), open_regular(path) as file:
        return decode_raster(file, path, channels, keep_alpha=keep_alpha)


def decode_raster(file: BinaryIO, path: Path, channels: int | None = None, *, keep_alpha: bool = False) -> Raster:
    """Decode an open, seekable file as `read_raster` does; ``path`` names it in messages."""
    with decoding(path):
        decoded, tags = _decode(file)
        array, nodata_mask = fill_nodata(decoded.array, decoded.alpha, tags)
        alpha = decoded.alpha
        if not keep_alpha:
            array, alpha = composite_over_white(array, alpha, channels)
        array = array if channels is None else fit_channels(array, channels, path)
    return Raster(array, tags, nodata_mask, alpha, decoded.conversions)


def _decode(file: BinaryIO) -> tuple[Decoded, Tags]:
    """Decode with the library that knows the format: Pillow, but most TIFF with tifffile, 16-bit PNG with imagecodecs.

    tifffile does not decode palettes, single bits and some JPEG-compressed TIFF; Pillow has no mode for deep color.
    """
    head = peek(file)
    if is_tiff(head) and (tiff := read_tiff(file, Image.MAX_IMAGE_PIXELS)) is not None:
        conversion = "transparency" if tiff.alpha != "none" else "CMYK" if tiff.is_cmyk else ""
        return Decoded(tiff.array, tiff.alpha, (conversion,) if conversion else ()), tiff.tags
    is_deep_png = head.startswith(b"\x89PNG") and head[12:16] == b"IHDR" and head[24:25] == b"\x10"
    decoded = _decode_deep_png(file) if is_deep_png else decode_basic(file)
    return decoded, profile_tags(decoded.profile)


def _decode_deep_png(file: BinaryIO) -> Decoded:
    """Decode 16-bit PNG; chunk tRNS becomes alpha."""
    with open_pillow(file) as image:  # which checks the size
        profile, orientation = image.info.get("icc_profile"), orientation_of(image)
    file.seek(0)
    array = imagecodecs.png_decode(file.read())
    array = apply_orientation(array if array.ndim == 3 else array[:, :, None], orientation)
    if array.shape[2] in (1, 3):
        return Decoded(array, profile=profile)
    return Decoded(array, "straight", ("transparency",), profile)


@contextlib.contextmanager
def allow_huge_images() -> Iterator[None]:
    """Lift Pillow's limit against decompression bombs within the block, in all threads."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


class ChannelsError(UserError):
    """An image has an unexpected number of channels."""

    def __init__(self, path: Path, found: int, expected: int) -> None:
        super().__init__(
            f"{path}: has {found} channels, {expected} are expected. Convert the file, or train with as many channels "
            "as it has (train --help names the options)."
        )
        self.path, self.found, self.expected = path, found, expected


def fit_channels(image: np.ndarray, channels: int, path: Path) -> np.ndarray:
    """Return [H, W, C] with the expected channels: 3 repeats a grayscale image, nothing else is converted.

    Raises:
        ChannelsError: It has another number of channels.
    """
    image = expand_gray(image, channels)
    if image.shape[2] != channels:
        raise ChannelsError(path, image.shape[2], channels)
    return image


def read_stacked(paths: Sequence[Path], channels: int) -> Raster:
    """Read images of one size and dtype and concatenate their channels; the tags are those of the first.

    Raises:
        UserError: A file cannot be read, they differ in size or dtype, or have other channels in all.
    """
    rasters = [read_raster(path) for path in paths]
    if len({(raster.array.shape[:2], raster.array.dtype.name) for raster in rasters}) > 1:
        found = ", ".join(
            f"{path} {raster.array.shape[1]}x{raster.array.shape[0]} {raster.array.dtype}"
            for path, raster in zip(paths, rasters, strict=True)
        )
        raise UserError(f"These images are to be stacked, and differ in size or type: {found}. Make them alike.")
    stacked = np.concatenate([raster.array for raster in rasters], axis=2)
    if stacked.shape[2] != channels:
        counts = " + ".join(str(raster.array.shape[2]) for raster in rasters)
        raise UserError(
            f"{', '.join(map(str, paths))}: have {counts} = {stacked.shape[2]} channels, {channels} are expected. Give "
            f"source_channels={stacked.shape[2]}."
        )
    nodata_mask = np.logical_or.reduce([raster.nodata_mask for raster in rasters])
    return Raster(stacked, rasters[0].tags, nodata_mask)
