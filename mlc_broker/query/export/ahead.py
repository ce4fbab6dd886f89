"""Reading one step ahead: the next chunk is made in a thread while the former one is being sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

import outcome
import trio

from mlc_broker.model.errors import Unavailable
from mlc_broker.store.writer import InThread

T = TypeVar("T")


class Ahead(Generic[T]):
    """An iterator of threads, asked by a task: at most one item waits to be taken.

    Whoever takes none costs no more than that item: no thread and no connection is held by it.
    """

    def __init__(self, items: Iterator[T], in_thread: InThread) -> None:
        self._items = items
        self._in_thread = in_thread
        self._result: outcome.Outcome[T | None] | None = None
        self._made: trio.Event | None = None  # None: nothing is on its way

    async def take(self) -> T | None:
        """Return the next item, and begin with the one behind it; None at the end.

        Raises what the iterator raises, and after that there is nothing more; Unavailable when
        the daemon stops.
        """
        if self._made is None:
            self._begin()
        await self._ready()
        result = self._result
        self._made = self._result = None
        if result is None:
            raise Unavailable("The daemon is stopping: begin the export again later.")
        item = result.unwrap()
        if item is not None:
            self._begin()
        return item

    async def aclose(self) -> None:
        """Wait until no thread is at it any more, and let go of what was made."""
        with trio.CancelScope(shield=True):
            await self._ready()
        self._made = self._result = None

    def _begin(self) -> None:
        # No nursery could stand around it: its caller is a generator, which leaves at each yield.
        self._made = trio.Event()
        trio.lowlevel.spawn_system_task(self._make, self._made)

    async def _make(self, made: trio.Event) -> None:
        try:
            self._result = await self._in_thread(outcome.capture, next, self._items, None)
        finally:
            made.set()

    async def _ready(self) -> None:
        if self._made is not None:
            await self._made.wait()
