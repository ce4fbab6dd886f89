"""The HTTP door stands whatever comes through it, and reads a request in one way only."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import pytest
import trio

from mlc_broker.edge import framing, guest
from mlc_broker.edge.guest import HttpLimits
from mlc_broker.model.errors import ConfigError
from tests.fault.doors import GET, HANDSHAKE, LAST_GET, attack, http_door, is_served, tell
from tests.fault.netfuzz import HTTP_SEEDS, storm

POST = b"POST /v1/events HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def with_header(line: bytes, request: bytes = GET) -> bytes:
    return request.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n")


ATTACKS: dict[str, list[bytes]] = {
    "an upgrade and one byte more": [HANDSHAKE + b"x"],
    "an upgrade with a body": [with_header(b"Content-Length: 5", HANDSHAKE) + b"hello"],
    "an upgrade and a frame": [HANDSHAKE + b"\x81\x80\0\0\0\0"],
    "two upgrades": [HANDSHAKE + HANDSHAKE],
    "an upgrade with a byte over 127": [HANDSHAKE.replace(b": Upgrade", b": Upgrade, \xff")],
    "an odd subprotocol": [with_header(b"Sec-WebSocket-Protocol: \xff", HANDSHAKE)],
    "an odd extension": [with_header(b"Sec-WebSocket-Extensions: \xff", HANDSHAKE)],
    "odd HTTP/2 settings": [with_header(b"Upgrade: h2c\r\nHTTP2-Settings: !!!!")],
    "HTTP/2 with prior knowledge": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200],
    "a cookie of rubbish": [with_header(b'Cookie: \xff=\xfe; a="\xff')],
    "a target of rubbish": [b"GET /%ff%fe%zz HTTP/1.1\r\nHost: x\r\n\r\n"],
    "a type of rubbish": [
        b"POST /quart HTTP/1.1\r\nHost: x\r\nContent-Type: \xff; charset=\xff\r\nContent-Length: 2\r\n\r\nhi"
    ],
    "an end in the middle of a body": [POST + b"Content-Length: 100000\r\n\r\nabc"],
    "TLS on a plain port": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 10],
    "an application that breaks": [GET.replace(b"/quart", b"/boom")],
    "CONNECT": [b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n"],
    "ten thousand tiny chunks": [CHUNKED + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n"],
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_hostile_connection_ends_alone(name: str, reset: bool) -> None:
    async with http_door() as door:
        await attack(door.port, ATTACKS[name], reset=reset, pause=0.02)
        assert await is_served(door, "http")


REFUSED: dict[str, bytes] = {
    "Content-Length and Transfer-Encoding": POST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + GET,
    "Transfer-Encoding and Content-Length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    + GET,
    "Content-Length twice, differing": POST
    + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "Content-Length twice, the same": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "Content-Length with a comma": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "Content-Length with a sign": POST + b"Content-Length: +5\r\n\r\nhello",
    "Content-Length below zero": POST + b"Content-Length: -5\r\n\r\nhello",
    "Content-Length in hex": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "a space before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "Transfer-Encoding in HTTP/1.0": POST.replace(b"1.1", b"1.0")
    + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/9.9": GET.replace(b"1.1", b"9.9"),
    "HTTP/1.2": GET.replace(b"1.1", b"1.2"),
    "HTTP/0.9": b"GET /quart\r\n\r\n",
    "HTTP/2.0": GET.replace(b"1.1", b"2.0"),
    "bare LF between lines": GET.replace(b"\r\n", b"\n"),
    "bare LF at the end": b"GET /quart HTTP/1.1\r\nHost: x\r\n\n",
    "bare LF in one header": b"GET /quart HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "bare CR in one header": b"GET /quart HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
    "a folded header": b"GET /quart HTTP/1.1\r\nHost: x\r\nX: y\r\n z\r\n\r\n",
    "a folded header with a tab": b"GET /quart HTTP/1.1\r\nHost: x\r\nX: y\r\n\tz\r\n\r\n",
    "a header without a name": b"GET /quart HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
    "NUL in a header": b"GET /quart HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    "no Host": b"GET /quart HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /quart HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "an odd Host": b"GET /quart HTTP/1.1\r\nHost: x/../y\r\n\r\n",
    "an absolute target": b"GET http://evil.example/quart HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
    "an h2c upgrade": with_header(
        b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"
    ),
    "an h2c upgrade with a body": POST + b"Upgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
    "a WebSocket upgrade": HANDSHAKE,
    "a chunk size in words": CHUNKED + b"five\r\nhello\r\n0\r\n\r\n",
    "a chunk without its end": CHUNKED + b"5\r\nhelloX0\r\n\r\n",
    "a chunk size with bare LF": CHUNKED + b"5\nhello\r\n0\r\n\r\n" + b"\r\n",
    "a chunk extension with bare CR": CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "a chunk extension of 300 bytes": CHUNKED + b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n",
    "a trailer that ends in bare LF": CHUNKED + b"5\r\nhello\r\n0\r\n\nGET /quart HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_request_that_can_be_read_in_two_ways_is_refused_and_the_connection_closed(
    name: str,
) -> None:
    async with http_door() as door:
        answer = await tell(door.port, REFUSED[name])
        assert answer.closed, answer.data
        assert answer.status == 400, answer.data
        assert answer.answers == 1, "the tail was answered as a second request"
        assert b"application/problem+json" in answer.data
        assert not door.troubles


@pytest.mark.parametrize(
    ("name", "request_bytes", "status"),
    [
        ("an unknown transfer coding", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("two transfer codings", POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n", 501),
        ("a head of 40 kB", b"GET /quart HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000, 431),
        ("a body over the limit", POST + b"Content-Length: 99999999\r\n\r\n", 413),
        ("chunks over the limit", CHUNKED + b"400\r\n" + b"x" * 1024, 413),
    ],
)
async def test_what_is_too_much_or_unknown_is_refused_by_its_status(
    name: str, request_bytes: bytes, status: int
) -> None:
    async with http_door(body_bytes_max=1000) as door:
        answer = await tell(door.port, request_bytes)
        assert (answer.status, answer.closed, answer.answers) == (status, True, 1), answer.data


GOOD: dict[str, tuple[bytes, bytes]] = {
    "a body": (POST + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello", b"\r\n\r\n5"),
    "chunks": (
        CHUNKED.replace(b"Host", b"Connection: close\r\nHost")
        + b"5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n",
        b"\r\n\r\n5",
    ),
    "HTTP/1.0": (GET.replace(b"1.1", b"1.0"), b"hello"),
    "an upgrade to something unheard of": (
        with_header(b"Connection: close\r\nUpgrade: smoke-signals/2"),
        b"hello",
    ),
    "an IPv6 Host": (LAST_GET.replace(b"Host: x", b"Host: [::1]:7310"), b"hello"),
    "Expect": (
        POST + b"Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
        b"\r\n\r\n2",
    ),
}


@pytest.mark.parametrize("name", GOOD)
async def test_an_honest_request_is_not_refused(name: str) -> None:
    request, end = GOOD[name]
    async with http_door() as door:
        answer = await tell(door.port, request)
        assert answer.data.endswith(end), answer.data
        assert answer.closed


async def test_three_requests_in_one_segment_get_three_answers_on_one_connection() -> None:
    async with http_door() as door:
        answer = await tell(door.port, GET + GET + LAST_GET)
        assert (answer.answers, answer.closed) == (3, True)


async def test_an_answer_names_no_server() -> None:
    async with http_door() as door:
        answer = await tell(door.port, LAST_GET)
        assert b"server:" not in answer.data.lower()
        assert b"hypercorn" not in answer.data.lower()


async def test_a_head_that_drips_is_answered_408_and_closed() -> None:
    assert HttpLimits().head_seconds_max <= 10
    async with http_door(head_seconds_max=0.4) as door:
        answer = await tell(door.port, *[bytes([byte]) for byte in GET[:30]], pause=0.05, seconds=3)
        assert answer.closed
        assert answer.seconds < 2.5


async def test_a_guest_that_says_nothing_is_let_go() -> None:
    async with http_door(head_seconds_max=0.3) as door:
        answer = await tell(door.port, seconds=2)
        assert (answer.closed, answer.data) == (True, b"")
        assert answer.seconds < 1


@pytest.mark.parametrize("path", [b"/v1/events", b"/quart"])
@pytest.mark.parametrize("drip", [b"", b"x"])
async def test_a_body_that_drips_or_never_comes_is_answered_408_and_closed(
    path: bytes, drip: bytes
) -> None:
    assert HttpLimits().body_seconds_max <= 30
    head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    async with http_door(body_seconds_max=0.4) as door:
        answer = await tell(door.port, head, *([drip] * 7), pause=0.05, seconds=3)
        assert (answer.status, answer.closed) == (408, True), answer.data
        assert answer.seconds < 1.5
        assert not door.troubles


async def test_a_kept_connection_is_served_again_and_ends_when_it_stays_idle() -> None:
    async with http_door(idle_seconds_max=0.5, head_seconds_max=0.2) as door:
        answer = await tell(door.port, GET, GET, pause=0.3, seconds=3)
        assert (answer.answers, answer.closed) == (2, True)
        assert 0.7 < answer.seconds < 2


async def test_a_quiet_stream_of_events_outlives_every_deadline() -> None:
    limits = dict(idle_seconds_max=0.2, head_seconds_max=0.2, body_seconds_max=0.2)
    async with http_door(**limits, write_seconds_max=0.2) as door:
        answer = await tell(door.port, GET.replace(b"/quart", b"/quiet"), seconds=3)
        assert b"data: 2" in answer.data


async def test_a_guest_that_does_not_read_its_answer_is_cut_off_and_holds_no_stop() -> None:
    async with http_door(write_seconds_max=0.4) as door:
        stream = await trio.open_tcp_stream("127.0.0.1", door.port)
        async with stream:
            await stream.send_all(GET.replace(b"/quart", b"/endless"))
            await trio.sleep(1)
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await stream.send_all(b"x")
                    await trio.sleep(0.05)
        assert not door.troubles


async def test_a_large_answer_arrives_whole_at_a_guest_that_reads_by_fits_and_starts() -> None:
    body = random.Random(1).randbytes(3_000_000)

    async def large(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")
        length = [(b"content-length", str(2 * len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": body})

    async with http_door(large) as door:
        async with await trio.open_tcp_stream("127.0.0.1", door.port) as stream:
            await stream.send_all(GET)
            got = b""
            while len(got) < 2 * len(body):
                got += await stream.receive_some(400_000)
                await trio.sleep(0.002)
            assert got.endswith(body + body)
        assert not door.troubles


async def test_a_stop_finishes_the_request_in_hand_and_ends_the_idle_ones_at_once() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")
        await trio.sleep(0.4)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    answers = []
    async with http_door(slow) as door, trio.open_nursery() as nursery:

        async def ask(data: bytes) -> None:
            answers.append(await tell(door.port, data, seconds=3))

        nursery.start_soon(ask, GET)
        nursery.start_soon(ask, b"")
        await trio.sleep(0.1)
        door.stop.set()
    idle, busy = answers
    assert (idle.data, idle.closed) == (b"", True)
    assert b"done" in busy.data
    assert busy.closed
    assert idle.seconds < busy.seconds < 1.2


async def test_a_full_house_says_so() -> None:
    async with http_door(connections_max=1) as door:
        stream = await trio.open_tcp_stream("127.0.0.1", door.port)
        async with stream:
            await trio.sleep(0.05)
            answer = await tell(door.port, GET)
            assert (answer.status, answer.closed) == (503, True)
        await trio.sleep(0.1)
        assert await is_served(door, "http")


async def test_what_an_application_says_when_it_breaks_reaches_neither_guest_nor_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def breaks(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("mlc_ik_never_log_this")

    for app in (None, breaks):
        async with http_door(app) as door:
            answer = await tell(door.port, GET.replace(b"/quart", b"/boom?token=mlc_ik_never_log"))
            assert answer.status == 500
            assert b"mlc_ik" not in answer.data
            assert b"Traceback" not in answer.data
            if app:
                assert b"application/problem+json" in answer.data
                assert door.troubles
    assert "mlc_ik" not in caplog.text
    assert "a request failed: RuntimeError at doors.py" in caplog.text


def test_the_libraries_are_told_to_be_quiet() -> None:
    for name in ("trio-websocket", "hypercorn.error"):
        assert not logging.getLogger(name).isEnabledFor(logging.DEBUG)


@pytest.mark.parametrize(
    ("check", "module"), [(framing.check_h11, framing), (guest.check_hypercorn, guest)]
)
def test_another_library_version_is_refused_at_start_with_the_way_to_mend_it(
    check: Callable[[], None], module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check()
    points: Any = {framing: ((str, "gone"),), guest: ((str, ("gone",)),)}[module]
    monkeypatch.setattr(module, "PATCH_POINTS", points)
    with pytest.raises(ConfigError, match="pip install"):
        check()


async def test_a_storm_of_mutated_requests_leaves_the_door_standing() -> None:
    async with http_door() as door:
        await storm(door.port, HTTP_SEEDS, 1_500)
        assert await is_served(door, "http")


@pytest.mark.long
async def test_twenty_thousand_hostile_guests_leave_the_door_standing() -> None:
    async with http_door() as door:
        await storm(door.port, HTTP_SEEDS, 20_000, random.randrange(2**32))
        assert await is_served(door, "http")
