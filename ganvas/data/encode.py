"""Writing of image arrays [H, W, C], uint8, uint16 or float32, by the suffix of the file."""

import math
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ganvas.data.arrays import Alpha
from ganvas.data.formats import EIGHT_BITS, ENCODING, IMAGE_SUFFIXES, JPEG_SUFFIXES, TIFF_SUFFIXES
from ganvas.data.nodata import set_nodata
from ganvas.data.raster import Raster
from ganvas.data.tensors import to_array, to_tensor
from ganvas.data.tiff import write_tiff
from ganvas.data.tiff_tags import Tags, fitting_profile
from ganvas.errors import UserError
from ganvas.files import new_file

CHANNELS = {".png": (1, 2, 3, 4), ".webp": (1, 3, 4), ".bmp": (1, 3), **dict.fromkeys(JPEG_SUFFIXES, (1, 3))}
MAX_SIDE = {".webp": 16383, **dict.fromkeys(JPEG_SUFFIXES, 65500)}  # pixels; for JPEG, the limit of libjpeg
WITH_PROFILE = JPEG_SUFFIXES | {".png", ".webp"}  # formats that store an ICC profile, besides TIFF


def require_image_suffix(path: Path) -> None:
    """Check that an image can be written under a name, before it is computed.

    Raises:
        UserError: The suffix is not that of a supported format.
    """
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise UserError(
            f"{path}: {suffix or 'no suffix'} is not an image format; use {', '.join(sorted(IMAGE_SUFFIXES))}."
        )


def write_image(path: Path, image: np.ndarray, tags: Tags | None = None, alpha: Alpha = "none") -> None:
    """Write [H, W, C], uint8, uint16 or float32; the file appears complete or not at all.

    TIFF and .npy store everything. PNG stores 1 to 4 channels (2 and 4 are gray and color with alpha; 2 with 8 bits
    only) of 8 or 16 bits, WebP 1, 3 or 4, JPEG and BMP 1 or 3 of 8 bits: deeper images are reduced to what the format
    stores.

    Args:
        path: The file.
        image: The image.
        tags: Tags of the source image, for TIFF; the ICC profile for other formats.
        alpha: What the last channel is, for TIFF; in other formats the number of channels decides.

    Raises:
        UserError: The file cannot be written, or the format does not support such an image.

    Example:
        >>> from ganvas.data.decode import read_image
        >>> write_image(Path("gradient.png"), np.arange(256, dtype=np.uint8).reshape(16, 16, 1))
        >>> read_image(Path("gradient.png"))[1, 0, 0]
        np.uint8(16)
    """
    require_image_suffix(path)
    suffix = path.suffix.lower()
    if image.shape[2] not in CHANNELS.get(suffix, (image.shape[2],)):
        raise UserError(
            f"{path}: {suffix} does not hold {image.shape[2]} channels. Write .tif or .npy, which hold any number."
        )
    side, max_side = max(image.shape[:2]), MAX_SIDE.get(suffix, math.inf)
    if side > max_side:
        raise UserError(
            f"{path}: the format does not hold this image ({side} pixels in a row; {max_side} are the most). Choose "
            "another."
        )
    if suffix in EIGHT_BITS:
        image = to_array(to_tensor(image), np.uint8)
    elif suffix == ".png" and image.dtype == np.float32:
        image = to_array(to_tensor(image), np.uint16)
    with new_file(path) as temporary:
        try:
            _encode(temporary, np.ascontiguousarray(image), tags or Tags(), alpha)
        except ValueError as error:
            raise UserError(f"{path}: the format does not hold this image ({error}). Choose another.") from None


def write_raster(path: Path, raster: Raster) -> None:
    """Write a raster with its tags, nodata pixels and alpha, such that `read_raster` returns it.

    Raises:
        UserError: As `write_image`.
    """
    array, tags = set_nodata(raster.array, raster.nodata_mask, raster.tags, raster.alpha)
    write_image(path, array, tags, raster.alpha)


def format_supports(suffix: str, image: np.ndarray, *, exactly: bool) -> bool:
    """Return whether a format stores an image's size and channels and, with ``exactly``, its dtype.

    Args:
        suffix: Suffix of the file, such as ".png".
        image: [H, W, C].
        exactly: Whether fewer bits would be wrong, as they are for values of a range of their own.
    """
    suffix, C = suffix.lower(), image.shape[2]
    if C not in CHANNELS.get(suffix, (C,)) or max(image.shape[:2]) > MAX_SIDE.get(suffix, math.inf):
        return False
    if suffix == ".png" and C == 2:
        return image.dtype == np.uint8
    dtypes = {".png": (np.uint8, np.uint16)} | dict.fromkeys(EIGHT_BITS, (np.uint8,))
    return not exactly or suffix not in dtypes or image.dtype in dtypes[suffix]


def format_preserves(suffix: str, raster: Raster) -> bool:
    """Return whether a format stores a raster without loss, with its alpha and its pixels without data."""
    suffix = suffix.lower()
    if suffix in TIFF_SUFFIXES:
        return True
    means_alpha = suffix in CHANNELS and raster.array.shape[2] in (2, 4)
    keeps_alpha = raster.alpha == ("straight" if means_alpha else "none")
    return keeps_alpha and raster.tags.nodata is None and format_supports(suffix, raster.array, exactly=True)


def _encode(path: Path, image: np.ndarray, tags: Tags, alpha: Alpha) -> None:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        np.save(path, image, allow_pickle=False)
        return
    if suffix in TIFF_SUFFIXES:
        write_tiff(path, image, tags, alpha)
        return
    alpha = "straight" if image.shape[2] in (2, 4) else "none"
    profile = fitting_profile(tags, image.shape[2], alpha) if suffix in WITH_PROFILE else None
    if image.dtype == np.uint8:
        options = ENCODING.get(suffix, {}) | ({"icc_profile": profile} if profile else {})
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path, **options)
    else:
        path.write_bytes(_encode_deep_png(image, profile))


def _encode_deep_png(image: np.ndarray, profile: bytes | None) -> bytes:
    """Encode 16-bit PNG with OpenCV, whose color order is BGR: Pillow has no mode for 16-bit color."""
    C = image.shape[2]
    if C == 2:
        raise ValueError("16-bit gray with alpha")
    if C > 2:
        image = image[..., [2, 1, 0, *range(3, C)]]
    written, content = cv2.imencode(".png", image)
    if not written:
        raise OSError(f"the encoder refused {C} channels of {image.dtype}")
    png = content.tobytes()
    if not profile:
        return png
    body = b"iCCPICC profile\0\0" + zlib.compress(profile)  # PNG 1.2, Sec. 4.2.2.4: after the header of 33 bytes
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]
