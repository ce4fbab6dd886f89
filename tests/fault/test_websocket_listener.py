"""The WebSocket door stands whatever comes through it."""

from __future__ import annotations

import json
import random
import socket
import struct

import msgspec
import pytest
import trio
from trio_websocket import ConnectionClosed

from mlc_broker.edge.sockets import watch_for_vanished_peers
from mlc_broker.edge.websocket import Closed, Connection, WebSocketLimits
from tests.fault.doors import (
    HANDSHAKE,
    attack,
    closing_code,
    echo,
    frame,
    guest_of,
    is_served,
    tell,
    websocket_door,
)
from tests.fault.netfuzz import WEBSOCKET_SEEDS, storm


def with_header(line: bytes) -> bytes:
    return HANDSHAKE.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n")


ATTACKS: dict[str, list[bytes]] = {
    "a byte over 127 in Host": [HANDSHAKE.replace(b"Host: x", b"Host: \xbd")],
    "a byte over 127 in Connection": [HANDSHAKE.replace(b": Upgrade", b": Upgrade, \xbd")],
    "a byte over 127 in Sec-WebSocket-Protocol": [with_header(b"Sec-WebSocket-Protocol: \xff")],
    "a byte over 127 in Sec-WebSocket-Extensions": [with_header(b"Sec-WebSocket-Extensions: \xff")],
    "a byte over 127 in Sec-WebSocket-Key": [HANDSHAKE.replace(b"dGhl", b"\xff\xfe")],
    "a byte over 127 in the target": [HANDSHAKE.replace(b"GET /", b"GET /\xff")],
    "a byte over 127 in Origin": [with_header(b"Origin: \xff")],
    "no Host": [HANDSHAKE.replace(b"Host: x\r\n", b"")],
    "no key": [HANDSHAKE.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"")],
    "another version": [HANDSHAKE.replace(b"13", b"7")],
    "two handshakes": [HANDSHAKE + HANDSHAKE],
    "a frame behind the handshake": [HANDSHAKE + frame(1, b"early")],
    "a plain GET": [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
    "a POST": [b"POST /v1/stream HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"],
    "TLS on a plain port": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" * 10],
    "a header of 200 kB": [b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000],
    "an absurd window": [
        with_header(b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=9e99")
    ],
    "a conversation that breaks": [HANDSHAKE, frame(1, b"boom")],
    "two goodbyes": [HANDSHAKE, frame(8, b"\x03\xe8") * 2],
    "words after the goodbye": [
        HANDSHAKE,
        frame(8, b"\x03\xe8") + frame(1, b"late") + frame(9, b"p"),
    ],
    "a length of 2**63": [HANDSHAKE, b"\x81\xff" + struct.pack("!Q", 2**63) + b"\0\0\0\0"],
    "half a frame": [HANDSHAKE, b"\x81\xfe\x01"],
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_hostile_connection_ends_alone(name: str, reset: bool) -> None:
    async with websocket_door() as door:
        await attack(door.port, ATTACKS[name], reset=reset, pause=0.02)
        assert await is_served(door, "websocket")


@pytest.mark.parametrize(
    ("name", "parts", "code"),
    [
        ("bad UTF-8", [frame(1, b"\xff\xfe")], 1007),
        ("an unmasked frame", [frame(1, b"hi", mask=False)], 1002),
        ("a reserved bit", [frame(1, b"hi", rsv=4)], 1002),
        ("an unknown opcode", [frame(3, b"hi")], 1002),
        ("a continuation of nothing", [frame(0, b"hi")], 1002),
        ("a fragmented ping", [frame(9, b"x", fin=False)], 1002),
        ("a ping of 200 bytes", [frame(9, b"x" * 200)], 1002),
        ("a goodbye of one byte", [frame(8, b"x")], 1002),
        ("a goodbye with a forbidden code", [frame(8, struct.pack("!H", 1005))], 1002),
        ("a new message inside another", [frame(1, b"a", fin=False) + frame(1, b"b")], 1002),
        ("a message of 1.3 times the limit", [frame(1, b"x" * 1_400_000)], 1009),
    ],
)
async def test_a_broken_frame_is_answered_with_its_code(
    name: str, parts: list[bytes], code: int
) -> None:
    async with websocket_door() as door:
        answer = await tell(door.port, HANDSHAKE, *parts, pause=0.02, seconds=3)
        assert answer.closed, name
        assert closing_code(answer.data) == code, (name, answer.data[-60:])
        assert await is_served(door, "websocket")


@pytest.mark.parametrize("binary", [False, True])
async def test_a_message_over_the_limit_is_told_so_before_it_is_closed_with_1009(
    binary: bool,
) -> None:
    async with websocket_door() as door, guest_of(door) as websocket:
        message = "x" * (1_048_576 + 1)
        await websocket.send_message(message.encode() if binary else message)
        words = await websocket.get_message()
        error = msgspec.msgpack.decode(words) if binary else json.loads(words)
        assert (error["op"], error["code"]) == ("error", "too_large")
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1009


async def test_the_limit_is_in_bytes_not_in_characters() -> None:
    async with websocket_door() as door, guest_of(door) as websocket:
        await websocket.send_message("ü" * 524_288)
        assert len(await websocket.get_message()) == 524_288
        await websocket.send_message("ü" * 524_289)
        assert json.loads(await websocket.get_message())["code"] == "too_large"


async def test_a_conversation_that_breaks_is_told_to_the_house_and_costs_nobody_else() -> None:
    async with websocket_door() as door, guest_of(door) as neighbour:
        async with guest_of(door) as websocket:
            await websocket.send_message("boom")
            with pytest.raises(ConnectionClosed) as closed:
                await websocket.get_message()
            assert closed.value.reason is not None
        assert closed.value.reason.code == 1011
        await neighbour.send_message("hello")
        assert await neighbour.get_message() == "hello"
        with trio.fail_after(3):
            while not door.troubles:
                await trio.sleep(0.05)


async def test_a_guest_that_does_not_read_is_cut_off() -> None:
    assert WebSocketLimits().send_seconds_max <= 10
    ended = trio.Event()

    async def pour(connection: Connection) -> None:
        try:
            while True:
                await connection.send("x" * 60_000)
        except Closed:
            ended.set()
            raise

    limits = WebSocketLimits(send_seconds_max=0.5, close_seconds_max=0.2)
    async with websocket_door(pour, limits=limits) as door:
        stream = await trio.open_tcp_stream("127.0.0.1", door.port)
        async with stream:
            await stream.send_all(HANDSHAKE)
            with trio.fail_after(3):
                await ended.wait()
        assert not door.troubles


async def test_a_silent_guest_is_pinged_and_then_let_go() -> None:
    assert WebSocketLimits().silence_seconds_max <= 60
    limits = WebSocketLimits(ping_seconds=0.2, silence_seconds_max=0.6, close_seconds_max=0.1)
    async with websocket_door(limits=limits) as door:
        answer = await tell(door.port, HANDSHAKE, seconds=3)
        assert answer.closed
        assert answer.seconds < 1.2
        assert b"\x89" in answer.data.partition(b"\r\n\r\n")[2], "no ping was sent"


async def test_a_guest_that_answers_pings_may_stay() -> None:
    limits = WebSocketLimits(ping_seconds=0.2, silence_seconds_max=1.2, close_seconds_max=0.1)
    async with websocket_door(limits=limits) as door, guest_of(door) as websocket:
        await trio.sleep(2)
        await websocket.send_message("still here")
        assert await websocket.get_message() == "still here"


async def test_a_guest_whom_we_keep_waiting_is_not_called_silent() -> None:
    async def busy(connection: Connection) -> None:
        await trio.sleep(1)  # does not receive: the inbox is full, nothing more is read
        await echo(connection)

    limits = WebSocketLimits(ping_seconds=0.1, silence_seconds_max=0.3, close_seconds_max=0.1)
    async with websocket_door(busy, limits=limits) as door:
        guest = await trio.open_tcp_stream("127.0.0.1", door.port)
        async with guest:
            await guest.send_all(HANDSHAKE)
            data = await guest.receive_some(4096)
            await guest.send_all(frame(1, b"one") + frame(1, b"two") + frame(1, b"three"))
            with trio.fail_after(3):
                while b"three" not in data:
                    piece = await guest.receive_some(4096)
                    assert piece, "cut off although it was our turn"
                    data += piece


async def test_a_handshake_that_drips_ends_at_its_deadline() -> None:
    assert WebSocketLimits().handshake_seconds_max <= 10
    limits = WebSocketLimits(handshake_seconds_max=0.4, close_seconds_max=0.1)
    async with websocket_door(limits=limits) as door:
        drips = [bytes([byte]) for byte in HANDSHAKE[:60]]
        answer = await tell(door.port, *drips, pause=0.02, seconds=3)
        assert answer.closed
        assert answer.seconds < 1.5


async def test_compression_is_never_negotiated() -> None:
    async with websocket_door() as door:
        offer = with_header(b"Sec-WebSocket-Extensions: permessage-deflate")
        answer = await tell(door.port, offer, seconds=0.3)
        assert answer.status == 101
        assert b"extensions" not in answer.data.lower()


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 101),
        (b"https://school.example", 101),
        (b"https://school.example:444", 403),
        (b"http://school.example", 403),
        (b"https://school.example.evil.example", 403),
        (b"https://SCHOOL.example", 403),
        (b"null", 403),
        (b"", 403),
    ],
)
async def test_only_listed_origins_may_open_a_stream(origin: bytes | None, status: int) -> None:
    async with websocket_door(origins=frozenset({"https://school.example"})) as door:
        hello = HANDSHAKE if origin is None else with_header(b"Origin: " + origin)
        assert (await tell(door.port, hello, seconds=0.3)).status == status


async def test_another_path_is_not_found() -> None:
    async with websocket_door() as door:
        elsewhere = HANDSHAKE.replace(b"/v1/stream", b"/elsewhere")
        answer = await tell(door.port, elsewhere)
        assert (answer.status, answer.closed) == (404, True)
        asked = await tell(
            door.port, HANDSHAKE.replace(b"/v1/stream", b"/v1/stream?x=1"), seconds=0.3
        )
        assert asked.status == 101


async def test_the_authorization_header_reaches_the_conversation() -> None:
    async def show(connection: Connection) -> None:
        await connection.send(f"{connection.authorization} from {connection.address}")

    async with websocket_door(show) as door:
        headers = [(b"Authorization", b"Bearer abc")]
        async with guest_of(door, extra_headers=headers) as websocket:
            assert await websocket.get_message() == "Bearer abc from 127.0.0.1"


async def test_a_full_house_says_so_and_has_room_again_when_somebody_leaves() -> None:
    limits = WebSocketLimits(connections_max=2, close_seconds_max=0.2)
    async with websocket_door(limits=limits) as door:
        async with guest_of(door), guest_of(door):
            assert (await tell(door.port, HANDSHAKE)).status == 503
        await trio.sleep(0.1)
        assert await is_served(door, "websocket")


async def test_a_stop_lets_a_conversation_finish_what_was_read_then_says_1001() -> None:
    async def slow(connection: Connection) -> None:
        while True:
            message = await connection.receive()
            await trio.sleep(0.3)
            await connection.send(f"ack {message!r}")

    async with websocket_door(slow) as door, guest_of(door) as websocket:
        await websocket.send_message("1")
        await websocket.send_message("2")
        await trio.sleep(0.1)
        door.stop.set()
        assert await websocket.get_message() == "ack '1'"
        assert await websocket.get_message() == "ack '2'"
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 1001
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", door.port)


async def test_a_stop_is_bounded_even_if_nobody_cooperates() -> None:
    async def deaf(connection: Connection) -> None:
        await trio.sleep_forever()

    limits = WebSocketLimits(stop_seconds_max=0.3, close_seconds_max=0.2)
    began = trio.current_time()
    async with websocket_door(deaf, limits=limits) as door:
        streams = [await trio.open_tcp_stream("127.0.0.1", door.port) for _ in range(4)]
        for stream in streams[:2]:
            await stream.send_all(HANDSHAKE)  # the other two never shake hands
        await trio.sleep(0.1)
        door.stop.set()
        with trio.fail_after(2):
            for stream in streams:
                try:
                    while await stream.receive_some(4096):
                        pass
                except trio.BrokenResourceError:
                    pass
                await stream.aclose()
    assert trio.current_time() - began < 3


async def test_the_kernel_watches_for_vanished_peers() -> None:
    sock = trio.socket.socket()
    watch_for_vanished_peers(sock)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 60_000
    sock.close()


async def test_a_storm_of_mutated_handshakes_and_frames_leaves_the_door_standing() -> None:
    async with websocket_door() as door:
        await storm(door.port, WEBSOCKET_SEEDS, 1_500)
        assert await is_served(door, "websocket")


@pytest.mark.long
async def test_twenty_thousand_hostile_guests_leave_the_door_standing() -> None:
    async with websocket_door() as door:
        await storm(door.port, WEBSOCKET_SEEDS, 20_000, random.randrange(2**32))
        assert await is_served(door, "websocket")
