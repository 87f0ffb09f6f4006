"""Decoding with NumPy and Pillow alone, for the ONNX runner as for everything else.

The content of a file decides its format, not its name. Deep and many-channel images are decoded by
`ganvas.data.decode`, which needs more libraries.
"""

import math
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ganvas.data.arrays import FULL_RANGE, Alpha, apply_orientation, invert, to_supported_dtype
from ganvas.data.decode_errors import (
    FormatError,
    decoding,
    describe_pages,
    describe_unsupported,
    describe_unsupported_tiff,
)
from ganvas.data.formats import FORMATS
from ganvas.data.tiff_check import BITS, PHOTOMETRIC, Directory, check_tiff, is_tiff
from ganvas.files import open_regular

NUMPY = b"\x93NUMPY"
ORIENTATION = 0x0112  # EXIF tag
PROFILE_CHANNELS = {b"RGB ": 3, b"GRAY": 1}  # by the color space in a profile's header: ICC.1:2022, Sec. 7.2.8
DEEP = ("I;16", "I;16L", "I;16B", "I", "F")  # Pillow's modes of one channel of more than 8 bits
HEAD = 1024  # bytes that identify a format

_filters_lock = threading.Lock()  # Python's warning filters belong to all threads


@dataclass(frozen=True)
class Decoded:
    """The content of one file.

    Attributes:
        array: [H, W, C] uint8, uint16 or float32, upright.
        alpha: What the last channel is.
        conversions: What was converted or left out: "transparency", "palette", "CMYK", "animation".
        profile: The ICC profile, if any.
        is_array: Whether it is a NumPy file, whose channels have no meaning.
    """

    array: np.ndarray
    alpha: Alpha = "none"
    conversions: tuple[str, ...] = ()
    profile: bytes | None = None
    is_array: bool = False


def read_basic(path: Path) -> Decoded:
    """Read a file that NumPy and Pillow decode at full depth.

    Raises:
        UserError: It cannot be opened or decoded, or has a depth that they do not support.
    """
    with decoding(path), open_regular(path) as file:
        return decode_basic(file)


def decode_basic(file: BinaryIO) -> Decoded:
    """Decode an open file as `read_basic` does; exceptions are those of the decoders (see `decoding`)."""
    head = peek(file)
    if head.startswith(NUMPY):
        return Decoded(to_supported_dtype(load_array(file)), is_array=True)
    pages: list[Directory] = []
    if is_tiff(head):
        pages = check_tiff(file)
        if len(pages) > 1:
            raise FormatError(_describe_unread_pages(pages))
        file.seek(0)
    try:
        opened = open_pillow(file)
    except UnidentifiedImageError:
        description = describe_unsupported_tiff(pages[0]) if pages else describe_unsupported(head)
        if description is None:
            raise
        raise FormatError(description) from None
    with opened as image:
        _require_full_depth(image)
        conversions = ("palette",) if image.mode in ("P", "PA") else ("CMYK",) if image.mode == "CMYK" else ()
        is_animated = image.format in ("GIF", "WEBP", "PNG") and getattr(image, "is_animated", False)
        profile = image.info.get("icc_profile")
        array, alpha = pillow_pixels(image)
    conversions = ("transparency",) if alpha != "none" else conversions
    return Decoded(array, alpha, (*conversions, "animation") if is_animated else conversions, profile or None)


def peek(file: BinaryIO) -> bytes:
    """Return the first bytes of a file, and rewind it."""
    file.seek(0)
    head = file.read(HEAD)
    file.seek(0)
    return head


def _describe_unread_pages(pages: list[Directory]) -> str:
    kinds = {(page.size, page.numbers(BITS, (1,)), page.number(PHOTOMETRIC, 0)) for page in pages}
    if len(kinds) == 1 and pages[0].numbers(BITS, (1,)) in ((8,), (16,), (32,)) and pages[0].number(PHOTOMETRIC, 0) < 2:
        return f"holds {len(pages)} gray pages, which are not read without tifffile. Give it as .npy."
    return describe_pages([page.size for page in pages])


def open_pillow(file: BinaryIO) -> ImageFile.ImageFile:
    """Open an image with Pillow; more pixels than its limit are an error, not a warning.

    It is given an open file, never a path: Pillow maps an uncompressed file of a path into memory, and then scrambles
    the pixels of a TIFF whose orientation turns it by 90 degrees.
    """
    with _filters_lock, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(file, formats=FORMATS)


def load_array(file: BinaryIO) -> np.ndarray:
    """Read a NumPy file as [H, W, C]. No pickle is loaded, and nothing is allocated before the header is checked.

    Raises:
        ValueError: It is not an image, or is truncated.
        Image.DecompressionBombError: It has more pixels than Pillow's limit.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"NumPy files of version {version} hold no numbers alone")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, is_fortran, dtype = read(file)  # type: ignore[no-untyped-call]
    except Exception:  # also TokenError, and MemoryError of Python's parser; NumPy's text may advise to trust the file
        raise ValueError("its header is damaged, or longer than that of an image") from None
    if dtype.kind not in "uif":
        raise ValueError(f"values of the type {dtype} are not an image")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"the array's shape is {shape}; expected [H, W] or [H, W, C]")
    pixels = shape[0] * shape[1]
    if pixels > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError(f"{pixels} pixels, the limit is {Image.MAX_IMAGE_PIXELS}")
    size, start = math.prod(shape) * dtype.itemsize, file.tell()
    if file.seek(0, 2) - start < size:
        raise ValueError(f"it is truncated: its header promises {size} bytes")
    file.seek(start)
    array = np.frombuffer(file.read(size), dtype).reshape(shape, order="F" if is_fortran else "C")
    return array if array.ndim == 3 else array[:, :, None]


def pillow_pixels(image: Image.Image) -> tuple[np.ndarray, Alpha]:
    """Return a Pillow image as [H, W, C], upright, at its own depth, and what its last channel is.

    Palettes are expanded and other color spaces become RGB. Unreadable EXIF metadata are ignored, as viewers do.
    """
    key = _transparent_value(image)
    image.load()
    orientation = orientation_of(image)  # load() has turned a TIFF already
    array, alpha = _values(image)
    if key is not None:
        opaque = np.where(array == key, 0, FULL_RANGE[array.dtype]).astype(array.dtype)
        array, alpha = np.concatenate([array, opaque], axis=2), "straight"
    return apply_orientation(array, orientation), alpha


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where it is missing or unreadable."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata make their reader raise anything
        return 1
    return orientation if isinstance(orientation, int) else 1


def _values(image: Image.Image) -> tuple[np.ndarray, Alpha]:
    if image.mode in DEEP:
        array = to_supported_dtype(np.asarray(image))[:, :, None]
        is_white_zero = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0  # Pillow inverts only 8 bits
        return invert(array) if is_white_zero else array, "none"
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[:, :, None], "none"
    if image.mode in ("LA", "La"):
        return np.asarray(image.convert("LA")), "straight"
    if image.mode in ("PA", "RGBA", "RGBa") or "transparency" in image.info:
        return np.asarray(image.convert("RGBA")), "straight"
    return np.asarray(image.convert("RGB")), "none"


def _transparent_value(image: Image.Image) -> int | None:
    """Return the decoded gray value that a PNG declares transparent (chunk tRNS).

    Pillow keeps it in the file's units, and scales gray of 1, 2 and 4 bits to 8 when it decodes.
    """
    key = image.info.get("transparency")
    if image.mode not in ("1", "L", *DEEP) or not isinstance(key, int):
        return None
    if image.mode == "1":
        return 255 if key else 0
    return key * 255 // (2 ** _gray_bits(image, key) - 1) if image.mode == "L" else key


def _gray_bits(image: Image.Image, key: int) -> int:
    """Return the bits of a gray value in the file; for an image that is loaded already, inferred from its values."""
    if image.format != "PNG":
        return 8
    if tiles := getattr(image, "tile", []):
        return {"L;2": 2, "L;4": 4}.get(str(tiles[0][3]), 8)
    values = np.asarray(image)
    fitting = (bits for bits in (2, 4) if key < 2**bits and not (values % (255 // (2**bits - 1))).any())
    return next(fitting, 8)


def _require_full_depth(image: ImageFile.ImageFile) -> None:
    """Refuse 16-bit color, which Pillow would silently reduce to 8 bits, and 32-bit integers."""
    if image.mode == "I":
        raise FormatError("has whole numbers of 32 bits, which are not read without tifffile. Give it as .npy.")
    layouts = [str(tile.args[:1] if isinstance(tile.args, tuple) else tile.args) for tile in image.tile]
    if image.format in ("PNG", "TIFF") and image.mode not in DEEP and any("16" in layout for layout in layouts):
        raise FormatError("has 16 bits in several channels, which Pillow cannot read. Give it as .npy.")


def profile_fits(profile: object, channels: int) -> bool:
    """Return whether an ICC profile describes images of this number of channels, not counting alpha."""
    return isinstance(profile, bytes) and PROFILE_CHANNELS.get(profile[16:20]) == channels
