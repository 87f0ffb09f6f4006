"""Pictures in and out of files, and between arrays and tensors.

An array is [H, W, C], uint8, uint16 or float32 (float in [0, 1]); a tensor is [C, H, W] float32 in [-1, 1].
"""

import os
import struct
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import DTypeLike
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from ganvas.errors import UserError
from ganvas.files import cannot_write

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
ORIENTATION = 0x0112  # tag of TIFF and EXIF
TIFF_LZW = 5  # TIFF 6.0 Sec. 13; OpenCV 4 would write float colour with loss
FULL_RANGE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}

_one_at_a_time = threading.Lock()


def list_images(folder: Path, *, recursive: bool = False) -> list[Path]:
    """List the pictures of a folder, sorted by path; other files are passed over.

    Raises:
        UserError: The folder is missing, or no folder.
    """
    if not folder.exists():
        raise UserError(f"{folder}: there is no such folder.")
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; expected a folder of pictures.")
    found = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."))


def read_image(path: Path, channels: int | None = None) -> np.ndarray:
    """Decode a picture to [H, W, C] uint8, uint16 or float32.

    EXIF orientation is applied, palettes are expanded, CMYK becomes RGB, and alpha is composed over white.

    Args:
        path: The file.
        channels: Channels wanted. 3 repeats a grayscale picture; nothing else is converted.

    Raises:
        UserError: The file is missing, unreadable, larger than Pillow's limit against decompression bombs, or has
            another number of channels.
    """
    try:
        array = _decode(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such picture.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: has too many pixels to be a safe picture ({error}). Scale it down first.") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: is no picture that can be read. Remove it, or save it anew as PNG or JPEG.") from None
    except (OSError, SyntaxError, ValueError, cv2.error) as error:
        raise UserError(f"{path}: cannot be decoded ({error}). Remove it, or save it anew.") from None
    return array if channels is None else fit_channels(array, channels, path)


def fit_channels(picture: np.ndarray, channels: int, path: Path) -> np.ndarray:
    """Give a picture [H, W, C] the channels that are wanted: 3 repeats a grayscale one; nothing else is converted.

    Args:
        picture: Of any type.
        channels: How many are wanted.
        path: Where it was read from, for the message.

    Raises:
        UserError: It has another number of channels.
    """
    if channels == 3 and picture.shape[2] == 1:
        return np.repeat(picture, 3, axis=2)
    if picture.shape[2] != channels:
        raise UserError(
            f"{path}: has {picture.shape[2]} channels, {channels} are expected. Convert the file, or train with as "
            "many channels (--source-channels, --target-channels)."
        )
    return picture


def _decode(path: Path) -> np.ndarray:
    """Decode by Pillow, or by OpenCV where Pillow has no mode for the depth: colour of 16 bits or float."""
    try:
        with _open(path) as file:
            if not any("RGB" in str(tile.args) and "16" in str(tile.args) for tile in file.tile):
                return _as_array(ImageOps.exif_transpose(file))
            # OpenCV itself turns a TIFF as its tag says, but no PNG.
            orientation = 1 if file.format == "TIFF" else file.getexif().get(ORIENTATION, 1)
    except UnidentifiedImageError:
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise
        _refuse_huge_tiff(path)
        orientation = 1
    return _turned(_decode_deep(path), orientation)


def _open(path: Path) -> ImageFile.ImageFile:
    """Read the header; more pixels than Pillow's limit are an error, not a warning.

    Python's list of warning filters belongs to all threads, so only one of them may change it at a time.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path)


def _refuse_huge_tiff(path: Path) -> None:
    """Hold a TIFF that Pillow has no mode for to the same limit of pixels.

    Raises:
        UnidentifiedImageError: It is no TIFF.
        Image.DecompressionBombError: It has more pixels than Pillow's limit.
    """
    with path.open("rb") as file:
        header = file.read(16)
        is_big = 43 in header[2:4]  # BigTIFF's version; TIFF's is 42
        try:
            directory = TiffImagePlugin.ImageFileDirectory_v2(header if is_big else header[:8])
            file.seek(directory.next)
            directory.load(file)
            pixels = int(directory[TiffImagePlugin.IMAGEWIDTH]) * int(directory[TiffImagePlugin.IMAGELENGTH])
        except (KeyError, TypeError, SyntaxError, struct.error):
            raise UnidentifiedImageError from None
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"{pixels} pixels, the limit is {Image.MAX_IMAGE_PIXELS}")


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (1 to 8) to [H, W, C]."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _decode_deep(path: Path) -> np.ndarray:
    array = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise UnidentifiedImageError
    if array.dtype not in FULL_RANGE or array.ndim != 3 or array.shape[2] not in (3, 4):
        raise ValueError(f"{array.dtype} with shape {array.shape} is not supported")
    if array.shape[2] == 4:
        top, alpha = FULL_RANGE[array.dtype], array[..., 3:] / FULL_RANGE[array.dtype]
        composed = array[..., :3] * alpha + top * (1 - alpha)
        array = (composed if array.dtype == np.float32 else np.rint(composed)).astype(array.dtype)
    return array[..., ::-1]  # OpenCV has blue first


def _as_array(picture: Image.Image) -> np.ndarray:
    """Give Pillow's modes as arrays of their own depth."""
    if picture.mode in ("I;16", "I;16B", "I;16L", "I"):
        array = np.asarray(picture)
        if array.min() < 0 or array.max() > 65535:
            raise ValueError("32-bit integers beyond 16 bits are not supported")
        return array.astype(np.uint16)[:, :, None]
    if picture.mode == "F":
        return np.asarray(picture, dtype=np.float32)[:, :, None]
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"))[:, :, None]
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))
    return np.asarray(picture.convert("RGB"))


def write_image(path: Path, picture: np.ndarray) -> None:
    """Write [H, W, C] (1 or 3 channels; uint8, or uint16 and float32 where the format has them) by the file's suffix.

    The file appears whole or not at all.

    Raises:
        UserError: The place cannot be written, or the format does not hold such a picture.
    """
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise UserError(
            f"{path}: {suffix or 'no suffix'} is no picture format; use {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    if picture.shape[2] not in (1, 3):
        raise UserError(f"{path}: {picture.shape[2]} channels cannot be written as one picture; 1 and 3 can.")
    if picture.dtype != np.uint8 and suffix not in (".png", ".tif", ".tiff"):
        picture = to_array(to_tensor(picture), np.uint8)  # JPEG, WebP and BMP hold 8 bits
    if picture.dtype == np.float32 and suffix == ".png":
        picture = to_array(to_tensor(picture), np.uint16)
    aside = path.with_name(f".{path.stem}.new-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _encode(aside, np.ascontiguousarray(picture))
        aside.replace(path)
    except ValueError as error:  # Pillow's, for a WebP of too many pixels a side
        raise UserError(f"{path}: the format does not hold this picture ({error}). Choose another.") from None
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _encode(path: Path, picture: np.ndarray) -> None:
    flat = picture[:, :, 0] if picture.shape[2] == 1 else picture
    if picture.dtype == np.uint8:
        options: dict[str, Any] = {"quality": 95, "subsampling": 0} if path.suffix.lower() in (".jpg", ".jpeg") else {}
        Image.fromarray(flat).save(path, **options)
        return
    # Pillow has no 16-bit or float colour; OpenCV writes both, blue first.
    lossless = [cv2.IMWRITE_TIFF_COMPRESSION, TIFF_LZW] if path.suffix.lower() in (".tif", ".tiff") else []
    written, content = cv2.imencode(path.suffix, flat[:, :, ::-1] if flat.ndim == 3 else flat, lossless)
    if not written:
        raise OSError(f"the encoder refused {picture.shape[2]} channels of {picture.dtype}")
    path.write_bytes(content.tobytes())


def to_tensor(picture: np.ndarray) -> Tensor:
    """Give [H, W, C] of any supported type as [C, H, W] float32 in [-1, 1].

    Raises:
        ValueError: Another type.
    """
    if picture.dtype not in FULL_RANGE:
        raise ValueError(f"the picture's type is {picture.dtype}; allowed are uint8, uint16 and float32")
    values = torch.from_numpy(np.ascontiguousarray(picture).astype(np.float32))
    return values.permute(2, 0, 1).mul(2 / FULL_RANGE[picture.dtype]).sub(1).contiguous()


def to_array(picture: Tensor, dtype: DTypeLike) -> np.ndarray:
    """Give [C, H, W] in [-1, 1] as [H, W, C] of ``dtype``: clipped, and rounded to whole numbers for integers.

    Raises:
        ValueError: Another type.
    """
    kind = np.dtype(dtype)
    if kind not in FULL_RANGE:
        raise ValueError(f"the type asked for is {kind}; allowed are uint8, uint16 and float32")
    values = picture.detach().float().cpu().clamp(-1, 1).add(1).mul(FULL_RANGE[kind] / 2).permute(1, 2, 0).numpy()
    return values.astype(kind) if kind == np.float32 else np.rint(values).astype(kind)


def for_the_eye(picture: np.ndarray) -> np.ndarray:
    """Bring [H, W, C] of any supported type to [H, W, 3] uint8: gray is repeated, of many channels three are shown."""
    picture = to_array(to_tensor(np.nan_to_num(picture)), np.uint8)
    return picture[..., :3] if picture.shape[2] >= 3 else picture[..., :1].repeat(3, axis=2)
