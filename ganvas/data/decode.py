"""Open and decode image files with NumPy and Pillow alone, for the ONNX runner as for all else.

What a file is decides its content, not its name. Whatever a decoder raises about a file becomes one `UserError` that
names it: see `decoding`. Deep and many-channel images need more libraries; they are in `ganvas.data.images`.
"""

import contextlib
import math
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ganvas.data.arrays import FULL_RANGE, Alpha, apply_orientation, invert, to_supported_dtype
from ganvas.data.encoding import FORMATS
from ganvas.data.tiff_check import BITS, PHOTOMETRIC, SAMPLES, Directory, check_tiff, is_tiff, jpeg_frame
from ganvas.errors import UserError
from ganvas.files import open_regular
from ganvas.messages import describe_missing

NUMPY = b"\x93NUMPY"
ORIENTATION = 0x0112  # tag of EXIF
PROFILE_CHANNELS = {b"RGB ": 3, b"GRAY": 1}  # by the color space in a profile's header: ICC.1:2022, Sec. 7.2.8
DEEP = ("I;16", "I;16L", "I;16B", "I", "F")  # Pillow's modes of one channel of more than 8 bits
HEAD = 1024  # bytes that tell what a file is
CONVERT = "Convert it to PNG or JPEG."
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"jpx ": "JPEG 2000"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"
)
FOREIGN = {  # formats that people have and that are not read, by their first bytes
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"\xff\x0a": "a JPEG XL image",
    b"8BPS": "a Photoshop document",
    b"gimp xcf": "a GIMP document",
    b"\x76\x2f\x31\x01": "an OpenEXR image",
    b"#?RADIANCE": "a Radiance HDR image",
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript document",
    b"\xc5\xd0\xd3\xc6": "a PostScript document",
    **{b"P%d" % kind: "a PNM image (PBM, PGM or PPM)" for kind in range(1, 8)},
    b"icns": "an Apple icon",
    b"\0\0\1\0": "a Windows icon",
}

_one_at_a_time = threading.Lock()


class FormatError(ValueError):
    """A file that is not an image of a supported format; the text says what it is and what to do."""


@dataclass(frozen=True)
class Decoded:
    """What one file holds.

    Attributes:
        array: [H, W, C] uint8, uint16 or float32, upright.
        alpha: What the last channel is.
        conversions: What was converted or left out: "transparency", "palette", "CMYK", "animation".
        profile: An ICC profile; None where there is none.
        is_array: Whether it is a NumPy file, whose channels have no meaning.
    """

    array: np.ndarray
    alpha: Alpha = "none"
    conversions: tuple[str, ...] = ()
    profile: bytes | None = None
    is_array: bool = False


@contextlib.contextmanager
def decoding(where: Path | str) -> Iterator[None]:
    """Turn whatever opening and decoding a file raise into one `UserError` that names it.

    Args:
        where: The file, for the message.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{where}: {describe_missing(Path(where), 'image')}.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(
            f"{where}: has too many pixels to be a safe image ({error}). Scale it down first: python -m "
            "data_scripts resize --huge."
        ) from None
    except FormatError as error:
        raise UserError(f"{where}: {error}") from None
    except UnidentifiedImageError:
        raise UserError(f"{where}: is no image that can be read. Remove it, or save it again as PNG or JPEG.") from None
    except OSError as error:
        if error.errno is None:  # Pillow's own
            raise UserError(_cannot_be_decoded(where, str(error))) from None
        raise UserError(f"{where}: cannot be read ({error.strerror}).") from None
    except (ValueError, SyntaxError) as error:
        raise UserError(_cannot_be_decoded(where, str(error))) from None
    except Exception as error:  # a damaged file makes a decoder raise anything
        raise UserError(_cannot_be_decoded(where, f"{type(error).__name__}: {error}")) from None


def _cannot_be_decoded(where: Path | str, reason: str) -> str:
    reason = " ".join(reason.split())
    return f"{where}: cannot be decoded ({reason[:200]}). Remove it, or save it again."


def read_basic(path: Path) -> Decoded:
    """Open and decode a file that NumPy and Pillow can read in full depth.

    Raises:
        UserError: It cannot be opened or decoded, or holds more than they can read.
    """
    with decoding(path), open_regular(path) as file:
        return decode_basic(file)


def decode_basic(file: BinaryIO) -> Decoded:
    """Decode a NumPy array, or an image by Pillow; what is raised is for `decoding` to turn into a message."""
    head = peek(file)
    if head.startswith(NUMPY):
        return Decoded(to_supported_dtype(load_array(file)), is_array=True)
    pages: list[Directory] = []
    if is_tiff(head):
        pages = check_tiff(file)
        if len(pages) > 1:
            raise FormatError(_describe_pages(pages))
        file.seek(0)
    try:
        opened = open_pillow(file)
    except UnidentifiedImageError:
        foreign = _foreign_tiff(pages[0]) if pages else _foreign(head, file)
        if foreign is None:
            raise
        raise FormatError(foreign) from None
    with opened as image:
        _require_all_bits(image)
        conversions = ("palette",) if image.mode in ("P", "PA") else ("CMYK",) if image.mode == "CMYK" else ()
        moves = image.format in ("GIF", "WEBP", "PNG") and getattr(image, "is_animated", False)
        profile = image.info.get("icc_profile")
        array, alpha = pillow_pixels(image)
    conversions = ("transparency",) if alpha != "none" else conversions
    return Decoded(array, alpha, (*conversions, "animation") if moves else conversions, profile or None)


def peek(file: BinaryIO) -> bytes:
    """Return the first bytes of a file, which is put back to its start."""
    file.seek(0)
    head = file.read(HEAD)
    file.seek(0)
    return head


def too_many_pages(sizes: list[tuple[int, int]]) -> str:
    """Describe a TIFF whose pages are not one image.

    Args:
        sizes: Width and height of each page.
    """
    shown = ", ".join(f"{width}x{height}" for width, height in sizes[:4]) + (", …" if len(sizes) > 4 else "")
    return (
        f"holds {len(sizes)} pages ({shown}) that are not the channels of one image: only gray pages of one size and "
        "type are joined. Save each page to a file of its own."
    )


def _describe_pages(pages: list[Directory]) -> str:
    """Describe a TIFF of several pages that is not read here; gray ones of one size are read by tifffile."""
    kinds = {(page.size, page.numbers(BITS, (1,)), page.number(PHOTOMETRIC, 0)) for page in pages}
    if len(kinds) == 1 and pages[0].numbers(BITS, (1,)) in ((8,), (16,), (32,)) and pages[0].number(PHOTOMETRIC, 0) < 2:
        return f"holds {len(pages)} gray pages, which are not read without tifffile. Give it as .npy."
    return too_many_pages([page.size for page in pages])


def open_pillow(file: BinaryIO) -> ImageFile.ImageFile:
    """Read the header; more pixels than Pillow's limit are an error, not a warning.

    Pillow is given an open file, never a path: of a path it maps uncompressed pixels into memory, and then scrambles
    those that a TIFF's orientation turns by 90 degrees.

    Python's list of warning filters belongs to all threads, so only one of them may change it at a time.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(file, formats=FORMATS)


def load_array(file: BinaryIO) -> np.ndarray:
    """Read a NumPy file as [H, W, C]; code in it is never run, and nothing is allocated before its header is checked.

    Raises:
        ValueError: It holds something else than a image, or less than its header says.
        Image.DecompressionBombError: It has more pixels than Pillow's limit.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"NumPy files of version {version} hold no numbers alone")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, is_fortran, dtype = read(file)  # type: ignore[no-untyped-call]
    except ValueError:  # whose text may advise to trust the file
        raise ValueError("its header is damaged, or longer than that of an image") from None
    if dtype.kind not in "uif":
        raise ValueError(f"values of the type {dtype} are no image")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"the array's shape is {shape}; expected [H, W] or [H, W, C]")
    pixels = shape[0] * shape[1]
    if pixels > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError(f"{pixels} pixels, the limit is {Image.MAX_IMAGE_PIXELS}")
    size, start = math.prod(shape) * dtype.itemsize, file.tell()
    if file.seek(0, 2) - start < size:
        raise ValueError(f"it is cut off: its header tells of {size} bytes more than there are")
    file.seek(start)
    array = np.frombuffer(file.read(size), dtype).reshape(shape, order="F" if is_fortran else "C")
    return array if array.ndim == 3 else array[:, :, None]


def pillow_pixels(image: Image.Image) -> tuple[np.ndarray, Alpha]:
    """Return a Pillow image as [H, W, C], upright, in its own depth, and what its last channel is.

    Palettes are expanded, other colors become RGB. EXIF metadata that cannot be read turn nothing, as in viewers.
    """
    key = _transparent_value(image)
    image.load()
    orientation = orientation_of(image)  # Pillow has turned TIFF by now
    array, alpha = _values(image)
    if key is not None:
        opaque = np.where(array == key, 0, FULL_RANGE[array.dtype]).astype(array.dtype)
        array, alpha = np.concatenate([array, opaque], axis=2), "straight"
    return apply_orientation(array, orientation), alpha


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where the metadata do not say it or cannot be read."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata make their reader raise anything
        return 1
    return orientation if isinstance(orientation, int) else 1


def _values(image: Image.Image) -> tuple[np.ndarray, Alpha]:
    if image.mode in DEEP:
        array = to_supported_dtype(np.asarray(image))[:, :, None]
        is_white_zero = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0  # Pillow inverts 8 bits alone
        return invert(array) if is_white_zero else array, "none"
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))[:, :, None], "none"
    if image.mode in ("LA", "La"):
        return np.asarray(image.convert("LA")), "straight"
    if image.mode in ("PA", "RGBA", "RGBa") or "transparency" in image.info:
        return np.asarray(image.convert("RGBA")), "straight"
    return np.asarray(image.convert("RGB")), "none"


def _transparent_value(image: Image.Image) -> int | None:
    """Return the gray value that a PNG declares transparent (chunk tRNS), as it is after decoding.

    Pillow gives it in units of the file, and scales gray of 1, 2 and 4 bits to 8 when it decodes.
    """
    key = image.info.get("transparency")
    if image.mode not in ("1", "L", *DEEP) or not isinstance(key, int):
        return None
    if image.mode == "1":
        return 255 if key else 0
    return key * 255 // (2 ** _gray_bits(image, key) - 1) if image.mode == "L" else key


def _gray_bits(image: Image.Image, key: int) -> int:
    """Return how many bits a gray value had in the file; of an image that is loaded already, by its values."""
    if image.format != "PNG":
        return 8
    if tiles := getattr(image, "tile", []):
        return {"L;2": 2, "L;4": 4}.get(str(tiles[0][3]), 8)
    values = np.asarray(image)
    fitting = (bits for bits in (2, 4) if key < 2**bits and not (values % (255 // (2**bits - 1))).any())
    return next(fitting, 8)


def _require_all_bits(image: ImageFile.ImageFile) -> None:
    """Refuse 16 bits in several channels, which Pillow would reduce to 8 without a word, and 32-bit whole numbers."""
    if image.mode == "I":
        raise FormatError("has whole numbers of 32 bits, which are not read without tifffile. Give it as .npy.")
    layouts = [str(tile.args[:1] if isinstance(tile.args, tuple) else tile.args) for tile in image.tile]
    if image.format in ("PNG", "TIFF") and image.mode not in DEEP and any("16" in layout for layout in layouts):
        raise FormatError("has 16 bits in several channels, which Pillow cannot read. Give it as .npy.")


def profile_fits(profile: object, channels: int) -> bool:
    """Check whether an ICC profile describes images of so many channels, not counting alpha."""
    return isinstance(profile, bytes) and PROFILE_CHANNELS.get(profile[16:20]) == channels


def _foreign(head: bytes, file: BinaryIO) -> str | None:
    """Describe a file that Pillow may not or cannot open, and what to do about it; None where nothing is known."""
    if not head:
        return "is an empty file. Copy or download it again."
    if head[4:8] == b"ftyp" and head[8:12] in BRANDS:
        what = BRANDS[head[8:12]]
        return f"is {'an' if what == 'AVIF' else 'a'} {what} image, which is not supported. {CONVERT}"
    for start, what in FOREIGN.items():
        if head.startswith(start):
            return f"is {what}, which is not supported. {CONVERT}"
    text = head.lower()
    if b"<svg" in text:
        return f"is an SVG drawing, which is not supported. {CONVERT}"
    if text.lstrip().startswith((b"<!doctype html", b"<html")):
        return "is a web page (HTML) and not an image, probably from a failed download. Download it again."
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer and not the image itself. Fetch it: git lfs pull."
    if head.startswith(b"\xff\xd8\xff"):
        with contextlib.suppress(ValueError, IndexError, struct.error):
            file.seek(0)
            bits, *_ = jpeg_frame(file.read())
            if bits != 8:
                return f"is a JPEG of {bits} bits a sample, which is not supported. Convert it to 16-bit PNG or TIFF."
    return None


def _foreign_tiff(page: Directory) -> str:
    bits: Any = page.numbers(BITS, (1,))
    bits = bits[0] if len(set(bits)) == 1 else "/".join(map(str, bits[:8]))
    return (
        f"is a TIFF of a kind that is not supported (photometric {page.number(PHOTOMETRIC, 0)}, "
        f"{page.number(SAMPLES, 1)} samples of {bits} bits). Save it as grayscale or RGB with 8 or 16 bits a sample."
    )
