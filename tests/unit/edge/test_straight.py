"""Bytes over a plain socket, without asking twice."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from mlc_broker.edge.patient import PatientStream
from mlc_broker.edge.straight import receive, send_now

BIG = bytes(range(256)) * 100_000  # no socket's buffer holds it


Pair = tuple[trio.SocketStream, trio.SocketStream]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    left, right = socket.socketpair()
    one, other = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in (left, right))
    async with one, other:
        yield one, other


async def all_of(stream: trio.SocketStream) -> bytes:
    parts = [part async for part in stream]
    return b"".join(parts)


async def test_what_fits_goes_out_at_once_and_is_there(pair: Pair) -> None:
    one, other = pair
    assert send_now(one, b"hello") == 5
    assert await receive(other) == b"hello"
    assert 0 < send_now(one, BIG) < len(BIG)
    assert send_now(one, BIG) == 0, "it is full"


async def test_the_end_is_empty_and_a_closed_socket_says_so(pair: Pair) -> None:
    one, other = pair
    await one.send_eof()
    assert send_now(one, b"more") == 0
    assert await receive(other, 10) == b""
    await one.aclose()
    assert send_now(one, b"more") == 0
    with pytest.raises(trio.ClosedResourceError):
        await receive(one)


async def test_who_waits_hears_that_the_socket_was_closed(pair: Pair) -> None:
    one, _ = pair

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await receive(one)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await one.aclose()


async def test_a_long_message_comes_whole_and_nothing_comes_between(pair: Pair) -> None:
    one, other = pair
    patient = PatientStream(one, send_seconds_max=5.0)

    async def send() -> None:
        await patient.send_all(BIG)
        await one.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await patient.send_all(b"between")
        assert await all_of(other) == BIG


async def test_who_does_not_read_is_cut_off(
    pair: Pair, autojump_clock: trio.testing.MockClock
) -> None:
    one, _ = pair
    patient = PatientStream(one, send_seconds_max=5.0)
    before = trio.current_time()
    with pytest.raises(trio.BrokenResourceError):
        await patient.send_all(BIG)
    assert trio.current_time() - before == 5.0
