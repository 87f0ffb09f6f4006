"""Skipping images that cannot be read (``--on-error skip``).

The next readable sample takes the place of one that cannot be read. The choice depends on the files alone, so a run
that is killed and resumed sees the same samples as one that was not.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch.utils.data import Dataset

from ganvas.errors import UserError, WriteError
from ganvas.log import logger

Sample = TypeVar("Sample")
MAX_SKIPS = 100  # in a row; our choice: with so many, the dataset is missing or read with the wrong options


def read_or_next(read: Callable[[int], Sample], index: int, length: int) -> tuple[Sample, list[str]]:
    """Read a sample, or the first one after it that can be read.

    Args:
        read: Returns the sample of an index, or raises `UserError`.
        index: Index of the sample.
        length: Number of samples; the first follows the last.

    Returns:
        The sample, and the errors of those before it.

    Raises:
        UserError: None of the next `MAX_SKIPS` can be read, or the disk is full.
    """
    errors: list[str] = []
    for position in range(index, index + min(length, MAX_SKIPS)):
        try:
            return read(position % length), errors
        except WriteError:  # it would occur with every sample
            raise
        except UserError as error:
            errors.append(str(error))
    raise UserError(
        f"{errors[0]} The {len(errors) - 1} after it cannot be read either: this is more than --on-error skips."
    )


class SkipCounter:
    """Counts the errors of skipped samples in this process, and logs each different one once."""

    def __init__(self) -> None:
        self.count = 0
        """Errors so far."""
        self._logged: set[str] = set()

    def add(self, errors: Iterable[str]) -> None:
        """Count errors, and log those that are new."""
        for error in errors:
            self.count += 1
            if error not in self._logged:
                self._logged.add(error)
                logger.warning("Skipped: %s", error)

    def add_batch(self, batch: dict[str, Any]) -> None:
        """Remove from a batch, and count, the errors that `SkippingDataset` added to its samples."""
        for text in batch.pop("skipped", ()):
            self.add(text.split("\0") if text else ())


def read_many(
    read: Callable[[int], Sample], indices: Iterable[int], length: int, skips: SkipCounter | None
) -> list[Sample]:
    """Read samples; with a counter, those that cannot be read are replaced as by `read_or_next`.

    Raises:
        UserError: One cannot be read and there is no counter, or as `read_or_next`.
    """
    if skips is None:
        return [read(index) for index in indices]
    found = [read_or_next(read, index, length) for index in indices]
    skips.add(error for _, errors in found for error in errors)
    return [sample for sample, _ in found]


class SkippingDataset(Dataset[dict[str, Any]]):
    """A dataset by (epoch, index) key in which the next readable sample replaces one that cannot be read.

    Errors travel within the samples, from the loader's worker processes to the process that trains.

    Args:
        dataset: Samples by (epoch, index) key.
        length: Number of samples.
    """

    def __init__(self, dataset: Dataset[dict[str, Any]], length: int) -> None:
        self._dataset, self._length = dataset, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return a sample with {"skipped": the errors of those before it, separated by zero bytes}."""
        epoch, index = key
        sample, errors = read_or_next(lambda i: self._dataset[epoch, i], index, self._length)
        return sample | {"skipped": "\0".join(errors)}
