"""Which image files are opened, and how they are encoded where a format leaves a choice.

Free of torch, for the ONNX runner.
"""

import mimetypes
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ganvas.errors import UserError
from ganvas.files import require_writable

# What Pillow may open, whatever the suffix; it knows others, of which EPS would run a program, Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
JPEG: dict[str, Any] = {"quality": 95, "subsampling": 0}
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif"})
EIGHT_BITS = JPEG_SUFFIXES | {".webp", ".bmp"}
IMAGE_SUFFIXES = EIGHT_BITS | TIFF_SUFFIXES | {".png", ".npy"}
ENCODING = {**dict.fromkeys(JPEG_SUFFIXES, JPEG), ".webp": {"quality": 95}}
UNLISTED = frozenset({".npy", ".webp", ".avif", ".heic", ".jp2", ".jxl", ".jfif"})  # by Python's table of types


def require_output_folder(path: Path) -> None:
    """Refuse a folder for images whose name is an image file's, or that cannot be written, before it is made.

    Raises:
        UserError: It would be a folder called "out.png", is a file, or lies in a read-only folder.
    """
    kind, _ = mimetypes.MimeTypes(filenames=()).guess_type(path.name, strict=False)  # no files of the system
    is_image = (kind or "").startswith("image/") or path.suffix.lower() in UNLISTED
    if is_image and not path.exists():
        raise UserError(
            f"{path}: is the name of an image file, and several images need a folder. Leave {path.suffix} out; or, "
            "where a folder is to be called so, make it first."
        )
    require_writable(path, is_folder=True)


def require_file_name(path: Path, suffixes: Collection[str]) -> bool:
    """Return whether the result for one image is to be a file called ``path``, or to lie in a folder of that name.

    Args:
        path: What the user gave.
        suffixes: Of the formats that can be written, in small letters.

    Raises:
        UserError: The name ends like a file's, of no format that can be written, and is no folder that is there.
    """
    suffix = path.suffix.lower()
    if path.is_dir() or not suffix[1:2].isalpha():
        return False
    if suffix not in suffixes:
        raise UserError(
            f"{path}: {suffix} images cannot be written. Use {', '.join(sorted(suffixes))}; or, where it is to be a "
            "folder, make it first."
        )
    return True
