"""Mutations of valid conversations: random bytes rarely pass for a handshake, these nearly do."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import trio

from tests.fault.doors import GET, HANDSHAKE, attack, frame

SEED = int(os.environ.get("MLC_FUZZ_SEED", "20250127"))
GUESTS_AT_ONCE = 40
HELLO = frame(1, b'{"op": "hello", "token": "t"}')

WEBSOCKET_SEEDS: list[list[bytes]] = [
    [HANDSHAKE],
    [HANDSHAKE, HELLO],
    [HANDSHAKE, frame(1, "grüße".encode(), fin=False), frame(9, b"p"), frame(0, b"!")],
    [HANDSHAKE, frame(2, bytes(range(256))), frame(8, b"\x03\xe8bye")],
    [HANDSHAKE + HELLO],
    [HANDSHAKE.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: mlc.v1, b\r\n\r\n"), HELLO],
    [
        HANDSHAKE.replace(
            b"\r\n\r\n",
            b"\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=15\r\n"
            b"Origin: https://a.example\r\nAuthorization: Bearer abc\r\n\r\n",
        ),
        frame(1, b"x" * 300, rsv=4),
    ],
]
HTTP_SEEDS: list[list[bytes]] = [
    [GET],
    [GET * 3],
    [b"POST /quart HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"],
    [b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", b"hello", GET],
    [
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"lo\r\n0\r\nTrailer: 1\r\n\r\n",
    ],
    [HANDSHAKE],
    [HANDSHAKE + b"x"],
    [
        GET.replace(
            b"\r\n\r\n",
            b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        )
    ],
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)],
    [b"PUT /quart HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", b"ab"],
]


async def storm(port: int, seeds: list[list[bytes]], count: int, seed: int = SEED) -> None:
    """Let `count` hostile guests loose on a port; the seed is printed, and makes it repeatable."""
    print(f"MLC_FUZZ_SEED={seed} count={count}")
    chance = random.Random(seed)
    plan = iter(
        [(conversation, chance.random() < 0.3) for conversation in mutants(seeds, count, chance)]
    )

    async def guest() -> None:
        for parts, reset in plan:
            await attack(port, parts, reset=reset, pause=0.003)

    async with trio.open_nursery() as nursery:
        for _ in range(GUESTS_AT_ONCE):
            nursery.start_soon(guest)


def mutants(seeds: list[list[bytes]], count: int, chance: random.Random) -> Iterator[list[bytes]]:
    """Make conversations with one to four mistakes each."""
    for _ in range(count):
        parts = list(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(parts))
            parts[at] = mutate(parts[at], seeds, chance)
        if chance.random() < 0.2:
            parts = [b"".join(parts)]
        yield parts


def mutate(data: bytes, seeds: list[list[bytes]], chance: random.Random) -> bytes:
    """Make one mistake."""
    at = chance.randint(0, len(data))
    match chance.randrange(9):
        case 0:
            return data[:at] + bytes([chance.randint(0x80, 0xFF)]) + data[at:]
        case 1 if data:
            at = chance.randrange(len(data))
            return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
        case 2:
            return data[:at]
        case 3:
            return data[:at] + data[at + chance.randint(1, 8) :]
        case 4:
            return data[:at] + data[max(0, at - chance.randint(1, 40)) :]
        case 5:
            other = chance.choice(chance.choice(seeds))
            return data[:at] + other[chance.randint(0, len(other)) :]
        case 6:
            lines = data.split(b"\r\n")
            lines.insert(chance.randint(0, len(lines)), chance.choice(lines))
            return b"\r\n".join(lines)
        case 7:
            return data[:at] + chance.choice(NASTY) + data[at:]
        case _:
            return data + chance.randbytes(chance.randint(1, 16))


NASTY = [
    b"\x00",
    b"\n",
    b"\r",
    b"\r\n ",
    b"\r\n\r\n",
    b"\xff" * 9,
    b"\xed\xa0\x80",
    b"Upgrade: websocket\r\n",
    b"Content-Length: 99\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: \xbd\r\n",
    b"Sec-WebSocket-Protocol: \xff\r\n",
    b"a" * 40_000,
    b"\x88\x00",
    b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff",
]
