"""A fair queue for a limited resource: clients take turns, so that one with many jobs does not delay the others."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ganvas.errors import UserError


class Turns:
    """Turns for all clients in rotation; first come, first served among one client's.

    Args:
        at_once: Turns held at once.
        per_client: Turns held at once by one client.
        max_jobs: Turns that one client holds and waits for; more are refused.
    """

    def __init__(self, at_once: int, per_client: int, max_jobs: int) -> None:
        self._free, self._per_client, self._max_jobs = at_once, per_client, max_jobs
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for a turn and hold it within the block.

        Raises:
            UserError: The client has too many jobs already.
        """
        waiting = self._waiting.setdefault(client, deque())
        if self._held[client] + len(waiting) >= self._max_jobs:
            raise UserError("The server is still working on your other images. Try again in a moment.")
        mine = asyncio.get_running_loop().create_future()
        waiting.append(mine)
        self._deal()
        try:
            await mine
            yield
        finally:
            if not mine.cancelled():
                self._free += 1
                self._held[client] -= 1
                self._waiting.move_to_end(client)
            self._deal()

    def _deal(self) -> None:
        for client in list(self._waiting):
            waiting = self._waiting[client]
            while waiting and waiting[0].cancelled():  # whose client left
                waiting.popleft()
            if self._free and waiting and self._held[client] < self._per_client:
                waiting.popleft().set_result(None)
                self._free -= 1
                self._held[client] += 1
            if not waiting and not self._held[client]:
                del self._waiting[client], self._held[client]
