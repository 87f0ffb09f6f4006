"""How pictures are encoded where a format leaves a choice. Free of torch, for the ONNX runner."""

from typing import Any

JPEG: dict[str, Any] = {"quality": 95, "subsampling": 0}
ENCODING = {".jpg": JPEG, ".jpeg": JPEG, ".webp": {"quality": 95}}
