"""The server: its socket, clients that are slow, and its end."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 800
"""More than the requests that are answered at once: those beyond are told so, connections beyond these are closed."""

MOST_HEADER_BYTES = 16_384
GRACE_SECONDS = 3
"""That requests have to be done when the server is stopped, before they are given up; and that clients then have to
take their answers."""


class Protocol(H11Protocol):
    """uvicorn's, which waits for ever: here a request's head has to come, and an answer has to be taken, in time."""

    seconds = 30.0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._sending: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_head()

    def _expect_head(self) -> None:
        """Begins to wait for the head of a request, or ends it when the head is there."""
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self._sending is None:
            self._sending = self.loop.call_later(self.seconds, self.transport.abort)
        elif not waits and self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reading is None:
            self._reading = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._sending, self._reading):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)


def listen(host: str, port: int) -> socket.socket:
    """The socket.

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
    """uvicorn's, which in the end cancels what still runs, a defect for its clients: here it was given up before, and
    they were told so."""

    def __init__(self, config: uvicorn.Config, give_up: Callable[[], None]) -> None:
        super().__init__(config)
        self._give_up = give_up

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        timers = loop.call_later(GRACE_SECONDS, self._give_up), loop.call_later(2 * GRACE_SECONDS, self._leave)
        await super().shutdown(sockets)
        for timer, end in zip(timers, (self._give_up, self._leave), strict=True):
            timer.cancel()
            if self.server_state.tasks:  # a second Ctrl-C does not wait for the timers
                end()
                await asyncio.wait(set(self.server_state.tasks), timeout=1)

    def _leave(self) -> None:
        """Closes the connections of clients that do not take their answers."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def make_server(app: FastAPI, seconds: float, give_up: Callable[[], None]) -> Server:
    """A server of the application.

    Args:
        app: the application.
        seconds: that a client may take to send a head or to go on reading an answer.
        give_up: is called when the server is being stopped and requests have had `GRACE_SECONDS` to be done.
    """
    config = uvicorn.Config(
        app,
        http=type("TimedProtocol", (Protocol,), {"seconds": seconds}),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        timeout_graceful_shutdown=3 * GRACE_SECONDS,
    )
    return Server(config, give_up)
