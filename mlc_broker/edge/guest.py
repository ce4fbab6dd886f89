"""One HTTP connection: hypercorn's parts, with a deadline for everything its guest does."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, cast

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Response
from hypercorn.protocol.events import Request as RequestEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio import task_group
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import parse_socket_addr
from msgspec import Struct

from mlc_broker.edge import sockets
from mlc_broker.edge.framing import StrictConnection
from mlc_broker.edge.mailbox import Tasks
from mlc_broker.edge.straight import PIECE_BYTES, keep_more_unsent, push, receive, send_now
from mlc_broker.model.errors import ConfigError

CODES = {408: "malformed", 413: "too_large", 431: "too_large", 500: "unavailable"}
WORDS = {
    408: "The request did not arrive in time.",
    431: "The request's head is too large.",
    500: "Something broke on our side; it is logged.",
}
FULL = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
# What is overridden below, or called although hypercorn makes no promise about it.
PATCH_POINTS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (TCPServer, ("run", "protocol_send")),
    (H11Protocol, ("handle", "stream_send", "_check_protocol", "_create_stream")),
    (H11Protocol, ("_handle_events", "_send_error_response", "_close_stream", "_send_h11_event")),
    (HTTPStream, ("_send_error_response", "app_send", "handle")),
    (TaskGroup, ("spawn_app", "__aenter__", "__aexit__")),
    (task_group, ("_handle",)),
)


class HttpLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one guest may take, and how many guests there may be."""

    head_bytes_max: int = 32_768
    head_seconds_max: float = 10.0
    body_bytes_max: int = 67_108_864
    body_seconds_max: float = 30.0
    write_seconds_max: float = 30.0  # for each 64 KiB
    idle_seconds_max: float = 75.0
    part_seconds_max: float = 2.0
    stop_seconds_max: float = 5.0
    tls_seconds_max: float = 10.0
    requests_per_connection_max: int = 100_000
    connections_max: int = 4_096
    connections_per_address_max: int = 2_048


class HttpGuest(TCPServer):
    """One connection, from its first byte to its last."""

    def __init__(
        self,
        app: Any,
        config: Config,
        context: WorkerContext,
        limits: HttpLimits,
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
    ) -> None:
        # hypercorn's annotation names the TLS stream alone; it serves both.
        super().__init__(app, config, context, {}, cast("Any", stream))
        inner = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        self._limits = limits
        self._socket = inner.socket
        keep_more_unsent(inner.socket)
        self._secure = isinstance(stream, trio.SSLStream)
        self._plain = stream if isinstance(stream, trio.SocketStream) else None
        self._writing = 0  # who waits for room to write: nobody may write before them
        self._whole = trio.CancelScope()
        self._patience = trio.CancelScope()
        self._hearing = False  # inside `_patience`
        self._parting = False
        self._since = trio.current_time()  # when the head, the body or the pause began
        self.address = sockets.peer_address(self._socket)

    async def run(self) -> None:
        """Serve requests until one side is done. Raises what nobody foresaw: see the guard."""
        sockets.watch_for_vanished_peers(self._socket)
        if self._secure and not await self._shake_hands():
            return
        try:
            client = parse_socket_addr(self._socket.family, self._socket.getpeername())
            server = parse_socket_addr(self._socket.family, self._socket.getsockname())
        except OSError:  # left before we looked
            return
        with self._whole:
            async with Tasks() as tasks:
                self.protocol: StrictProtocol = StrictProtocol(  # type: ignore[assignment]
                    self.app,
                    self.config,
                    self.context,
                    tasks,
                    {},
                    self._secure,
                    client,
                    server,
                    self.protocol_send,
                    limits=self._limits,
                )
                await self._read()
                await self._tell_application()

    async def turn_away(self) -> None:
        """Say that the house is full."""
        with trio.move_on_after(self._limits.part_seconds_max), suppress(trio.BrokenResourceError):
            await self.stream.send_all(FULL)
            self._parting = True
            await self._say_the_end()
            while await self.stream.receive_some(PIECE_BYTES):
                pass

    def leave_if_idle(self) -> None:
        """End the connection now if no request is on its way."""
        if self.protocol_is_idle():
            self._patience.cancel()

    def protocol_is_idle(self) -> bool:
        """Whether this guest has nothing asked and nothing begun."""
        protocol = getattr(self, "protocol", None)
        return protocol is None or protocol.phase() == "idle"

    async def protocol_send(self, event: Event) -> None:
        """Take what the protocol wants done: bytes sent, the connection ended, the clock reset."""
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            await self._write(self.protocol.unsent())
            await self._part()
        elif isinstance(event, Updated):
            self._since = trio.current_time()
            if self._hearing:
                self._patience.deadline = self._deadline()

    async def _read(self) -> None:
        first, phase = True, "head"
        while True:
            with trio.CancelScope(deadline=self._deadline(first=first)) as self._patience:
                self._hearing = True
                try:
                    data = await self._receive()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
                finally:
                    self._hearing = False
            if self._patience.cancelled_caught:
                await self._lose_patience()
                return
            if self._parting:
                if not data:
                    return
                continue  # nothing but politeness: see _part
            await self.protocol.handle(RawData(data))
            if not data:
                return
            first = False
            before, phase = phase, self.protocol.phase()
            if phase != before:
                self._since = trio.current_time()

    async def _receive(self) -> bytes:
        if self._plain is not None:
            return await receive(self._plain, PIECE_BYTES)
        return bytes(await self.stream.receive_some(PIECE_BYTES))

    def _deadline(self, *, first: bool = False) -> float:
        if self._parting:
            return self._since + self._limits.part_seconds_max
        seconds = {
            "idle": self._limits.head_seconds_max if first else self._limits.idle_seconds_max,
            "head": self._limits.head_seconds_max,
            "body": self._limits.body_seconds_max,
            "answer": math.inf,  # a stream of events is quiet for as long as it likes
        }[self.protocol.phase()]
        if self.context.terminated.is_set() and self.protocol.phase() == "idle":
            return -math.inf
        return self._since + seconds

    async def _lose_patience(self) -> None:
        """End a connection whose guest is too slow; say so if a request was on its way."""
        if not self._parting:
            await self.protocol.give_up(408)
        self._whole.cancel()

    async def _write(self, data: bytes) -> None:
        """Send it: what the kernel takes at once without waiting, the rest within the limit."""
        if not data:
            return
        sent = 0
        if self._plain is not None and not self._writing:
            sent = send_now(self._plain, data)
        if sent < len(data):
            await self._write_slowly(memoryview(data)[sent:])
        else:
            await trio.lowlevel.checkpoint()  # a long answer to a fast reader is not alone here

    async def _write_slowly(self, view: memoryview) -> None:
        self._writing += 1
        try:
            async with self.send_lock:
                while view:
                    with trio.fail_after(self._limits.write_seconds_max):
                        view = view[await push(self.stream, view) :]
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, OSError):
            # Nobody reads the answer: its application need not go on.
            self._whole.cancel()
            await trio.lowlevel.checkpoint()
        finally:
            self._writing -= 1

    async def _part(self) -> None:
        """End our side, and read on for a moment: closing over unread bytes voids our last words."""
        if self._parting:
            return
        self._parting = True
        self._since = trio.current_time()
        self._patience.deadline = self._deadline()
        await self._say_the_end()
        await self._tell_application()

    async def _say_the_end(self) -> None:
        with suppress(
            trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError, OSError
        ):
            if self._secure:
                with trio.move_on_after(self._limits.part_seconds_max):
                    await self.stream.aclose()
            else:
                await cast("Any", self.stream).send_eof()

    async def _tell_application(self) -> None:
        """Say that the guest has left. An application that does not listen is ended."""
        with trio.move_on_after(self._limits.part_seconds_max) as patience:
            await self.protocol.handle(Closed())
        if patience.cancelled_caught:
            self._whole.cancel()

    async def _shake_hands(self) -> bool:
        with trio.move_on_after(self._limits.tls_seconds_max):
            try:
                await self.stream.do_handshake()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
            return True
        return False


class StrictProtocol(H11Protocol):
    """hypercorn's HTTP/1.1 with our framing, our errors, and no way out of HTTP/1.1."""

    connection: StrictConnection

    def __init__(self, *args: Any, limits: HttpLimits) -> None:
        super().__init__(*args)
        self.connection = StrictConnection(
            head_bytes_max=limits.head_bytes_max, body_bytes_max=limits.body_bytes_max
        )
        self._over = False
        self._head = b""  # of an answer whose length is known: goes out with what follows

    def unsent(self) -> bytes:
        """Return what nothing has followed yet, to be sent now."""
        head, self._head = self._head, b""
        return head

    def phase(self) -> str:
        """Say where the conversation is: idle, head, body, or answer."""
        if self.connection.their_state is h11.IDLE:
            return "head" if self.connection.buffered else "idle"
        return "body" if self.connection.their_state is h11.SEND_BODY else "answer"

    async def stream_send(self, event: Any) -> None:
        """Send what an application says, unless its request was refused meanwhile."""
        if not self._over:
            await super().stream_send(event)

    async def _send_h11_event(self, event: Any) -> None:
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response) and b"content-length" in dict(event.headers):
            self._head = data or b""
        else:
            await self.send(RawData(data=self.unsent() + (data or b"")))

    async def give_up(self, status: int) -> None:
        """Answer a request that is half here, if nobody has begun to answer it."""
        unanswered = self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}
        if unanswered and self.phase() in {"head", "body"}:
            await self._send_error_response(status)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Never switch: what asks for another protocol was refused by the framing."""

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = Stream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(
            RequestEvent(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1

    async def _send_error_response(self, status_code: int) -> None:
        headers, body = problem(status_code, self.connection.refusal)
        headers += self.config.response_headers("h11")
        self._over = True
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


class Stream(HTTPStream):
    """One request and its answer; where the application gives none, a problem in words."""

    async def _send_error_response(self, status_code: int) -> None:
        headers, body = problem(status_code, "")
        await self.send(Response(STREAM_ID, headers=headers, status_code=status_code))
        if self.scope["method"] != "HEAD":
            await self.send(Body(STREAM_ID, data=body))
        await self.send(EndBody(STREAM_ID))
        self.state = ASGIHTTPState.CLOSED


def problem(status: int, detail: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Make the headers and the body of an error (RFC 9457) that also ends its connection."""
    body = json.dumps(
        {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail or WORDS.get(status, "The request is not HTTP as it is spoken here."),
            "code": CODES.get(status, "malformed"),
        }
    ).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    return headers, body


def check_hypercorn() -> None:
    """Raise ConfigError where the installed hypercorn is not the one this page was written for."""
    for owner, names in PATCH_POINTS:
        for name in names:
            if name not in vars(owner):
                raise ConfigError(
                    f"hypercorn {version('hypercorn')} has no {owner.__name__}.{name}: the HTTP "
                    'guard cannot stand. Install the tried version: pip install "hypercorn==0.18.*".'
                )
