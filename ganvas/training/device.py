"""Device, precision and threads: what "auto" means, and the Fabric that carries the devices."""

import torch
from lightning_fabric import Fabric

from ganvas.errors import UserError
from ganvas.training.config import HardwareConfig


def make_fabric(hardware: HardwareConfig) -> Fabric:
    """Start Fabric on the device and with the processes that the options ask for.

    Raises:
        UserError: The device asked for is not there.
    """
    device = choose_device(hardware.device)
    if hardware.threads is not None:
        torch.set_num_threads(hardware.threads)
    try:
        fabric = Fabric(
            accelerator=device,
            devices=hardware.devices,
            precision="32-true",  # the steps cast by themselves: a gradient penalty must not be cast
            strategy="ddp" if hardware.devices > 1 else "auto",
        )
    except RuntimeError as error:  # Lightning's MisconfigurationException among them
        raise UserError(f"--device {hardware.device} --devices {hardware.devices}: {error}") from None
    fabric.launch()
    return fabric


def choose_device(asked: str) -> str:
    """Resolve "auto" to "cuda", "mps" or "cpu".

    Raises:
        UserError: The device asked for is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return next(name for name, found in there.items() if found)
    if not there[asked]:
        raise UserError(f"--device {asked}: this machine has none that torch can use. Leave it out, or take cpu.")
    return asked


def choose_precision(asked: str, device: str) -> str:
    """Resolve "auto" to "bf16" where the hardware multiplies it natively, else "fp32"."""
    if asked != "auto":
        return asked
    if device == "cuda":
        native = torch.cuda.get_device_capability() >= (8, 0)
    elif device == "cpu":
        native = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    else:
        native = False  # our choice: not measured on Apple's GPUs
    return "bf16" if native else "fp32"
