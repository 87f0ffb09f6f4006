"""The order of the samples, as a function of (seed, epoch) alone: a run can go on from any step."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

Key = tuple[int, int]


def steps_per_epoch(length: int, batch_size: int, world_size: int = 1) -> int:
    """Give the steps in which ``length`` samples are seen at least once by ``world_size`` processes together."""
    return -(-length // (batch_size * world_size))


class ResumableBatchSampler(Sampler[list[Key]]):
    """Batches of (epoch, index) keys for the steps from ``start_step`` to ``stop_step - 1``.

    Epoch e visits the samples in the order of a permutation drawn from (seed, e). Its last step is filled up from the
    head of the same permutation, so that all batches have one size. Nothing is remembered from step to step: step s
    has the same keys wherever one starts.

    Args:
        length: Samples in the data set.
        batch_size: Samples a step and process.
        seed: Of the permutations.
        start_step: First step, counted from 0 over all epochs.
        stop_step: Step before which to stop.
        rank: This process's number.
        world_size: Processes that share each step.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int,
        stop_step: int,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start_step, self.stop_step = start_step, stop_step
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.stop_step - self.start_step

    def __iter__(self) -> Iterator[list[Key]]:
        per_epoch = steps_per_epoch(self.length, self.batch_size, self.world_size)
        current, order = -1, np.empty(0, dtype=np.int64)
        for step in range(self.start_step, self.stop_step):
            epoch, position = divmod(step, per_epoch)
            if epoch != current:
                current, order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.length)
            first = (position * self.world_size + self.rank) * self.batch_size
            places = np.arange(first, first + self.batch_size) % self.length
            yield [(epoch, int(index)) for index in order[places]]
