"""A stream with deadlines: nothing that a peer does, or fails to do, holds a task for ever."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

import trio
from trio.abc import Stream

from mlc_broker.edge.straight import PIECE_BYTES, receive, send_now

GOODBYE = b"\x88"  # how a closing frame begins, and no other frame nor an HTTP answer
GONE = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError, OSError)


class PatientStream(Stream):
    """Bounds every send, notes when the peer was last heard, and can stop listening.

    trio-websocket sends pongs and closing frames by itself and waits for their way out without
    limit; below it is the one place where all of them can be bounded.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        send_seconds_max: float,
        part_seconds_max: float = 1.0,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.inner = stream
        self._plain = stream if isinstance(stream, trio.SocketStream) else None
        self._sending = 0  # sends that wait for room: nothing may go out between their pieces
        self._send_seconds_max = send_seconds_max
        self._part_seconds_max = part_seconds_max
        self._on_end = on_end
        self._waiting_since = math.inf
        self._hearing = trio.Event()
        self._hearing.set()
        self._ended = trio.Event()
        self._goodbye_said = False
        self.last_words: Callable[[], bytes] = lambda: b""  # asked once, if nobody said goodbye

    def silent_seconds(self) -> float:
        """Say how long we have been waiting for the peer; 0 while it is the peer who waits.

        A full inbox stops the reading: that silence is ours, and counts for nothing.
        """
        return max(0.0, trio.current_time() - self._waiting_since)

    def stop_hearing(self) -> None:
        """Read no more: what has been read is finished first."""
        self._hearing = trio.Event()

    def resume_hearing(self) -> None:
        """Read on, to see the peer's goodbye."""
        self._hearing.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return the next bytes, as they come; empty at the end."""
        if not self._hearing.is_set():
            await self._hearing.wait()
        self._waiting_since = trio.current_time()
        data: bytes | bytearray
        try:
            if self._plain is not None:
                data = await receive(self._plain, max_bytes)
            else:
                data = await self.inner.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._end()
            raise
        finally:
            self._waiting_since = math.inf
        if not data:
            self._end()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send it, piece by piece; BrokenResourceError when one piece does not go out in time.

        What the kernel takes at once goes out without waiting, which is nearly always all of it:
        then nobody else runs meanwhile. trio-websocket's lock has let them run just before.
        """
        if data[:1] == GOODBYE:
            self._goodbye_said = True
        sent = 0
        if self._plain is not None and not self._sending:
            sent = send_now(self._plain, data)
        if sent < len(data):
            await self._send_slowly(memoryview(data)[sent:])

    async def _send_slowly(self, view: memoryview) -> None:
        self._sending += 1
        try:
            for start in range(0, len(view), PIECE_BYTES):
                with trio.move_on_after(self._send_seconds_max) as patience:
                    await self.inner.send_all(view[start : start + PIECE_BYTES])
                if patience.cancelled_caught:
                    self._end()
                    await trio.aclose_forcefully(self.inner)
                    raise trio.BrokenResourceError("the peer does not read")
        finally:
            self._sending -= 1

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there may be room to send."""
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close so that the peer can still read our last words, if it does so in time.

        Closing over bytes that nobody read makes the kernel answer with a reset, which voids
        what the peer has not read yet; so we read on for a moment.
        """
        try:
            with trio.move_on_after(self._part_seconds_max), suppress(*GONE):
                await self._part()
        finally:
            self._end()
            await trio.aclose_forcefully(self.inner)

    def _end(self) -> None:
        self._ended.set()
        self._on_end()

    async def _part(self) -> None:
        if not self._goodbye_said:
            self._goodbye_said = True
            await self.inner.send_all(self.last_words())
        if not isinstance(self.inner, trio.SocketStream):
            await self.inner.aclose()  # TLS says goodbye in its own words
            return
        await self.inner.send_eof()
        if self._waiting_since != math.inf:  # the library reads already, and will see the end
            await self._ended.wait()
            return
        while await self.inner.receive_some(PIECE_BYTES):
            pass
