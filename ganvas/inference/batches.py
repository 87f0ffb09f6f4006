"""Items that come one by one, gathered into batches of those that are alike."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

MAX_BATCH = 32  # our choice

Item = TypeVar("Item")


def in_batches(
    items: Iterable[Item], group: Callable[[Item], Hashable], room: Callable[[Item], int], waiting: int = MAX_BATCH
) -> Iterator[list[Item]]:
    """Gather items of one group until there is room for no more, in the order in which they come.

    Args:
        items: What is gathered.
        group: Those that are alike in this belong together.
        room: How many of a group make a batch.
        waiting: Items that may wait for others of their group, in all; then those that began to wait first go.
    """
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        members = groups.setdefault(group(item), [])
        members.append(item)
        if len(members) >= room(item):
            yield groups.pop(group(item))
        elif sum(map(len, groups.values())) >= waiting:
            yield groups.pop(next(iter(groups)))
    yield from groups.values()
