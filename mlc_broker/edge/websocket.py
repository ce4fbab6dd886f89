"""The WebSocket door: a guard around each connection, and a limit on everything a guest does.

`trio_websocket.serve_websocket` ends with the first malformed handshake, so it is never called:
the accept loop here is ours, and so are the limits, the heartbeat and the orderly stop.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import msgspec
import trio
from msgspec import Struct
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest
from trio_websocket import wrap_server_stream as wrap

from mlc_broker.edge import sockets
from mlc_broker.edge.masking import use_fast_masker
from mlc_broker.edge.patient import PatientStream
from mlc_broker.model.errors import ClientError, TooLarge

NORMAL, GOING_AWAY, POLICY, INTERNAL = 1000, 1001, 1008, 1011
BROKEN_RULES = frozenset({1002, 1003, 1007})
SUBPROTOCOL = "mlc.v1"
REASON_BYTES_MAX = 123  # RFC 6455: a control frame holds 125, two of them are the code
TICKS_PER_PING = 5
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class WebSocketLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one guest may take, and how many guests there may be."""

    message_bytes_max: int = 1_048_576
    receive_bytes: int = 65_536
    inbox_messages_max: int = 1
    handshake_seconds_max: float = 5.0
    send_seconds_max: float = 10.0
    close_seconds_max: float = 2.0
    ping_seconds: float = 25.0
    silence_seconds_max: float = 60.0
    stop_seconds_max: float = 6.0
    connections_max: int = 12_000
    connections_per_address_max: int = 4_096


class Closed(Exception):
    """The conversation is over. `code` is the closing code; 1006 where there was none."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code = code
        self.reason = reason


class Connection:
    """One guest, as a conversation sees it: messages in and out, each within its limits."""

    def __init__(
        self,
        websocket: WebSocketConnection,
        stream: PatientStream,
        limits: WebSocketLimits,
        *,
        authorization: str | None,
        address: str,
        stopping: trio.Event,
    ) -> None:
        self.authorization = authorization  # the handshake's header, as sent
        self.address = address
        self.stopping = stopping  # set: finish what was read, then return
        self._websocket = websocket
        self._stream = stream
        self._limits = limits
        self._listening = trio.CancelScope()
        self._in_a_row = False  # many messages are heard in one scope
        self.last_was_binary = False
        stream.last_words = self._verdict

    async def receive(self) -> str | bytes:
        """Return the next message: text as str, binary as bytes.

        Raises Closed when the guest has left; when the daemon stops and everything read was
        handed out (1001: what is to be sent can still be sent); TooLarge over the limit.
        """
        message = await (self._rest() if self.stopping.is_set() else self._next())
        self.last_was_binary = isinstance(message, bytes)
        size = len(message)
        # Text is counted in characters: only a long one with few of them is worth encoding.
        if isinstance(message, str) and size * 4 > self._limits.message_bytes_max:
            size = len(message.encode())
        if size > self._limits.message_bytes_max:
            raise TooLarge(f"A message has at most {self._limits.message_bytes_max} bytes.")
        return message

    @contextmanager
    def listening(self) -> Generator[None]:
        """Receive any number of messages inside; a stop leaves the block, and comes once.

        Without it each `receive` makes a scope of its own, which costs a twentieth of a message.
        """
        with trio.CancelScope() as self._listening:
            self._in_a_row = True
            try:
                yield
            finally:
                self._in_a_row = False

    async def send(self, data: str | bytes) -> None:
        """Send a message; Closed when the guest has left, or does not read within the limit."""
        try:
            await self._websocket.send_message(data)
        except ConnectionClosed as closed:
            raise _closed(closed) from None

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye and wait for theirs, within the limit. May be called twice."""
        self._stream.resume_hearing()
        words = reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")
        with trio.move_on_after(self._limits.close_seconds_max, shield=True):
            with suppress(Exception):  # wsproto refuses a second goodbye: it was said then
                await self._websocket.aclose(code, words or None)
            await self._stream.aclose()

    def stop(self) -> None:
        """Read no more. `receive` hands out what was read, then raises Closed(1001)."""
        self._stream.stop_hearing()
        self._listening.cancel()

    async def ping(self) -> None:
        """Ask for a sign of life; whether one came is seen in the stream."""
        with suppress(ConnectionClosed), trio.move_on_after(self._limits.silence_seconds_max):
            await self._websocket.ping()

    def _verdict(self) -> bytes:
        """Name the rule that a guest broke: the library hangs up there without a word."""
        closed = self._websocket.closed
        if closed is None or closed.code not in BROKEN_RULES:
            return b""
        return bytes([0x88, 2]) + int(closed.code).to_bytes(2, "big")

    async def _next(self) -> str | bytes:
        if self._in_a_row:
            return await self._message()
        with trio.CancelScope() as self._listening:
            return await self._message()
        return await self._rest()

    async def _rest(self) -> str | bytes:
        # Nothing new is read from the socket, so what is there is there at once, or never.
        with trio.move_on_after(0.05):
            return await self._message()
        raise Closed(GOING_AWAY, "the daemon stops")

    async def _message(self) -> str | bytes:
        try:
            return await self._websocket.get_message()
        except ConnectionClosed as closed:
            raise _closed(closed) from None


Converse = Callable[[Connection], Awaitable[None]]


async def serve_websocket(
    converse: Converse,
    listeners: Sequence[sockets.Listener],
    *,
    stopping: trio.Event,
    limits: WebSocketLimits | None = None,
    ssl_context: ssl.SSLContext | None = None,
    path: str = "/v1/stream",
    origins: frozenset[str] | None = None,
    on_trouble: Callable[[BaseException], None] = lambda _: None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Hold a conversation with every guest until `stopping` is set; then end them in order.

    `origins` lists who may embed a client (exact, `https://school.example`); None is anybody, and
    a handshake without Origin is no browser's. `on_trouble` hears of every contained failure.
    Reports the addresses it listens on. Returns when the last guest has left.
    """
    use_fast_masker()
    door = Door(
        converse,
        limits or WebSocketLimits(),
        stopping=stopping,
        path=path,
        origins=origins,
        on_trouble=on_trouble,
    )
    await door.serve(sockets.encrypt(listeners, ssl_context), task_status)


class Door:
    """The accept loop, the guests inside, and the pulse that finds those who are gone."""

    def __init__(
        self,
        converse: Converse,
        limits: WebSocketLimits,
        *,
        stopping: trio.Event,
        path: str,
        origins: frozenset[str] | None,
        on_trouble: Callable[[BaseException], None],
    ) -> None:
        self._converse = converse
        self._limits = limits
        self._stopping = stopping
        self._path = path
        self._origins = origins
        self._on_trouble = on_trouble
        self._keeper = sockets.Doorkeeper(
            connections_max=limits.connections_max,
            connections_per_address_max=limits.connections_per_address_max,
        )
        self._guests: dict[Connection, trio.Nursery] = {}
        self._handshakes: set[trio.CancelScope] = set()

    async def serve(
        self,
        listeners: list[sockets.Listener],
        task_status: trio.TaskStatus[list[str]],
    ) -> None:
        """Accept and serve until the stop; then let everybody finish, within the limit."""
        names = sockets.addresses(listeners)
        async with trio.open_nursery() as guests, trio.open_nursery() as helpers:
            helpers.start_soon(self._pulse)
            accept = partial(trio.serve_listeners, self._guard, listeners, handler_nursery=guests)
            helpers.start_soon(accept)
            task_status.started(names)
            await self._stopping.wait()
            helpers.cancel_scope.cancel()
            guests.cancel_scope.deadline = trio.current_time() + self._limits.stop_seconds_max
            for connection in list(self._guests):
                connection.stop()
            for handshake in list(self._handshakes):
                handshake.cancel()

    async def _guard(self, stream: trio.abc.Stream) -> None:
        """Contain whatever one connection brings: it may end itself, never the door."""
        transport = _socket_stream(stream)
        address = sockets.peer_address(transport.socket)
        sockets.watch_for_vanished_peers(transport.socket)
        try:
            with self._keeper.admit(address) as admitted:
                if admitted:
                    await self._welcome(stream, address)
                else:
                    await self._turn_away(stream)
        except* ConnectionClosed:
            pass  # the guest left while the library was answering: nobody's mistake
        except* Exception as troubles:  # noqa: BLE001
            self._on_trouble(troubles)
        finally:
            await trio.aclose_forcefully(stream)

    async def _welcome(self, stream: trio.abc.Stream, address: str) -> None:
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(self._limits.handshake_seconds_max) as handshake:
                self._handshakes.add(handshake)
                patient = PatientStream(
                    stream,
                    send_seconds_max=self._limits.send_seconds_max,
                    on_end=handshake.cancel,  # nobody is left to shake hands with
                )
                try:
                    connection = await self._shake_hands(nursery, patient, address)
                finally:
                    self._handshakes.discard(handshake)
            if not handshake.cancelled_caught and connection is not None:
                await self._host(connection, nursery)
            nursery.cancel_scope.cancel()

    async def _shake_hands(
        self, nursery: trio.Nursery, stream: PatientStream, address: str
    ) -> Connection | None:
        request = await wrap(
            nursery,
            stream,
            message_queue_size=self._limits.inbox_messages_max,
            # A little over the limit is answered in words; far over it, by the library: 1009.
            max_message_size=self._limits.message_bytes_max * 5 // 4,
            receive_buffer_size=self._limits.receive_bytes,
        )
        headers = {name.lower(): value for name, value in request.headers}
        refusal = self._refusal(request, headers)
        if refusal is not None:
            await request.reject(refusal)
            await stream.aclose()
            return None
        offered = SUBPROTOCOL in request.proposed_subprotocols
        websocket = await request.accept(subprotocol=SUBPROTOCOL if offered else None)
        authorization = headers.get(b"authorization")
        return Connection(
            websocket,
            stream,
            self._limits,
            authorization=None if authorization is None else authorization.decode("latin-1"),
            address=address,
            stopping=self._stopping,
        )

    def _refusal(self, request: WebSocketRequest, headers: dict[bytes, bytes]) -> int | None:
        if request.path.partition("?")[0] != self._path:
            return 404
        origin = headers.get(b"origin")
        if origin is None or self._origins is None:
            return None
        return None if origin.decode("latin-1") in self._origins else 403

    async def _host(self, connection: Connection, nursery: trio.Nursery) -> None:
        """Hold the conversation, and end it in a way the guest understands."""
        self._guests[connection] = nursery
        if self._stopping.is_set():
            connection.stop()
        try:
            await self._converse(connection)
        except* Closed:
            pass  # the guest left, or we do: either way the end of a conversation, not a failure
        except* ClientError as errors:
            error = _first(errors)
            await _tell(connection, error)
            await connection.close(error.close_code or POLICY, error.code)
        except* Exception:
            await connection.close(INTERNAL)
            raise
        finally:
            del self._guests[connection]
            await connection.close(GOING_AWAY if self._stopping.is_set() else NORMAL)

    async def _turn_away(self, stream: trio.abc.Stream) -> None:
        with trio.move_on_after(self._limits.close_seconds_max):
            with suppress(trio.BrokenResourceError):
                await stream.send_all(FULL)
            await PatientStream(stream, send_seconds_max=self._limits.send_seconds_max).aclose()

    async def _pulse(self) -> None:
        """Ping who has been silent for a while, cut off who stays silent.

        One task for all: a task for each of ten thousand idle guests would cost more than they do.
        """
        tick = self._limits.ping_seconds / TICKS_PER_PING
        pinged: set[Connection] = set()
        while True:
            await trio.sleep(tick)
            for connection, nursery in list(self._guests.items()):
                silent = connection._stream.silent_seconds()  # noqa: SLF001
                if silent >= self._limits.silence_seconds_max - 2 * tick:
                    nursery.cancel_scope.cancel()
                elif silent < self._limits.ping_seconds - tick:
                    pinged.discard(connection)
                elif connection not in pinged:
                    pinged.add(connection)
                    nursery.start_soon(connection.ping)
            pinged.intersection_update(self._guests)


async def _tell(connection: Connection, error: ClientError) -> None:
    """Send the error in the encoding of the message that it answers."""
    words: dict[str, object] = {"op": "error", "code": error.code, "detail": str(error)}
    if error.retry_after_ms is not None:
        words["retry_after_ms"] = error.retry_after_ms
    binary = connection.last_was_binary
    with suppress(Closed):
        await connection.send(
            msgspec.msgpack.encode(words) if binary else msgspec.json.encode(words).decode()
        )


def _closed(closed: ConnectionClosed) -> Closed:
    reason = closed.reason
    return Closed(1006) if reason is None else Closed(reason.code, reason.reason or "")


def _socket_stream(stream: trio.abc.Stream) -> trio.SocketStream:
    inner = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if not isinstance(inner, trio.SocketStream):
        raise TypeError(f"a connection is a socket here, not a {type(inner).__name__}")
    return inner


def _first(errors: BaseExceptionGroup[ClientError]) -> ClientError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, ClientError) else ClientError(str(error))
