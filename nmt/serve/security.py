"""What stands before the application: whose requests are answered, how many, how large and how slow they may be."""

import asyncio
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nmt.cli.configs import ServeConfig
from nmt.serve.handlers import as_json
from nmt.serve.model_thread import AGAIN, STOPPING

MAX_REQUESTS = 400
"""Requests that are answered at the same time, those that have only begun to come included."""

CLOSE = {"Connection": "close"}


def refusal(error: HTTPException) -> Response:
    """Return the answer to a request that is refused: one sentence as JSON."""
    content = as_json({"error": error.detail})  # of ASCII only: the text may quote what no encoding can hold
    return Response(content, error.status_code, error.headers, media_type="application/json")


class SecurityMiddleware:
    """ASGI middleware that refuses pages of other origins: those that this machine's browser shows, and those whose
    name was made to lead here (DNS rebinding). Starlette's TrustedHostMiddleware cannot allow every number.

    Bodies are limited while the application reads them: what it raises then is answered by its handlers, and uvicorn
    reads and throws away the rest. Starlette's limit of a body answers in plain text, and none has a time limit.

    Args:
        app: the application.
        config: `names` are those by which the server may be called, beside localhost; numbers always may, since no name
            leads to them.
        ended: is set when no body is waited for any more.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, ended: asyncio.Event) -> None:
        self.app, self.max_bytes, self.seconds, self.ended = app, config.max_bytes, config.timeout, ended
        self.names = {"localhost", config.host.lower(), *(name.lower() for name in config.allowed_hosts)}
        self.num_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.num_requests += 1
        try:
            if self.num_requests > MAX_REQUESTS:
                raise HTTPException(503, "too many requests at once: ask again in 1 s", {**AGAIN, **CLOSE})
            self._check_origin(scope["path"], Headers(scope=scope))
            await self.app(scope, self._limited(receive), send)
        except HTTPException as error:
            await refusal(error)(scope, receive, send)
        finally:
            self.num_requests -= 1

    def _check_origin(self, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._is_own(host):
            raise HTTPException(
                403,
                f"Host {host[:100]!r} is not a name of this server; it is added with allowed_hosts=[…] where it should "
                "be",
                CLOSE,
            )
        elsewhere = headers.get("origin", f"http://{host}") not in (f"http://{host}", f"https://{host}")
        site = headers.get("sec-fetch-site", "none")
        if elsewhere or (path.startswith("/api/") and site not in ("none", "same-origin")):
            raise HTTPException(403, "pages of other origins may not ask this server", CLOSE)

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self.names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def _limited(self, receive: Receive) -> Receive:
        """Return what the application receives the body with."""
        deadline = asyncio.get_running_loop().time() + self.seconds
        size, complete = 0, False

        async def limited() -> Message:
            nonlocal size, complete
            if complete:  # what comes now is only that the client leaves
                return await receive()
            message = await self._in_time(receive, deadline)
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > self.max_bytes:
                raise HTTPException(413, f"a request has at most {self.max_bytes:,} bytes (max_bytes)")
            return message

        return limited

    async def _in_time(self, receive: Receive, deadline: float) -> Message:
        """Return the next message, unless the time is over or the server is stopped before."""
        message, ended = asyncio.ensure_future(receive()), asyncio.ensure_future(self.ended.wait())
        try:
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait((message, ended), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if message.done():
                return message.result()
            if ended.done():
                raise HTTPException(503, STOPPING, CLOSE)
            raise HTTPException(408, f"the request did not come within {self.seconds:g} s (timeout)", CLOSE)
        finally:
            message.cancel()
            ended.cancel()
