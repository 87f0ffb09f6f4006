"""Batches of a training set, by step: which images, in which order, on which device."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ganvas.data.sampling import ResumableBatchSampler
from ganvas.data.sampling import steps_per_epoch as steps_per_epoch
from ganvas.errors import UserError, WriteError

Batch = dict[str, Any]


@dataclass(frozen=True)
class DataSpec:
    """The training set and how it is loaded.

    Attributes:
        dataset: Samples by (epoch, index) key.
        length: Samples an epoch.
        batch_size: Samples a step and device.
        workers: Loading processes.
        shard_sizes: Samples of each shard, if they are in shards.
    """

    dataset: Dataset[Batch]
    length: int
    batch_size: int
    workers: int
    shard_sizes: Sequence[int] = ()


def load_batches(data: DataSpec, seed: int, steps: range, fabric: Fabric) -> Iterator[Batch]:
    """Load the batches of ``steps``, counted from the first one of epoch 0.

    Raises:
        UserError: An image cannot be read, or a loading process ended.
    """
    sampler = ResumableBatchSampler(
        data.length,
        data.batch_size,
        seed=seed,
        start_step=steps.start,
        stop_step=steps.stop,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        shard_sizes=data.shard_sizes,
    )
    loader: Iterable[Batch] = DataLoader(
        data.dataset,
        batch_sampler=sampler,
        num_workers=data.workers,
        pin_memory=fabric.device.type == "cuda",
        generator=torch.Generator(),  # its own: a loader that starts draws from the global one
    )
    try:
        for batch in loader:
            yield {name: _move(value, fabric.device) for name, value in batch.items()}
    except UserError as error:
        # A worker's error arrives with the worker's traceback around it.
        message = re.split(r"(?:User|Write)Error: ", str(error))[-1].strip()
        if isinstance(error, WriteError):
            raise WriteError(message) from None
        raise UserError(f"{message} Replace the file, or leave it out: --on-error skip.") from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"A process that loads images ended: {error}. If memory is short, use fewer --workers or a smaller "
            "cache_gb."
        ) from None


def _move(value: object, device: torch.device) -> object:
    if not isinstance(value, Tensor):
        return value
    layout = torch.channels_last if value.dim() == 4 else torch.preserve_format
    return value.to(device, non_blocking=True, memory_format=layout)
