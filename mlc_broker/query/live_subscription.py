"""One subscriber's queue: what was committed for them, within bounds, until they take it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import trio
from msgspec import Struct

from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Principal, Scope

PAGE_EVENTS_MAX = 200
PAGE_BYTES_MAX = 65_536


class LiveLimits(Struct, frozen=True, kw_only=True):
    """What live subscribers may take; each name carries its unit."""

    subscriber_events_max: int = 1000  # waiting for one of them; older ones are missed
    subscriber_bytes_max: int = 262_144
    subscribers_max: int = 2000
    deliver_seconds: float = 0.1  # between two rounds: what comes meanwhile goes out together


class Page(Struct, frozen=True, gc=False):
    """Stored lines in the order of their commits, and how many were missed before them."""

    lines: list[bytes]
    sequences: list[int]  # of the lines: a reader can go on behind any of them
    missed: int = 0


class Subscription:
    """What one subscriber has not taken yet. Iterate it, or ask for a `page`; then `aclose`.

    When it is full, the oldest give way: a slow reader is told how many it missed, and sees what
    is new. The feed never waits for anybody.
    """

    def __init__(
        self,
        principal: Principal,
        filter_: Filter,
        scope: Scope,
        *,
        after: int,
        limits: LiveLimits,
        leave: Callable[[Subscription], None],
    ) -> None:
        """`after` is the last sequence that it does not want."""
        self.principal = principal
        self.filter = filter_
        self.scope = scope
        self.after = after
        self.overrun = False  # something was missed, ever
        self._limits = limits
        self._leave = leave
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._missed = 0
        self._ended = False
        self._wake = trio.Event()

    def put(self, sequences: Sequence[int], lines: Sequence[bytes]) -> None:
        """Take lines that were committed; never waits."""
        self._waiting.extend(zip(sequences, lines, strict=True))
        self._bytes += sum(map(len, lines))
        while (
            len(self._waiting) > self._limits.subscriber_events_max
            or self._bytes > self._limits.subscriber_bytes_max
        ) and len(self._waiting) > 1:
            _, line = self._waiting.popleft()
            self._bytes -= len(line)
            self._missed += 1
            self.overrun = True
        self._wake.set()

    async def page(self) -> Page | None:
        """Return what waits, or what comes next; None: the feed has ended."""
        while not self._waiting:
            if self._ended:
                return None
            self._wake = trio.Event()
            await self._wake.wait()
        lines: list[bytes] = []
        sequences: list[int] = []
        size = 0
        while self._waiting and len(lines) < PAGE_EVENTS_MAX:
            sequence, line = self._waiting[0]
            if lines and size + len(line) > PAGE_BYTES_MAX:
                break
            self._waiting.popleft()
            size += len(line)
            lines.append(line)
            sequences.append(sequence)
        self._bytes -= size
        missed, self._missed = self._missed, 0
        return Page(lines, sequences, missed)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> tuple[list[bytes], int]:
        """Return lines and how many were missed before them, as a conversation sends them."""
        page = await self.page()
        if page is None:
            raise StopAsyncIteration
        return page.lines, page.missed

    def end(self) -> None:
        """Let the reader take what waits, and no more."""
        self._ended = True
        self._wake.set()

    def leave(self) -> None:
        """Leave the feed; may be called twice."""
        self._leave(self)
        self._waiting.clear()
        self.end()

    async def aclose(self) -> None:
        """Leave the feed, at the end of an iteration."""
        self.leave()
