"""What our libraries break on, shown without our guards: when one of these fails, a guard may go.

Each of these tests passes because the library, as delivered, fails. The same bytes meet our doors
in test_websocket_listener.py and test_http_listener.py.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import websocket as quart_websocket
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from trio_websocket import ConnectionClosed, WebSocketRequest, open_websocket_url, serve_websocket

from mlc_broker.edge.guest import HttpLimits
from mlc_broker.edge.server import serve_http
from mlc_broker.edge.sockets import listen
from tests.fault.doors import (
    GET,
    HANDSHAKE,
    LAST_GET,
    attack,
    frame,
    http_door,
    is_served,
    quart,
    tell,
    websocket_door,
)

DEADLY_HANDSHAKES = {
    "Host": HANDSHAKE.replace(b"Host: x", b"Host: \xbd"),
    "Connection": HANDSHAKE.replace(b": Upgrade", b": Upgrade, \xbd"),
    "Sec-WebSocket-Protocol": HANDSHAKE.replace(
        b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: \xbd\r\n\r\n"
    ),
    "Sec-WebSocket-Extensions": HANDSHAKE.replace(
        b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: \xbd\r\n\r\n"
    ),
}
DEADLY_REQUESTS = {
    "an upgrade and one byte": HANDSHAKE + b"x",
    "two upgrades": HANDSHAKE + HANDSHAKE,
    "an odd subprotocol": DEADLY_HANDSHAKES["Sec-WebSocket-Protocol"],
    "odd HTTP/2 settings": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n",
}


def config() -> Config:
    made = Config()
    made.bind, made.errorlog, made.graceful_timeout = ["127.0.0.1:0"], None, 0.2
    made.keep_alive_timeout = 0.5
    return made


@asynccontextmanager
async def bare_hypercorn(app: Any, stop: trio.Event | None = None) -> AsyncIterator[int]:
    trigger = (trio.Event() if stop is None else stop).wait
    async with trio.open_nursery() as nursery:
        (bound,) = await nursery.start(partial(serve, app, config(), shutdown_trigger=trigger))
        yield int(bound.rpartition(":")[2])
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def bare_websocket(handler: Callable[[WebSocketRequest], Any]) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        serving = partial(serve_websocket, handler, "127.0.0.1", 0, ssl_context=None)
        yield (await nursery.start(serving)).port
        nursery.cancel_scope.cancel()


async def echo(request: WebSocketRequest) -> None:
    connection = await request.accept()
    try:
        while True:
            await connection.send_message(await connection.get_message())
    except ConnectionClosed:
        pass


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


async def dies(door: Any, data: bytes) -> list[BaseException]:
    """What a server died of within half a second of these bytes; nothing if it lives."""
    try:
        async with door as port:
            await attack(port, [data], reset=False, pause=0.05)
            await trio.sleep(0.45)
    except BaseExceptionGroup as errors:
        return leaves(errors)
    return []


@pytest.mark.parametrize("name", DEADLY_HANDSHAKES)
async def test_one_byte_ends_trio_websocket_and_not_our_door(name: str) -> None:
    causes = await dies(bare_websocket(echo), DEADLY_HANDSHAKES[name])
    assert any(isinstance(cause, UnicodeDecodeError) for cause in causes)
    async with websocket_door() as door:
        await attack(door.port, [DEADLY_HANDSHAKES[name]], reset=False)
        assert await is_served(door, "websocket")
        assert door.troubles


async def test_a_handler_that_breaks_ends_trio_websocket_and_not_our_door() -> None:
    async def breaks(request: WebSocketRequest) -> None:
        await request.accept()
        raise RuntimeError("a bug")

    assert any(isinstance(it, RuntimeError) for it in await dies(bare_websocket(breaks), HANDSHAKE))
    async with websocket_door() as door:
        await attack(door.port, [HANDSHAKE, frame(1, b"boom")], reset=False, pause=0.05)
        assert await is_served(door, "websocket")


@pytest.mark.parametrize("name", DEADLY_REQUESTS)
async def test_one_request_ends_hypercorn_and_not_our_door(name: str) -> None:
    assert await dies(bare_hypercorn(quart()), DEADLY_REQUESTS[name])
    async with http_door() as door:
        await attack(door.port, [DEADLY_REQUESTS[name]], reset=False)
        assert await is_served(door, "http")
        assert not door.troubles, "refused in words, not by the guard"


@pytest.mark.parametrize("request_bytes", [GET, LAST_GET], ids=["keep-alive", "close"])
async def test_quart_trio_leaves_connections_open_and_ours_does_not(request_bytes: bytes) -> None:
    cracked = quart()
    cracked.asgi_http_class = TrioASGIHTTPConnection
    async with bare_hypercorn(cracked) as port:
        assert not (await tell(port, request_bytes, seconds=1.2)).closed
    async with http_door(idle_seconds_max=0.5) as door:
        assert (await tell(door.port, request_bytes, seconds=1.2)).closed


async def test_a_guest_that_does_not_read_holds_hypercorns_stop_and_not_ours() -> None:
    application = quart()
    bare = partial(serve, application, config())
    ours = partial(
        serve_http,
        application,
        await listen("127.0.0.1:0"),
        limits=HttpLimits(stop_seconds_max=0.2, part_seconds_max=0.2),
    )
    stop = trio.Event()
    assert not await stops_unread(partial(bare, shutdown_trigger=stop.wait), stop)
    stop = trio.Event()
    assert await stops_unread(partial(ours, shutdown=stop), stop)


async def stops_unread(serving: Any, stop: trio.Event) -> bool:
    """Whether a server with a guest that does not read ends within a second of its stop."""
    ended = trio.Event()

    async def serve_to_the_end(task_status: Any) -> None:
        await serving(task_status=task_status)
        ended.set()

    async with trio.open_nursery() as nursery:
        (bound,) = await nursery.start(serve_to_the_end)
        port = int(bound.rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(GET.replace(b"/quart", b"/endless"))
            await trio.sleep(0.5)
            stop.set()
            with trio.move_on_after(1):
                await ended.wait()
            in_time = ended.is_set()
        await ended.wait()
    return in_time


async def test_hypercorn_negotiates_compression_and_our_doors_never_do() -> None:
    app = QuartTrio("compressed")

    @app.websocket("/v1/stream")
    async def stream() -> None:
        await quart_websocket.receive()

    offer = HANDSHAKE.replace(
        b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
    async with bare_hypercorn(app) as port:
        assert b"permessage-deflate" in (await tell(port, offer, seconds=0.3)).data
    async with http_door() as door:
        assert (await tell(door.port, offer, seconds=0.3)).status == 400
    async with websocket_door() as door:
        assert b"deflate" not in (await tell(door.port, offer, seconds=0.3)).data


async def test_trio_websocket_hangs_up_on_bad_utf8_without_a_code_and_our_door_says_1007() -> None:
    goodbye = b"\x88\x02" + struct.pack("!H", 1007)
    bad = frame(1, b"\xff\xfe")
    async with bare_websocket(echo) as port:
        assert goodbye not in (await tell(port, HANDSHAKE, bad, pause=0.05)).data
    async with websocket_door() as door:
        assert (await tell(door.port, HANDSHAKE, bad, pause=0.05)).data.endswith(goodbye)


async def test_trio_websocket_waits_for_a_guest_that_does_not_read() -> None:
    waited: list[float] = []

    async def pour(request: WebSocketRequest) -> None:
        connection = await request.accept()
        began = trio.current_time()
        with trio.move_on_after(1.5):
            while True:
                await connection.send_message("x" * 60_000)
        waited.append(trio.current_time() - began)

    async with (
        bare_websocket(pour) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        await stream.send_all(HANDSHAKE)
        await trio.sleep(1.8)
    assert waited
    assert math.isclose(waited[0], 1.5, abs_tol=0.3), "sends are bounded now: PatientStream may go"


async def test_a_mock_clock_runs_away_while_a_thread_works(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with trio.move_on_after(10) as patience:
        await trio.to_thread.run_sync(time.sleep, 0.1, abandon_on_cancel=True)
    assert patience.cancelled_caught, "autojump waits for threads now: `in_thread` may go"


async def test_the_client_of_trio_websocket_can_speak_to_our_door() -> None:
    async with (
        websocket_door() as door,
        open_websocket_url(f"ws://127.0.0.1:{door.port}/v1/stream") as websocket,
    ):
        await websocket.send_message(b"\x01\x02")
        assert await websocket.get_message() == b"\x01\x02"
