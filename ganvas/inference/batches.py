"""Source images as the network takes them, gathered into batches of one shape."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from numpy.typing import DTypeLike
from torch import Tensor

MAX_BATCH = 32  # our choice

BatchKey = tuple[tuple[int, ...], bool]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Source:
    """A preprocessed image.

    Attributes:
        values: [C, H, W] in [-1, 1], scaled if the training scaled.
        size: Height and width of the image.
        dtype: Dtype of the image.
        bf16: Whether to translate it in bfloat16.
    """

    values: Tensor
    size: tuple[int, int]
    dtype: DTypeLike
    bf16: bool

    @property
    def batch_key(self) -> BatchKey:
        """Shape and precision, which all sources of a batch have in common."""
        return tuple(self.values.shape), self.bf16


def in_batches(
    items: Iterable[Item],
    source: Callable[[Item], Source],
    max_batch_size: Callable[[Source], int],
    max_waiting: int = MAX_BATCH,
) -> Iterator[list[Item]]:
    """Yield batches of items whose sources have the same key, in the order of the items.

    Args:
        items: The items.
        source: Returns the source of an item.
        max_batch_size: Returns the size of a full batch of such sources.
        max_waiting: Number of items in incomplete batches at which the oldest batch is yielded as it is.
    """
    batches: dict[BatchKey, list[Item]] = {}
    for item in items:
        key = source(item).batch_key
        batch = batches.setdefault(key, [])
        batch.append(item)
        if len(batch) >= max_batch_size(source(item)):
            yield batches.pop(key)
        elif sum(map(len, batches.values())) >= max_waiting:
            yield batches.pop(next(iter(batches)))
    yield from batches.values()
