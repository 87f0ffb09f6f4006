"""Fixed images of a held-out split, for samples, validation and monitors."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from ganvas.data.skip import SkipCounter, read_many
from ganvas.errors import UserError
from ganvas.training.config import ScheduleConfig, ValidationConfig

Sample = TypeVar("Sample")
Result = TypeVar("Result")


class HeldOut(Generic[Sample]):
    """Reads samples that are evenly spaced over a split, the same at each call.

    Args:
        split: Its name, for messages.
        read: Returns the sample of an index.
        length: Samples of the split.
        skips: Counts unreadable samples, which the next one replaces; None makes them errors.
    """

    def __init__(
        self, split: str, read: Callable[[int], Sample], length: int, skips: SkipCounter | None = None
    ) -> None:
        self._split, self._read, self._length, self._skips = split, read, length, skips

    def read(self, count: int) -> list[Sample]:
        """Return at most ``count`` samples.

        Raises:
            UserError: One cannot be read. The split is named, since the training images may be good.
        """
        indices = sorted({round(index) for index in np.linspace(0, self._length - 1, min(count, self._length))})
        return add_split_to_errors(self._split, lambda: read_many(self._read, indices, self._length, self._skips))


def add_split_to_errors(split: str, read: Callable[[], Result]) -> Result:
    """Return what a function reads of a split; name the split in its errors.

    Raises:
        UserError: What the function raised.
    """
    try:
        return read()
    except UserError as error:
        if split == "train":
            raise
        raise UserError(f"{error} The split {split} is held out for samples and validation.") from None


def require_val_split(root: Path, splits: Collection[str], validation: ValidationConfig) -> None:
    """Check that there is a val split where the options choose the best model by it.

    Raises:
        UserError: There is none.
    """
    if validation.save_best_by is not None and "val" not in splits:
        raise UserError(
            f"--save-best-by {validation.save_best_by} follows the validations, and {root} has no val split (it has: "
            f"{', '.join(splits)}). Leave it out, or move some of the training images into a val split."
        )


def choose_split(root: Path, splits: Collection[str], candidates: Collection[str], schedule: ScheduleConfig) -> str:
    """Return the first of some splits that a dataset has.

    Args:
        root: The dataset's folder, for messages.
        splits: Its splits.
        candidates: Candidates in the order of preference.
        schedule: The options of the schedule.

    Raises:
        UserError: The schedule follows validations, and there is no val split.
    """
    if schedule.schedule == "plateau" and "val" not in splits:
        raise UserError(
            f"--schedule plateau follows the validations, and {root} has no val split (it has: {', '.join(splits)}). "
            "Choose another schedule, or move some of the training images into a val split."
        )
    return next(split for split in candidates if split in splits)
