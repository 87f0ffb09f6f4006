"""Peak memory of a training, to be printed at its end."""

import sys

import torch


def peak_memory_gb() -> float | None:
    """Give the most memory used so far in GB: the GPU's where one is used, else the process's; None where unknown."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e9
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak / 1e6  # bytes on macOS, KiB on Linux
