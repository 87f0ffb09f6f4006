"""What a checkpoint holds as tensors: anything with ``state_dict`` and ``load_state_dict``."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ganvas.errors import UserError
from ganvas.models.folder import load_weights

Tensors = Mapping[str, Mapping[str, Tensor]]  # by file and name


class Stateful(Protocol):
    """A network, an optimizer, a running average, an image pool: whatever a resumed run has to restore."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors by name."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> object:
        """Restore what `state_dict` returned."""


def tensors_of(stateful: Mapping[str, Stateful]) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of all parts."""
    return {name: dict(part.state_dict()) for name, part in stateful.items()}


def load_states(stateful: Mapping[str, Stateful], tensors: Tensors, rank: int, where: str) -> None:
    """Restore all parts from a checkpoint's tensors.

    Args:
        stateful: The parts by name.
        tensors: Tensors by name; ``gather_states`` adds those of other processes.
        rank: Rank of this process.
        where: Source of the tensors, for messages.

    Raises:
        KeyError, ValueError, UserError: A part is missing, or does not fit.
    """
    for name, part in stateful.items():
        state = tensors.get(_of_rank(name, rank), tensors[name])
        if isinstance(part, nn.Module):
            load_weights(part, state, where)
        else:
            part.load_state_dict(state)


def gather_states(per_process: Mapping[str, Stateful], fabric: Fabric) -> dict[str, dict[str, Tensor]]:
    """Return the tensors that the other processes hold of parts that differ between processes; for the first one."""
    found: dict[str, dict[str, Tensor]] = {}
    if fabric.world_size == 1:
        return found
    for name, part in per_process.items():
        gathered = {key: torch.as_tensor(fabric.all_gather(value)) for key, value in part.state_dict().items()}
        for rank in range(1, fabric.world_size):
            found[_of_rank(name, rank)] = {key: value[rank] for key, value in gathered.items()}
    return found


def _of_rank(name: str, rank: int) -> str:
    return f"{name}.rank{rank}"


def require_finite(stateful: Mapping[str, Stateful], step: int) -> None:
    """Check all tensors, so that no checkpoint is written that cannot be continued from.

    Raises:
        UserError: A weight, a running statistic or a moment is not finite; finite losses can leave such weights.
    """
    for name, tensors in tensors_of(stateful).items():
        floats = [tensor for tensor in tensors.values() if tensor.is_floating_point() and tensor.numel()]
        if floats and not math.isfinite(float(sum(tensor.detach().float().abs().sum() for tensor in floats))):
            raise non_finite(f"{name} has non-finite values after step {step}")


def non_finite(what: str) -> UserError:
    """Return the error of a training that diverged."""
    return UserError(
        f"Training stopped: {what}. Try a lower --lr, --precision fp32 or another --gan-loss; check the dataset with "
        "python -m data_scripts check."
    )
