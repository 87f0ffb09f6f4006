"""One `UserError` for whatever a decoder raises, and plain descriptions of unsupported files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ganvas.data.tiff_check import BITS, PHOTOMETRIC, SAMPLES, Directory
from ganvas.errors import UserError
from ganvas.messages import describe_error, describe_missing

CONVERT = "Convert it to PNG or JPEG."
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"jpx ": "JPEG 2000"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"
)
SIGNATURES = {  # of common formats that are not supported
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"\xff\x0a": "a JPEG XL image",
    b"8BPS": "a Photoshop document",
    b"\x76\x2f\x31\x01": "an OpenEXR image",
    b"%PDF": "a PDF document",
}


class FormatError(ValueError):
    """A file that is not a supported image; the text describes it and what to do."""


@contextlib.contextmanager
def decoding(path: Path | str) -> Iterator[None]:
    """Turn every error of opening and decoding a file into a `UserError` that names it.

    Raises:
        UserError: The block raised any exception.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: {describe_missing(Path(path), 'image')}.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path}: has too many pixels to be a safe image ({describe_error(error)}). Scale it down first: python -m "
            "data_scripts resize --huge."
        ) from None
    except FormatError as error:
        raise UserError(f"{path}: {error}") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: is not a readable image. Remove it, or save it again as PNG or JPEG.") from None
    except OSError as error:
        if error.errno is None:  # raised by Pillow
            raise _decode_error(path, describe_error(error)) from None
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, SyntaxError) as error:
        raise _decode_error(path, describe_error(error)) from None
    except Exception as error:  # a damaged file makes a decoder raise anything
        raise _decode_error(path, f"{type(error).__name__}: {describe_error(error)}") from None


def _decode_error(path: Path | str, reason: str) -> UserError:
    return UserError(f"{path}: cannot be decoded ({reason}). Remove it, or save it again.")


def describe_pages(sizes: list[tuple[int, int]]) -> str:
    """Describe a TIFF whose pages are not one image.

    Args:
        sizes: Width and height of each page.
    """
    shown = ", ".join(f"{width}x{height}" for width, height in sizes[:4]) + (", …" if len(sizes) > 4 else "")
    return (
        f"holds {len(sizes)} pages ({shown}) that are not the channels of one image: only gray pages of one size and "
        "type are joined. Save each page to a file of its own."
    )


def describe_unsupported(head: bytes) -> str | None:
    """Describe a file of an unsupported format by its first bytes, and what to do; None for unknown formats."""
    if not head:
        return "is an empty file. Copy or download it again."
    if head[4:8] == b"ftyp" and head[8:12] in BRANDS:
        name = BRANDS[head[8:12]]
        return f"is {'an' if name == 'AVIF' else 'a'} {name} image, which is not supported. {CONVERT}"
    for signature, name in SIGNATURES.items():
        if head.startswith(signature):
            return f"is {name}, which is not supported. {CONVERT}"
    text = head.lower()
    if b"<svg" in text:
        return f"is an SVG drawing, which is not supported. {CONVERT}"
    if text.lstrip().startswith((b"<!doctype html", b"<html")):
        return "is a web page (HTML) and not an image, probably from a failed download. Download it again."
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer and not the image itself. Fetch it: git lfs pull."
    return None


def describe_unsupported_tiff(page: Directory) -> str:
    """Describe a TIFF that neither tifffile nor Pillow decodes."""
    bits = page.numbers(BITS, (1,))
    shown = bits[0] if len(set(bits)) == 1 else "/".join(map(str, bits[:8]))
    return (
        f"is a TIFF of a kind that is not supported (photometric {page.number(PHOTOMETRIC, 0)}, "
        f"{page.number(SAMPLES, 1)} samples of {shown} bits). Save it as grayscale or RGB with 8 or 16 bits a sample."
    )
