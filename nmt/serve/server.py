"""The HTTP server: its socket, slow clients, and its shutdown."""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 800
"""More than `security.MAX_REQUESTS`: requests above that get an error, connections above this are closed."""

GRACE_SECONDS = 3
"""Time on shutdown for requests to finish before they are canceled, then for clients to receive their responses."""

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of every response: the page runs and fetches its own files only, and no other page may embed it."""


class LimitedProtocol(H11Protocol):
    """uvicorn's protocol with a limit of connections; `limit_concurrency` would keep idle ones and refuse others."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise OSError when the address is in use, or not of this machine."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"host={host} port={port}: {reason}; give another one, port=0 is a free one") from None


class Server(uvicorn.Server):
    """uvicorn's server with timeouts. uvicorn waits for slow clients for ever, and on shutdown cancels requests that
    still run without a response. Here a client has `timeout` seconds to send the head of a request or to continue
    reading a response, and on shutdown running requests are canceled with an error."""

    def __init__(self, config: uvicorn.Config, timeout: float, cancel_all: Callable[[], None]) -> None:
        super().__init__(config)
        self._timeout, self._cancel_all = timeout, cancel_all
        self._waiting_since: dict[tuple[Any, Any], float] = {}

    async def on_tick(self, counter: int) -> bool:
        """Close the connections of slow clients; called every tenth of a second."""
        now, previous, self._waiting_since = time.monotonic(), self._waiting_since, {}
        for connection in list(self.server_state.connections):
            assert isinstance(connection, LimitedProtocol)
            cycle = connection.cycle
            if cycle is None or cycle.response_complete or connection.flow.write_paused:
                since = self._waiting_since[connection, cycle] = previous.get((connection, cycle), now)
                if now - since > self._timeout:
                    connection.transport.abort()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for requests, then cancel them, then close their connections."""
        steps = self._cancel_all, self._abort_connections
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(number * GRACE_SECONDS, step) for number, step in enumerate(steps, 1)]
        await super().shutdown(sockets)
        for timer, step in zip(timers, steps, strict=True):
            timer.cancel()
            if self.server_state.tasks:  # a second Ctrl-C does not wait for the timers
                step()
                await asyncio.wait(set(self.server_state.tasks), timeout=1)
        self._cancel_all()  # jobs whose clients have disconnected

    def _abort_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def make_server(app: FastAPI, timeout: float, cancel_all: Callable[[], None]) -> Server:
    """Return a server of the application; it calls `cancel_all` `GRACE_SECONDS` after shutdown begins."""
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
    return Server(config, timeout, cancel_all)
