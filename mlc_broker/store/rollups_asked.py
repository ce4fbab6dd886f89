"""The rollups as questions need them: written down up to now, and read by connections kept open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from mlc_broker.store.connections import Connections

READERS_MAX = 4  # connections kept open
PAUSES = 9  # times what the flush before took: questions take at most a tenth of the time
PAUSE_SECONDS_MAX = 0.5


class Turns:
    """Flushes for those who ask: all who wait share one, and none begins right behind another.

    Under load every flush has something to write, and costs the same however little that is: ten
    questions a second were ten transactions a second beside the one that `Rollups.run` makes.
    """

    def __init__(self, settle: Callable[[], Awaitable[None]]) -> None:
        self.begun = 0
        self._settle = settle
        self._done = 0
        self._not_before = 0.0
        self._lock = trio.Lock()

    async def __call__(self) -> None:
        """Return when a flush that began after this call is done."""
        needed = self.begun + 1
        async with self._lock:
            if self._done >= needed:
                return
            if trio.current_time() < self._not_before:
                await trio.sleep_until(self._not_before)
            self.begun = turn = self.begun + 1
            began = trio.current_time()
            await self._settle()
            self._done, now = turn, trio.current_time()
            self._not_before = now + min(PAUSES * (now - began), PAUSE_SECONDS_MAX)


class CellReader:
    """Reads the cells; any thread may at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connections = Connections(READERS_MAX)

    def __call__(self, query: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Return what a query finds; thread-side."""
        with self._connections.borrow(self._path) as connection:
            found: list[tuple[Any, ...]] = connection.execute(query, values).fetchall()
        return found

    def close(self) -> None:
        """Close the connections: before the one that writes, so that it can tidy up."""
        self._connections.close()
