"""Errors that all processes of a run raise together, so that none waits for one that has stopped."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed
from lightning_fabric import Fabric

from ganvas.errors import UserError


class Ranks:
    """The processes of a run, any of which may fail alone.

    Args:
        fabric: Device and processes. With several, create this in all of them at the same point.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._rank, self._size = fabric.global_rank, fabric.world_size
        # On the CPU, so that agreeing does not wait for a GPU.
        self._group: Any = torch.distributed.new_group(backend="gloo") if self._size > 1 else None
        self.agreed = self._size == 1
        """Whether the last exception was raised in all processes."""

    @contextlib.contextmanager
    def fail_together(self) -> Iterator[None]:
        """Raise in all processes what the block raises in any of them. The block must not communicate.

        Raises:
            Exception: What the block raised here.
            UserError: It raised in another process only.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as caught:  # the other processes have to raise too
            error = caught
        if self._group is not None:
            self._compare(error)
        if error is not None:
            raise error

    def _compare(self, error: Exception | None) -> None:
        failed = torch.tensor(int(error is not None))
        torch.distributed.all_reduce(failed, torch.distributed.ReduceOp.MAX, group=self._group)
        if not failed:
            return
        reason = None if error is None else _describe(error, self._rank)
        reasons: list[str | None] = [None] * self._size
        torch.distributed.all_gather_object(reasons, reason, group=self._group)
        self.agreed = True
        if error is None:
            raise UserError(next(each for each in reasons if each is not None))


def _describe(error: Exception, rank: int) -> str:
    return (
        str(error) if isinstance(error, UserError) else f"Process {rank} failed with {error!r}; its output says more."
    )
