"""The page's HTTP server: uvicorn with limits on idle connections.

uvicorn waits forever for a request's header, and for a client to read its answer. Here both have a time limit, and the
number of connections is limited, half of it per address.
"""

import logging
import socket
import struct
import sys
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 400  # most systems allow 1024 open files
MAX_IDLE_SECONDS = 20.0  # until a request's header is complete, a part of an answer is read, a connection is closed
HEADER_BYTES = 16 * 1024


class Connection(H11Protocol):
    """A connection that is cut when the server waits too long for its client."""

    _state: Hashable = None
    _since = 0.0
    _steps = 0

    def connection_made(self, transport: Any) -> None:
        """Accept the connection, unless there are too many."""
        super().connection_made(transport)
        mine = self.client and self.client[0]
        same = sum(
            1 for one in self.connections if isinstance(one, Connection) and one.client and one.client[0] == mine
        )
        if len(self.connections) > MAX_CONNECTIONS or same > MAX_CONNECTIONS // 2:
            self.cut()

    def resume_writing(self) -> None:
        """Continue when the client has read a part of an answer."""
        self._steps += 1
        super().resume_writing()

    def cut_if_idle(self, now: float) -> None:
        """Cut the connection if the server has waited too long for the client; ``now`` is in seconds on one clock."""
        state: Hashable = None
        if self.transport.is_closing():
            state = "closing"
        elif self.flow.write_paused:
            state = "answer", self._steps
        elif self.conn.their_state is h11.IDLE:
            state = "header", id(self.cycle)  # of the request before it
        if state != self._state:
            self._state, self._since = state, now
        elif state is not None and now - self._since > MAX_IDLE_SECONDS:
            self.cut()

    def cut(self) -> None:
        """Reset the connection at once; what the system has not sent yet is dropped."""
        with suppress(OSError):
            reset = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        self.transport.abort()


class PageServer(uvicorn.Server):
    """uvicorn's server, which cuts idle connections.

    Args:
        app: The ASGI app.
        on_start: Called once requests are answered.
    """

    def __init__(self, app: Any, on_start: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="on",
            log_level="error",  # not each malformed request
            access_log=False,
            server_header=False,
            proxy_headers=False,  # a client must not get turns for an address that it made up
            h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call ``on_start``."""
        await super().startup(sockets)
        self._on_start()

    async def on_tick(self, counter: int) -> bool:
        """Check the connections once a second; uvicorn calls this ten times a second."""
        if counter % 10 == 0:
            for one in list(self.server_state.connections):
                if isinstance(one, Connection):
                    one.cut_if_idle(time.monotonic())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop without waiting for the streams that each open page holds, and without messages about them."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        for one in list(self.server_state.connections):
            if isinstance(one, Connection):
                one.cut()
        await super().shutdown(sockets)
