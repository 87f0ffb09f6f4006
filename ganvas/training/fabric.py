"""Fabric with its devices, and compilation."""

import torch
from lightning_fabric import Fabric
from torch import nn

from ganvas.device import choose_device
from ganvas.errors import UserError
from ganvas.log import logger
from ganvas.nn.cpu_kernels import optimize_for_cpu
from ganvas.training.config import HardwareConfig


def make_fabric(hardware: HardwareConfig) -> Fabric:
    """Start Fabric with the device and the processes of the options.

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
            precision="32-true",  # the steps cast themselves: a gradient penalty must stay in float32
            strategy="ddp" if hardware.devices > 1 else "auto",
        )
    except RuntimeError as error:  # Lightning's MisconfigurationException among them
        raise UserError(f"--device {hardware.device} --devices {hardware.devices}: {error}") from None
    fabric.launch()
    return fabric


def set_up(fabric: Fabric, network: nn.Module, *, compiled: bool = False) -> nn.Module:
    """Move a network to its device, in channels-last memory; return what to call in training.

    Create optimizers after this: the weights are now where they stay.
    """
    network.to(memory_format=torch.channels_last)
    optimize_for_cpu(network)
    return fabric.setup_module(compile_network(network) if compiled else network)


def compile_network(network: nn.Module) -> nn.Module:
    """Return the compiled network. It shares the weights, and compiles at its first call."""
    return torch.compile(network)  # type: ignore[return-value]


def can_compile(device: str) -> bool:
    """Return whether torch.compile works here, by trying it on one small layer; log a warning if not.

    Most failures are those of the machine: no C++ compiler, no Triton, a Python that is too new.
    """
    try:
        layer = torch.compile(torch.nn.Conv2d(1, 1, 3).to(device))
        layer(torch.ones(1, 1, 4, 4, device=device)).sum().backward()
    except Exception as error:  # whatever goes wrong inside a compiler
        reason = " ".join(str(error).split("\n")[:2]).strip()  # the second line is often the one that says it
        logger.warning(
            "--compile: torch.compile does not work here (%s). Continuing without it.", reason or repr(error)
        )
        return False
    return True
