"""A reader that comes back: behind a cursor without a gap, first from the store, then live."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import trio

from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Principal
from mlc_broker.query.live import Live
from mlc_broker.query.live_subscription import PAGE_EVENTS_MAX, Page, Subscription
from mlc_broker.store.hot import file_of
from mlc_broker.store.pack import Pack
from mlc_broker.store.schema import open_reader
from mlc_broker.store.select import select
from mlc_broker.store.view import HotView, PackRef

InThread = Callable[..., Any]
_PACKS_AT_ONCE = 8


class Follower:
    """Yields every event behind a cursor, in the order of the commits, each once.

    It reads what hot files hold and joins the live feed where they end. A reader too slow for the
    live queue is not told that it missed something: it goes on from the store.
    """

    def __init__(
        self,
        live: Live,
        principal: Principal,
        filter_: Filter,
        *,
        after: int | None,
        in_thread: InThread = trio.to_thread.run_sync,
    ) -> None:
        """`after` is the cursor: a sequence; None is now. `open` it before iterating."""
        self.cursor = live.last if after is None else min(after, live.last)
        self.gap = False  # what followed the cursor was sealed and let go: ask GET /v1/events
        self._resumed = after is not None
        self._live = live
        self._principal = principal
        self._filter = filter_
        self._in_thread = in_thread
        self._subscription: Subscription | None = None
        self._loaded: deque[tuple[HotView, PackRef, Pack]] = deque()

    async def open(self) -> None:
        """Write into the access log who reads, and look whether the cursor is still known."""
        await self._live.admit(self._principal, self._filter)
        numbers = self._live.store.files.hot
        self.gap = self._resumed and bool(numbers) and file_of(self.cursor + 1) < min(numbers)

    async def page(self) -> Page | None:
        """Return the next events; None: the feed has ended."""
        while True:
            if self._subscription is None:
                page = await self._from_store()
                if page is not None:
                    return page
                self._join()
            subscription = self._subscription
            assert subscription is not None
            page = await subscription.page()
            if page is None:
                return None
            if not subscription.overrun:
                self.cursor = page.sequences[-1]
                return page
            self.close()  # go back to the store for what was missed

    def close(self) -> None:
        """Leave the live feed."""
        if self._subscription is not None:
            self._subscription.leave()
            self._subscription = None

    def _join(self) -> None:
        self._subscription = self._live.join(self._principal, self._filter, after=self.cursor)

    async def _from_store(self) -> Page | None:
        """Return the next wanted events that are committed; None: there are none behind us."""
        # Between the last look at `last` and `_join` nothing is awaited: nothing slips between.
        while self.cursor < self._live.last:
            if not self._loaded:
                views = self._live.store.views_after(self.cursor + 1)
                if not views:
                    self.cursor = self._live.last
                    break
                self._loaded.extend(await self._in_thread(_load, views[0], self.cursor))
            page = self._wanted(*self._loaded[0])
            if page is not None:
                return page
        self._loaded.clear()
        return None

    def _wanted(self, view: HotView, ref: PackRef, pack: Pack) -> Page | None:
        """Return the next wanted events of a pack; None: it is through."""
        scope = self._live.scope(self._principal, self._filter)
        mask = select(pack.rows(), view.dictionary, self._live.store.select(scope, self._filter))
        mask[: max(0, self.cursor + 1 - ref.key)] = False
        places = np.flatnonzero(mask).tolist()[:PAGE_EVENTS_MAX]
        if not places:
            self.cursor = ref.key + ref.n - 1
            self._loaded.popleft()
            return None
        self.cursor = ref.key + places[-1]
        lines = self._live.lines(scope, pack.lines(places))
        return Page(lines, [ref.key + place for place in places])


def _load(view: HotView, after: int) -> list[tuple[HotView, PackRef, Pack]]:
    """Read the next packs of a file behind a sequence; thread-side."""
    entries = view.entries
    entries = entries[entries["key"] + entries["n"] - 1 > after][:_PACKS_AT_ONCE]
    columns = (entries[name].tolist() for name in ("key", "n", "t0", "t1"))
    refs = [PackRef(*values) for values in zip(*columns, strict=True)]
    connection = open_reader(view.path)
    try:
        return [(view, ref, view.load(connection, ref)) for ref in refs]
    finally:
        connection.close()
