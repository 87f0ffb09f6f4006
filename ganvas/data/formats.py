"""Supported image formats, the options of their encoders, and checks of output paths.

Does not import torch: the ONNX runner uses it.
"""

import mimetypes
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ganvas.errors import UserError
from ganvas.files import require_writable

# Formats that Pillow may open, whatever the suffix. It knows others, of which EPS would run Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
JPEG: dict[str, Any] = {"quality": 95, "subsampling": 0}
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif"})
EIGHT_BITS = JPEG_SUFFIXES | {".webp", ".bmp"}
IMAGE_SUFFIXES = EIGHT_BITS | TIFF_SUFFIXES | {".png", ".npy"}
ENCODING = {**dict.fromkeys(JPEG_SUFFIXES, JPEG), ".webp": {"quality": 95}}
UNLISTED = frozenset({".npy", ".webp", ".avif", ".heic", ".jp2", ".jxl", ".jfif"})  # missing in Python's MIME types


def require_output_folder(path: Path) -> None:
    """Check that several images can be written into a folder of this name, before they are computed.

    Raises:
        UserError: The name is that of an image file, the path is a file, or its parent is read-only.
    """
    kind, _ = mimetypes.MimeTypes(filenames=()).guess_type(path.name, strict=False)  # independent of system files
    is_image = (kind or "").startswith("image/") or path.suffix.lower() in UNLISTED
    if is_image and not path.exists():
        raise UserError(
            f"{path}: is the name of an image file, and several images need a folder. Leave {path.suffix} out; or "
            "create the folder first."
        )
    require_writable(path, is_folder=True)


def require_file_name(path: Path, suffixes: Collection[str]) -> bool:
    """Return whether an output path for one image names a file, not a folder.

    Args:
        path: As the user gave it.
        suffixes: Suffixes of the formats that can be written, in lower case.

    Raises:
        UserError: The path has a file's suffix of an unsupported format and is not an existing folder.
    """
    suffix = path.suffix.lower()
    if path.is_dir() or not suffix[1:2].isalpha():
        return False
    if suffix not in suffixes:
        raise UserError(
            f"{path}: {suffix} images cannot be written. Use {', '.join(sorted(suffixes))}; or, for a folder of that "
            "name, create it first."
        )
    return True
