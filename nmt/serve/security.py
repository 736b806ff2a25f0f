"""What stands before the application: whose requests are answered, how many, how large and how slow they may be."""

import asyncio
import ipaddress
import json
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAINED = 1 << 22
"""Bytes of a body too large that are read and thrown away, so that the client is there for the answer."""

MOST_REQUESTS = 400
"""That are answered at the same time, those that have only begun to come counted."""

STOPPING = "the server is being stopped"

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer: the page runs no script and fetches nothing but its own, and no other page may hold it."""


class RefusedError(Exception):
    """A request that is not looked at. Its text is for the client.

    seconds: after which the client may ask again; 0: never.
    """

    def __init__(self, status: int, text: str, seconds: int = 0) -> None:
        super().__init__(text)
        self.status, self.seconds = status, seconds


class Guard:
    """ASGI middleware. A page of another origin may not ask: neither one that this machine's browser shows, nor one
    whose name was made to lead here (DNS rebinding).

    Args:
        app: what is guarded.
        names: host names by which the server may be called, beside localhost; numbers always may, since no name leads
            to them.
        max_bytes: of a body.
        seconds: within which a body has to come.
        ended: is set when no body is waited for any more.
    """

    def __init__(
        self, app: ASGIApp, names: Sequence[str], max_bytes: int, seconds: float, ended: asyncio.Event
    ) -> None:
        self.app, self.max_bytes, self.seconds, self.ended = app, max_bytes, seconds, ended
        self.names = {"localhost", *(name.lower() for name in names)}
        self.num_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.num_requests += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self.num_requests -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            if self.num_requests > MOST_REQUESTS:
                raise RefusedError(503, "too many requests at once: ask again in 1 s", 1)
            self._check_origin(scope["path"], headers)
            if scope["method"] == "POST":
                _check_type(headers)
            body = await self._body_or_end(headers, receive)
        except RefusedError as refused:
            await _refuse(send, refused)
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        await self.app(scope, replay, send_with_headers)

    def _check_origin(self, path: str, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if not self._is_own(host):
            raise RefusedError(
                403, f"Host {host[:100]!r} is not a name of this server; it is added with names=[…] where it should be"
            )
        origin = headers.get("origin")
        elsewhere = origin is not None and origin not in (f"http://{host}", f"https://{host}")
        site = headers.get("sec-fetch-site", "none")
        if elsewhere or (path.startswith("/api/") and site not in ("none", "same-origin")):
            raise RefusedError(403, "pages of other origins may not ask this server")

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True

    async def _body_or_end(self, headers: dict[str, str], receive: Receive) -> bytes:
        """The body, unless the server is stopped before it is there."""
        body, ended = asyncio.ensure_future(self._body(headers, receive)), asyncio.ensure_future(self.ended.wait())
        try:
            await asyncio.wait((body, ended), return_when=asyncio.FIRST_COMPLETED)
            if not body.done():
                raise RefusedError(503, STOPPING)
            return body.result()
        finally:
            body.cancel()
            ended.cancel()

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        text = headers.get("content-length", "0")
        body, size = bytearray(), 0
        large = text.isdecimal() and int(text[:18]) > self.max_bytes
        try:
            async with asyncio.timeout(self.seconds):
                while size < DRAINED:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedError(400, "the client left")
                    size += len(message.get("body", b""))
                    large = large or size > self.max_bytes
                    if large:
                        body.clear()
                    else:
                        body += message.get("body", b"")
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise RefusedError(408, f"the request did not come within {self.seconds:g} s (max_seconds)") from None
        if large:
            raise RefusedError(413, f"a request has at most {self.max_bytes:,} bytes (max_bytes)")
        return bytes(body)


def _check_type(headers: dict[str, str]) -> None:
    # a form of another page can be of no such type
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "the body must be JSON, with the header Content-Type: application/json")


async def _refuse(send: Send, refused: RefusedError) -> None:
    body = json.dumps({"error": str(refused)}).encode("ascii")
    headers = {**HEADERS, "content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    if refused.seconds:
        headers["retry-after"] = str(refused.seconds)
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
