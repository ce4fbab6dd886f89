"""A plain TCP socket without trio's detours: what fits goes out at once, and nothing is asked twice.

trio tries to read before it waits, which is nearly always in vain here, and lets others run after
every send. Neither is needed where the caller waits for something else in each message.
"""

from __future__ import annotations

import os

import trio

PIECE_BYTES = 65_536


def send_now(stream: trio.SocketStream, data: bytes | bytearray | memoryview) -> int:
    """Send what the kernel takes at once, and return how many bytes; never waits, never raises.

    None, too, where something is wrong: `send_all` of the rest says what.
    """
    try:
        return os.write(stream.socket.fileno(), data)
    except OSError:
        return 0


async def receive(stream: trio.SocketStream, bytes_max: int | None = None) -> bytes:
    """Wait until something is there, and return it; empty at the end. Raises what trio raises."""
    sock = stream.socket
    while True:
        if sock.fileno() < 0:
            raise trio.ClosedResourceError("this socket was closed")
        await trio.lowlevel.wait_readable(sock)
        if sock.fileno() < 0:  # while we waited for our turn
            raise trio.ClosedResourceError("this socket was closed")
        try:
            return os.read(sock.fileno(), bytes_max or PIECE_BYTES)
        except BlockingIOError:
            continue
        except OSError as error:
            raise trio.BrokenResourceError(f"socket connection broken: {error}") from error
