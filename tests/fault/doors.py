"""Both doors on real sockets, and hostile and honest guests for them."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio
from quart import request
from quart_trio import QuartTrio
from trio_websocket import open_websocket_url

from mlc_broker.edge.guest import HttpLimits
from mlc_broker.edge.server import Front, mend_quart, serve_http
from mlc_broker.edge.sockets import listen
from mlc_broker.edge.websocket import Connection, WebSocketLimits, serve_websocket

HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
GET = b"GET /quart HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_GET = b"GET /quart HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@dataclass
class Door:
    """An open door: its port, what went wrong behind it, and the event that closes it."""

    port: int
    stop: trio.Event
    troubles: list[BaseException] = field(default_factory=list)


@asynccontextmanager
async def websocket_door(
    converse: Callable[[Connection], Awaitable[None]] | None = None, **options: Any
) -> AsyncIterator[Door]:
    """Open the WebSocket door with an echo behind it, or another conversation."""
    limits = options.pop("limits", None) or WebSocketLimits(
        handshake_seconds_max=1, close_seconds_max=0.3, stop_seconds_max=1
    )
    async with trio.open_nursery() as nursery:
        door = Door(0, trio.Event())
        serve = partial(
            serve_websocket,
            converse or echo,
            await listen("127.0.0.1:0"),
            stopping=door.stop,
            limits=limits,
            on_trouble=door.troubles.append,
            **options,
        )
        (address,) = await nursery.start(serve)
        door.port = int(address.rpartition(":")[2])
        yield door
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def http_door(app: Any = None, **limits: float) -> AsyncIterator[Door]:
    """Open the HTTP door with a Quart application and a bare one behind it."""
    async with trio.open_nursery() as nursery:
        door = Door(0, trio.Event())
        serve = partial(
            serve_http,
            app or Front({("POST", "/v1/events"): count_bytes}, quart()),
            await listen("127.0.0.1:0"),
            shutdown=door.stop,
            limits=HttpLimits(**({"part_seconds_max": 0.3, "stop_seconds_max": 1} | limits)),  # type: ignore[arg-type]
            on_trouble=door.troubles.append,
        )
        (address,) = await nursery.start(serve)
        door.port = int(address.rpartition(":")[2])
        yield door
        nursery.cancel_scope.cancel()


async def echo(connection: Connection) -> None:
    """Say everything back; `boom` breaks the conversation."""
    while True:
        message = await connection.receive()
        if message == "boom":
            raise RuntimeError("a bug in the conversation")
        await connection.send(message)


def quart() -> QuartTrio:
    """Make a small application, as the daemon's big one is made."""
    app = QuartTrio("doors")
    mend_quart(app)

    @app.get("/quart")
    async def hello() -> str:
        return "hello"

    @app.post("/quart")
    async def count() -> str:
        return str(len(await request.get_data()))

    @app.get("/boom")
    async def boom() -> str:
        raise RuntimeError("a secret: mlc_ik_never_log_this")

    @app.get("/endless")
    async def endless() -> Any:
        async def flood() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 65_536

        return flood()

    @app.get("/quiet")
    async def quiet() -> Any:
        async def events() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            await trio.sleep(1.2)
            yield b"data: 2\n\n"

        return events(), {"content-type": "text/event-stream"}

    return app


async def count_bytes(scope: Any, receive: Any, send: Any) -> None:
    """Answer a POST with the length of its body: a bare ASGI application."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    body = b"%d" % size
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Answer:
    """Every byte that came, and whether the other side ended the connection."""

    data: bytes
    closed: bool
    seconds: float

    @property
    def status(self) -> int:
        return int(self.data.split(b" ", 2)[1]) if self.data.startswith(b"HTTP/") else 0

    @property
    def answers(self) -> int:
        return len(re.findall(rb"HTTP/1\.1 \d{3} ", self.data))


async def tell(port: int, *parts: bytes, seconds: float = 1.0, pause: float = 0.0) -> Answer:
    """Send raw bytes, and read until the other side closes or the time is over."""
    began, data = trio.current_time(), b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with trio.move_on_after(seconds) as patience:
            try:
                for part in parts:
                    await stream.send_all(part)
                    await trio.sleep(pause)
                while piece := await stream.receive_some(65_536):
                    data += piece
            except trio.BrokenResourceError:
                pass
    return Answer(data, not patience.cancelled_caught, trio.current_time() - began)


async def attack(port: int, parts: list[bytes], *, reset: bool, pause: float = 0.01) -> None:
    """Send hostile bytes, listen for a moment, and leave; rudely where `reset`."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    try:
        for part in parts:
            with trio.move_on_after(1):
                await stream.send_all(part)
            with trio.move_on_after(pause):
                await stream.receive_some(65_536)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        if reset:
            with suppress(OSError):
                stream.socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def guest_of(door: Door, path: str = "/v1/stream", **options: Any) -> AsyncIterator[Any]:
    """Be an honest guest. (trio-websocket's client forgets its socket when the server leaves first.)"""
    url = f"ws://127.0.0.1:{door.port}{path}"
    async with open_websocket_url(url, **options) as websocket:
        try:
            yield websocket
        finally:
            if websocket.closed:
                await trio.aclose_forcefully(websocket._stream)


async def is_served(door: Door, kind: str) -> bool:
    """Whether an honest guest still gets what it asks for; after a storm it stands in a queue."""
    with trio.fail_after(20):
        if kind == "http":
            return (await tell(door.port, LAST_GET, seconds=15)).data.endswith(b"hello")
        async with guest_of(door) as websocket:
            await websocket.send_message("still there?")
            return bool(await websocket.get_message() == "still there?")


def frame(
    opcode: int, payload: bytes, *, fin: bool = True, mask: bool = True, rsv: int = 0
) -> bytes:
    """Make one WebSocket frame, right or wrong."""
    size, bit = len(payload), 0x80 if mask else 0
    head = bytes([(fin << 7) | (rsv << 4) | opcode])
    if size < 126:
        head += bytes([bit | size])
    elif size < 65_536:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if not mask:
        return head + payload
    key = b"\x01\x02\x03\x04"
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def closing_code(data: bytes) -> int:
    """Find the code of the closing frame at the end of what a WebSocket server sent; 0: none."""
    for at in range(len(data) - 3):
        if data[at] == 0x88 and at + 2 + data[at + 1] == len(data):
            return int(struct.unpack_from("!H", data, at + 2)[0])
    return 0
