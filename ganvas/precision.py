"""Which precision convolutions compute in, and where bfloat16 is native. Training and translation choose alike."""

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def multiplies_bf16(device: str) -> bool:
    """Tell whether a device multiplies bfloat16 natively: "cpu", "cuda" or "mps"."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False  # our choice: not measured on Apple's GPUs
