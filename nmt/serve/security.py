"""ASGI middleware that limits origins, number, size and duration of requests."""

import asyncio
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nmt.cli.configs import ServeConfig
from nmt.serve.handlers import as_json
from nmt.serve.model_thread import RETRY_AFTER, STOPPING

MAX_REQUESTS = 400
"""Concurrent requests, including those whose body is still being received."""

CLOSE = {"Connection": "close"}


def error_response(error: HTTPException) -> Response:
    """Return the response to a request that failed: one sentence as JSON."""
    content = as_json({"error": error.detail})  # ASCII only: the text may quote what no encoding can represent
    return Response(content, error.status_code, error.headers, media_type="application/json")


class SecurityMiddleware:
    """ASGI middleware that refuses pages of other origins: those in this machine's browser, and those whose name
    resolves to this machine (DNS rebinding). Starlette's TrustedHostMiddleware cannot allow every numeric address.

    Bodies are limited while the application reads them: its handlers respond to the exceptions, and uvicorn discards
    the rest. Starlette's limit of a body responds in plain text, and none has a time limit.

    Allowed hosts are localhost, `host`, `allowed_hosts` and numeric addresses, which no DNS name can stand for. Once
    `stopping` is set, bodies are no longer waited for.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, stopping: asyncio.Event) -> None:
        self.app, self.max_bytes, self.timeout, self.stopping = app, config.max_bytes, config.timeout, stopping
        self.host_names = {"localhost", config.host.lower(), *(name.lower() for name in config.allowed_hosts)}
        self.num_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.num_requests += 1
        try:
            if self.num_requests > MAX_REQUESTS:
                raise HTTPException(503, "too many requests at once: try again in 1 s", {**RETRY_AFTER, **CLOSE})
            self._check_origin(scope["path"], Headers(scope=scope))
            await self.app(scope, self._limited(receive), send)
        except HTTPException as error:
            await error_response(error)(scope, receive, send)
        finally:
            self.num_requests -= 1

    def _check_origin(self, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._is_allowed_host(host):
            hint = "add it with allowed_hosts=[…] if it should be"
            raise HTTPException(403, f"Host {host[:100]!r} is not a name of this server; {hint}", CLOSE)
        is_cross_origin = headers.get("origin", f"http://{host}") not in (f"http://{host}", f"https://{host}")
        site = headers.get("sec-fetch-site", "none")
        if is_cross_origin or (path.startswith("/api/") and site not in ("none", "same-origin")):
            raise HTTPException(403, "requests from pages of other origins are not allowed", CLOSE)

    def _is_allowed_host(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self.host_names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def _limited(self, receive: Receive) -> Receive:
        """Return a `receive` for the application that limits size and duration of the body."""
        deadline = asyncio.get_running_loop().time() + self.timeout
        size, complete = 0, False

        async def limited() -> Message:
            nonlocal size, complete
            if complete:  # the only message left is the client's disconnect
                return await receive()
            message = await self._receive_in_time(receive, deadline)
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > self.max_bytes:
                raise HTTPException(413, f"a request has at most {self.max_bytes:,} bytes (max_bytes)")
            return message

        return limited

    async def _receive_in_time(self, receive: Receive, deadline: float) -> Message:
        """Return the next message, unless the deadline passes or the server is stopped before."""
        message, stopping = asyncio.ensure_future(receive()), asyncio.ensure_future(self.stopping.wait())
        try:
            remaining = deadline - asyncio.get_running_loop().time()
            await asyncio.wait((message, stopping), timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            if message.done():
                return message.result()
            if stopping.done():
                raise HTTPException(503, STOPPING, CLOSE)
            raise HTTPException(408, f"the request was not received within {self.timeout:g} s (timeout)", CLOSE)
        finally:
            message.cancel()
            stopping.cancel()
