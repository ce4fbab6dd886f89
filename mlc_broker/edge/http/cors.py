"""Games run on other origins than the daemon: this lets their pages in.

Credentials are bearer tokens that a page must hold itself; no cookie is ever read, so a wildcard
gives a strange page nothing that it does not have.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from mlc_broker.edge.server import ASGIApp

METHODS = b"GET, POST, PUT, DELETE, OPTIONS"
HEADERS = b"authorization, content-type, content-encoding, last-event-id"
EXPOSED = b"retry-after, content-disposition"
PREFLIGHT_SECONDS = b"7200"


class Cors:
    """Answers preflights, and marks every other answer, for the origins that may call."""

    def __init__(self, app: ASGIApp, origins: Iterable[str]) -> None:
        """`origins` are exact (`https://school.example`), or `*` for all."""
        self._app = app
        self._origins = frozenset(origin.encode("latin-1") for origin in origins)

    async def __call__(
        self,
        scope: Any,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is None:
            await self._app(scope, receive, send)
            return
        allowed = self._allowed(origin)
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await _preflight(send, allowed)
            return

        async def marking(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *allowed]}
            await send(message)

        await self._app(scope, receive, marking)

    def _allowed(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        exposed = (b"access-control-expose-headers", EXPOSED)
        if b"*" in self._origins:
            return [(b"access-control-allow-origin", b"*"), exposed]
        vary = (b"vary", b"origin")
        if origin in self._origins:
            return [(b"access-control-allow-origin", origin), vary, exposed]
        return [vary]


async def _preflight(
    send: Callable[[Any], Awaitable[None]], allowed: list[tuple[bytes, bytes]]
) -> None:
    headers = [
        *allowed,
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", HEADERS),
        (b"access-control-max-age", PREFLIGHT_SECONDS),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
