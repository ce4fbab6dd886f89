"""How an HTTP answer leaves: in one piece where it can, and never held back for long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from mlc_broker.edge.server import serve_http

ASK = b"%s %s HTTP/1.1\r\nHost: here\r\n\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer in the way that the path names."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
        return
    length = [] if scope["path"] == "/slow" else [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    match scope["path"]:
        case "/slow":
            assert (await receive())["type"] == "http.request"
            await receive()  # until the guest leaves
        case "/broken":
            raise LookupError
        case _:
            await send({"type": "http.response.body", "body": b"hello", "more_body": False})


@pytest.fixture
async def guest(nursery: trio.Nursery) -> AsyncIterator[trio.SocketStream]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    shutdown = trio.Event()

    async def serve(*, task_status: trio.TaskStatus[list[str]]) -> None:
        await serve_http(application, listeners, shutdown=shutdown, task_status=task_status)

    await nursery.start(serve)
    port = listeners[0].socket.getsockname()[1]
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield stream
    shutdown.set()


async def test_head_and_body_are_one_write_and_the_next_request_is_answered_too(
    guest: trio.SocketStream,
) -> None:
    for _ in range(3):
        await guest.send_all(ASK % (b"GET", b"/"))
        said = bytes(await guest.receive_some())
        assert said.startswith(b"HTTP/1.1 200")
        assert said.endswith(b"\r\n\r\nhello")


async def test_a_head_without_a_body_leaves_too(guest: trio.SocketStream) -> None:
    for _ in range(2):
        await guest.send_all(ASK % (b"HEAD", b"/"))
        said = bytes(await guest.receive_some())
        assert b"content-length: 5\r\n" in said
        assert said.endswith(b"\r\n\r\n")


async def test_a_head_of_unknown_length_does_not_wait(guest: trio.SocketStream) -> None:
    await guest.send_all(ASK % (b"GET", b"/slow"))
    with trio.fail_after(5):
        assert bytes(await guest.receive_some()).endswith(b"\r\n\r\n")


async def test_a_head_whose_body_never_comes_is_sent_before_the_end(
    guest: trio.SocketStream,
) -> None:
    await guest.send_all(ASK % (b"GET", b"/broken"))
    with trio.fail_after(5):
        parts = [bytes(part) async for part in guest]
    assert b"".join(parts).startswith(b"HTTP/1.1 200")
