"""Which picture files are opened, and how they are encoded where a format leaves a choice.

Free of torch, for the ONNX runner.
"""

from typing import Any

# What Pillow may open, whatever the suffix; it knows others, of which EPS would run a program, Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
JPEG: dict[str, Any] = {"quality": 95, "subsampling": 0}
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif"})
EIGHT_BITS = JPEG_SUFFIXES | {".webp", ".bmp"}
IMAGE_SUFFIXES = EIGHT_BITS | TIFF_SUFFIXES | {".png", ".npy"}
ENCODING = {**dict.fromkeys(JPEG_SUFFIXES, JPEG), ".webp": {"quality": 95}}
