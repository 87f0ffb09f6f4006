"""The device to compute on and the precision to compute in."""

from typing import Literal

import torch

from ganvas.errors import UserError

Precision = Literal["auto", "fp32", "bf16"]


def choose_device(requested: str) -> str:
    """Return a device's name, with "auto" resolved to "cuda", "mps" or "cpu", whichever is found first.

    Raises:
        UserError: The requested device is not available.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if requested == "auto":
        return next(name for name, found in available.items() if found)
    if not available[requested]:
        raise UserError(f"--device {requested}: torch finds no such device on this machine. Use --device cpu or auto.")
    return requested


def choose_precision(requested: Precision, device: str) -> Literal["fp32", "bf16"]:
    """Return a precision, with "auto" resolved to "bf16" where the device has native bfloat16, else "fp32"."""
    if requested != "auto":
        return requested
    return "bf16" if has_native_bf16(device) else "fp32"


def has_native_bf16(device: str) -> bool:
    """Return whether a device ("cpu", "cuda" or "mps") multiplies bfloat16 in hardware."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False  # our choice: not measured on Apple's GPUs
