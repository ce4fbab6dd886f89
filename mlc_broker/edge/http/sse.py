"""Server-sent events: a response that goes on until its reader, its token or the daemon ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

import msgspec
import trio
from quart.wrappers.response import ResponseBody

from mlc_broker.edge.routes import Answer, Call
from mlc_broker.model.errors import ClientError, Unauthenticated, Unavailable

MEDIA = "text/event-stream"
HEARTBEAT_SECONDS = 15.0
CHECK_SECONDS = 0.5  # between two looks at the credential
RETRY_MS = 2000  # what a reader waits before it comes back
HEADERS = {"x-accel-buffering": "no"}  # a proxy must not gather what should be live
GRACE = timedelta(seconds=30)  # for a token that came inside the leeway for clocks that differ

Send = Callable[[bytes], Awaitable[None]]
Pump = Callable[[Send], Awaitable[None]]


def sse_answer(call: Call, pump: Pump, stopping: trio.Event) -> Answer:
    """Return an answer that sends what `pump` sends, and a heartbeat where it is silent.

    It ends when `pump` returns, when the credential ends and when the daemon stops; an `error`
    event says why.
    """
    return Answer(EventStream(pump, stopping, _ended_of(call)), 200, MEDIA, HEADERS)


def message(data: bytes, *, event: str = "", cursor: int | None = None) -> bytes:
    """Return one server-sent event; `data` is JSON, so it has no line ends."""
    head = b"" if cursor is None else b"id: %d\n" % cursor
    if event:
        head += b"event: " + event.encode() + b"\n"
    return head + b"data: " + data + b"\n\n"


def error_message(error: ClientError) -> bytes:
    """Return the last event of a stream that ends for a reason."""
    told: dict[str, Any] = {"code": error.code, "detail": str(error)}
    if error.retry_after_ms is not None:
        told["retry_after_ms"] = error.retry_after_ms
    return message(msgspec.json.encode(told), event="error")


class EventStream(ResponseBody):
    """The body of such a response, as Quart takes it: entered, iterated, left."""

    def __init__(
        self, pump: Pump, stopping: trio.Event, ended: Callable[[], ClientError | None]
    ) -> None:
        self._pump = pump
        self._stopping = stopping
        self._ended = ended
        self._last_words = b""
        self._nursery: AbstractAsyncContextManager[trio.Nursery] = trio.open_nursery()
        self._scope = trio.CancelScope()
        self._said_at = 0.0

    async def __aenter__(self) -> Self:
        self._put, self._get = trio.open_memory_channel[bytes](0)
        nursery = await self._nursery.__aenter__()
        self._scope = nursery.cancel_scope
        nursery.start_soon(self._run)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._scope.cancel()
        await self._nursery.__aexit__(exc_type, exc_value, tb)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        yield b"retry: %d\n\n" % RETRY_MS
        async for chunk in self._get:
            yield chunk
        if self._last_words:
            yield self._last_words

    async def _run(self) -> None:
        async with self._put, trio.open_nursery() as nursery:
            nursery.start_soon(self._beat)
            nursery.start_soon(self._until_the_stop, nursery.cancel_scope)
            nursery.start_soon(self._until_the_credential_ends, nursery.cancel_scope)
            try:
                await self._pump(self._send)
            except ClientError as error:
                self._last_words = error_message(error)
            nursery.cancel_scope.cancel()

    async def _send(self, data: bytes) -> None:
        await self._put.send(data)
        self._said_at = trio.current_time()

    async def _beat(self) -> None:
        self._said_at = trio.current_time()
        while True:
            await trio.sleep_until(self._said_at + HEARTBEAT_SECONDS)
            if trio.current_time() >= self._said_at + HEARTBEAT_SECONDS:
                await self._send(b": still here\n\n")

    async def _until_the_stop(self, scope: trio.CancelScope) -> None:
        await self._stopping.wait()
        gone = Unavailable("The daemon stops: come back in a moment.", retry_after_ms=RETRY_MS)
        self._end(gone, scope)

    async def _until_the_credential_ends(self, scope: trio.CancelScope) -> None:
        while (error := self._ended()) is None:  # noqa: ASYNC110 (nobody tells when time is over)
            await trio.sleep(CHECK_SECONDS)
        self._end(error, scope)

    def _end(self, error: ClientError, scope: trio.CancelScope) -> None:
        self._last_words = error_message(error)
        scope.cancel()


def _ended_of(call: Call) -> Callable[[], ClientError | None]:
    """Return what says whether the caller's credential has ended."""
    house, principal = call.house, call.principal
    ends_at: datetime | None = principal.expires_at
    now = house.clock.now()
    if ends_at is not None and ends_at <= now:
        ends_at = now + GRACE

    def ended() -> ClientError | None:
        over = ends_at is not None and house.clock.now() >= ends_at
        if over or not house.credentials.is_current(principal):
            return Unauthenticated(
                "The credential has expired or was revoked: come with a new one."
            )
        return None

    return ended
