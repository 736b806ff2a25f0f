"""The server: its socket, clients that are slow, and its end."""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 800
"""More than the requests that are answered at once: those beyond are told so, connections beyond these are closed."""

GRACE_SECONDS = 3
"""That requests have to be done when the server is stopped, before they are given up; and that clients then have to
take their answers."""

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer: the page runs no script and fetches nothing but its own, and no other page may hold it."""


class LimitedProtocol(H11Protocol):
    """uvicorn's, with a limit of connections; `limit_concurrency` would leave idle ones open and refuse the others."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: the address is another's, or not of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"host={host} port={port}: {reason}; give another one, port=0 is a free one") from None


class Server(uvicorn.Server):
    """uvicorn's, which waits for slow clients for ever, and in the end cancels requests that still run, a defect for
    their clients. Here clients have `seconds` to send the head of a request or to go on reading an answer, and at the
    end requests are given up, which their clients are told."""

    def __init__(self, config: uvicorn.Config, seconds: float, give_up: Callable[[], None]) -> None:
        super().__init__(config)
        self._seconds, self._give_up = seconds, give_up
        self._since: dict[tuple[Any, Any], float] = {}

    async def on_tick(self, counter: int) -> bool:
        """Close the connections of clients that are too slow; called every tenth of a second."""
        now, before, self._since = time.monotonic(), self._since, {}
        for connection in list(self.server_state.connections):
            assert isinstance(connection, LimitedProtocol)
            cycle = connection.cycle
            if cycle is None or cycle.response_complete or connection.flow.write_paused:
                since = self._since[connection, cycle] = before.get((connection, cycle), now)
                if now - since > self._seconds:
                    connection.transport.abort()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for requests, then give them up, then close their connections."""
        loop = asyncio.get_running_loop()
        timers = loop.call_later(GRACE_SECONDS, self._give_up), loop.call_later(2 * GRACE_SECONDS, self._leave)
        await super().shutdown(sockets)
        for timer, end in zip(timers, (self._give_up, self._leave), strict=True):
            timer.cancel()
            if self.server_state.tasks:  # a second Ctrl-C does not wait for the timers
                end()
                await asyncio.wait(set(self.server_state.tasks), timeout=1)
        self._give_up()  # work that nobody waits for

    def _leave(self) -> None:
        """Close the connections of clients that do not take their answers."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def make_server(app: FastAPI, seconds: float, give_up: Callable[[], None]) -> Server:
    """Return a server of the application.

    Args:
        app: the application.
        seconds: that a client may take to send a head or to go on reading an answer.
        give_up: is called when the server is being stopped and requests have had `GRACE_SECONDS` to be done.
    """
    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        headers=list(HEADERS.items()),
        timeout_graceful_shutdown=3 * GRACE_SECONDS,
    )
    return Server(config, seconds, give_up)
