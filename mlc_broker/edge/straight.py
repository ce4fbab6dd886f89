"""A plain TCP socket without trio's detours: what fits goes out at once, and nothing is asked twice.

trio tries to read before it waits, which is nearly always in vain here, and lets others run after
every send. Neither is needed where the caller waits for something else in each message.
"""

from __future__ import annotations

import os
from contextlib import suppress

import trio

PIECE_BYTES = 65_536
# What waits unsent in the kernel. trio's 16 KiB makes an export ten calls a MiB; a guest that is slow
# has to take half of it before there is room again, so this is twice a piece and no more.
UNSENT_BYTES = 2 * PIECE_BYTES


def keep_more_unsent(sock: trio.socket.SocketType) -> None:
    """Let the kernel take more at once, where it can be told."""
    with suppress(OSError, AttributeError):  # not TCP, or a system that has no such thing
        sock.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def send_now(stream: trio.SocketStream, data: bytes | bytearray | memoryview) -> int:
    """Send what the kernel takes at once, and return how many bytes; never waits, never raises.

    None, too, where something is wrong: `send_all` of the rest says what.
    """
    try:
        return os.write(stream.socket.fileno(), data)
    except OSError:
        return 0


async def push(stream: trio.abc.Stream, view: memoryview) -> int:
    """Send one piece or more, as much as the kernel takes at once; return how many bytes.

    Each call of a socket is a round of the event loop: piece by piece, an export would pay it for
    every 64 KiB. Raises what trio raises, and OSError.
    """
    least = min(len(view), PIECE_BYTES)
    if not isinstance(stream, trio.SocketStream):
        await stream.send_all(view[:least])
        return least
    sent = 0
    while sent < least:
        sent += await stream.socket.send(view[sent:])
    return sent


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
