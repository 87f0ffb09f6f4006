"""Reading and writing of tensors as safetensors, without pickle."""

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from ganvas.errors import UserError
from ganvas.files import write_error
from ganvas.messages import describe_error


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors. Their memory layout is lost: safetensors stores contiguous tensors only.

    Raises:
        UserError: The disk is full, or the file is not writable.
    """
    try:
        path.touch()
        mode = path.stat().st_mode  # safetensors makes its files private
        safetensors.torch.save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path
        )
        path.chmod(mode)
    except (OSError, safetensors.SafetensorError) as error:
        raise write_error(path, OSError(str(error))) from None


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors to the CPU.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing. Copy the folder again, or use another checkpoint.") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: is damaged ({describe_error(error)}). Use another checkpoint.") from None
