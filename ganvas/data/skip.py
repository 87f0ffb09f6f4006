"""Going on past images that cannot be read: ``--on-error skip``.

The sample after it takes the place of one that cannot be read. That depends on the files alone, so that a run which is
killed and resumed sees what an unbroken one sees.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch.utils.data import Dataset

from ganvas.errors import UserError, WriteError

Sample = TypeVar("Sample")
IN_A_ROW = 100  # our choice: a set that has so many is not there, or read with the wrong options


def read_or_next(read: Callable[[int], Sample], index: int, length: int) -> tuple[Sample, list[str]]:
    """Read a sample, or the first one after it that can be read.

    Args:
        read: Gives the sample of an index; a `UserError` says why it cannot.
        index: The sample wanted.
        length: How many there are; after the last comes the first.

    Returns:
        The sample, and why those before it could not be read.

    Raises:
        UserError: None of the next `IN_A_ROW` can be read, or there is no room to read them with.
    """
    errors: list[str] = []
    for place in range(index, index + min(length, IN_A_ROW)):
        try:
            return read(place % length), errors
        except WriteError:  # which no other sample escapes
            raise
        except UserError as error:
            errors.append(str(error))
    raise UserError(f"{errors[0]} Nor can the {len(errors) - 1} after it be read: this is more than --on-error skips.")


class SkipCounter:
    """What could not be read in this process: all of it is counted, and each thing said once.

    Args:
        say: Takes a line for the user.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self.count = 0
        """Errors noted so far."""
        self._say = say
        self._said: set[str] = set()

    def note(self, errors: Iterable[str]) -> None:
        """Count errors, and say those that are new."""
        for error in errors:
            self.count += 1
            if error not in self._said:
                self._said.add(error)
                self._say(f"Skipped: {error}")

    def note_batch(self, batch: dict[str, Any]) -> None:
        """Take out of a batch, and note, what `SkippingDataset` put into its samples."""
        for text in batch.pop("skipped", ()):
            self.note(text.split("\0") if text else ())


def read_many(
    read: Callable[[int], Sample], indices: Iterable[int], length: int, skips: SkipCounter | None
) -> list[Sample]:
    """Read samples; where one cannot be read and there are skips to note it in, the first after it that can.

    Raises:
        UserError: One cannot be read, and there are no skips; or as `read_or_next`.
    """
    if skips is None:
        return [read(index) for index in indices]
    found = [read_or_next(read, index, length) for index in indices]
    skips.note(error for _, errors in found for error in errors)
    return [sample for sample, _ in found]


class SkippingDataset(Dataset[dict[str, Any]]):
    """A dataset by (epoch, index) key, with the next sample in the place of one that cannot be read.

    What was skipped has to come from loading processes to the one that trains, so it travels in the samples.

    Args:
        dataset: Samples by (epoch, index) key.
        length: How many there are.
    """

    def __init__(self, dataset: Dataset[dict[str, Any]], length: int) -> None:
        self._dataset, self._length = dataset, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Give a sample with {"skipped": why those before it could not be read, with zero bytes between}."""
        epoch, index = key
        sample, errors = read_or_next(lambda place: self._dataset[epoch, place], index, self._length)
        return sample | {"skipped": "\0".join(errors)}
