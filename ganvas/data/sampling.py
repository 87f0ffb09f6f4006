"""The order of samples as a function of (seed, epoch) alone, so that a run can resume at any step."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

Key = tuple[int, int]
WINDOW = 4096  # samples; our choice: a gigabyte of 256 KB files, which fits the operating system's page cache


def steps_per_epoch(length: int, batch_size: int, world_size: int = 1) -> int:
    """Return the steps in which ``world_size`` processes together see each of ``length`` samples at least once."""
    return -(-length // (batch_size * world_size))


def epoch_order(length: int, seed: int, epoch: int, shard_sizes: Sequence[int] = ()) -> np.ndarray:
    """Return the order in which an epoch visits ``length`` samples: a permutation drawn from (seed, epoch).

    Samples in shards are read like a stream: the shards in a new order each epoch, one after the other, and samples
    shuffled within windows of `WINDOW`, so that reads stay local.

    Args:
        length: Number of samples.
        seed: Seed of the permutation.
        epoch: Counted from 0.
        shard_sizes: Samples in each shard, numbered one after the other; empty without shards.
    """
    rng = np.random.default_rng([seed, epoch])
    if not shard_sizes:
        return rng.permutation(length)
    shards = np.split(np.arange(length), np.cumsum(shard_sizes)[:-1])
    stream = np.concatenate([shards[number] for number in rng.permutation(len(shards))])
    for start in range(0, length, WINDOW):
        rng.shuffle(stream[start : start + WINDOW])
    return stream


class ResumableBatchSampler(Sampler[list[Key]]):
    """Batches of (epoch, index) keys for the steps from ``start_step`` to ``stop_step - 1``.

    Epoch e visits the samples in the order of `epoch_order`. Its last step is filled up from the start of the same
    order, so that all batches have one size. The sampler is stateless: the keys of a step do not depend on
    ``start_step``.

    Args:
        length: Samples in the dataset.
        batch_size: Samples a step and process.
        seed: Seed of the orders.
        start_step: First step, counted from 0 over all epochs.
        stop_step: First step not to run.
        rank: Index of this process.
        world_size: Processes that share each step.
        shard_sizes: As in `epoch_order`.
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
        shard_sizes: Sequence[int] = (),
    ) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start_step, self.stop_step = start_step, stop_step
        self.rank, self.world_size = rank, world_size
        self.shard_sizes = shard_sizes

    def __len__(self) -> int:
        return self.stop_step - self.start_step

    def __iter__(self) -> Iterator[list[Key]]:
        per_epoch = steps_per_epoch(self.length, self.batch_size, self.world_size)
        current, order = -1, np.empty(0, dtype=np.int64)
        for step in range(self.start_step, self.stop_step):
            epoch, position = divmod(step, per_epoch)
            if epoch != current:
                current, order = epoch, epoch_order(self.length, self.seed, epoch, self.shard_sizes)
            first = (position * self.world_size + self.rank) * self.batch_size
            places = np.arange(first, first + self.batch_size) % self.length
            yield [(epoch, int(index)) for index in order[places]]
