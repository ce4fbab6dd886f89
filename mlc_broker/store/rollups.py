"""Counts what is committed: cells in memory, flushed with the watermark that they cover.

On the way to an acknowledgement only a list grows. A task of its own folds and flushes, in a thread;
while many events come, in a process (rollups_clerk.py). Whatever is in memory may be lost: at the
start, and after a trouble, the packs behind the watermark are folded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import structlog
import trio

from mlc_broker.model.metric import Metrics
from mlc_broker.runtime.clock import Clock
from mlc_broker.store.hot import Committed
from mlc_broker.store.rollups_asked import CellReader, Turns
from mlc_broker.store.rollups_counter import Counter, Receipts, Source
from mlc_broker.store.rollups_far import Clerk, ClerkFailed
from mlc_broker.store.rollups_fold import Hidden
from mlc_broker.store.rollups_recount import Progress, Recount
from mlc_broker.store.rollups_words import word_id
from mlc_broker.store.select import Selection
from mlc_broker.store.view import FileView, pieces_of

log = structlog.get_logger("rollups")
InThread = Callable[..., Any]
Views = Callable[[], tuple[list[FileView], Selection]]  # of the store as it is at that moment
FLUSH_SECONDS = 1.0
FLUSH_COMMITS = 150
FOLD_SECONDS = 0.25
QUEUE_EVENTS_MAX = 60_000  # beyond it they are folded from their packs later
EXPIRE_SECONDS = 3600.0
QUIET_FLUSHES = 60  # of few events, or seconds of none: then the clerk is dismissed


class Rollups:
    """The metrics' cells. `open` it, hand `note` to the store's on_commit, and `run` it."""

    def __init__(
        self,
        path: Path,
        store: Source,
        metrics: Metrics,
        *,
        categories: Callable[[str], str | None],
        zone_of: Callable[[str], str],
        clock: Clock,
        hidden: Callable[[], Hidden] = frozenset,
        held: Callable[[], Hidden] = frozenset,
        trusts_clock: Callable[[], bool] = lambda: True,
        in_thread: InThread = trio.to_thread.run_sync,
        clerk_events_per_second: float = inf,
    ) -> None:
        """`clerk_events_per_second`: from how many on a process counts them."""
        self.path = path
        self.watermark = 0  # durable: hot files before it are not needed here
        self.version = 0  # grows with every flush
        self.changed = trio.Event()  # set at the next flush; then there is a new one
        self.events = 0  # counted since the start
        self.seconds = 0.0  # of CPU, spent folding and flushing
        self.uncounted: list[str] = []  # metrics that miss what was stored before them
        self._store = store
        self._metrics = metrics
        self._categories = categories
        self._zone_of = zone_of
        self._clock = clock
        self._hidden = hidden
        self._held = held
        self._trusts_clock = trusts_clock
        self._in_thread = in_thread
        self._queue: list[Committed] = []
        self._queued = 0
        self._folded_upto = 0
        self._behind = False
        self._receipts: Receipts = {}
        self._wake = trio.Event()
        self._lock = trio.Lock()
        self._flushed_at = -FLUSH_SECONDS
        self._turns = Turns(self.settle)
        self.read = CellReader(path)
        self._counter: Counter  # closed while there is a clerk
        self._clerk: Clerk | None = None
        self._clerk_rate = clerk_events_per_second
        self._quiet = 0  # flushes of few events, one after the other

    async def open(self) -> None:
        """Open the file and count what was committed after its watermark. Raises StoreError."""
        await self._in_thread(self._open)
        await self._catch_up()

    def note(self, committed: Committed) -> None:
        """Take what a commit stored; never waits."""
        self._queued += len(committed.events)
        if self._clerk is None and not self._behind:
            self._queue.append(committed)
            if self._queued > QUEUE_EVENTS_MAX:
                self._lose()
        self._wake.set()

    def note_receipts(
        self, organization_id: str | None, counts: Iterable[tuple[str, str, int]]
    ) -> None:
        """Count receipts of one organization: outcome, reason, how many."""
        at = self.now_minute()
        org = word_id(organization_id)
        for outcome, reason, n in counts:
            key = (org, at, outcome, reason)
            self._receipts[key] = self._receipts.get(key, 0) + n
        self._wake.set()

    async def run(self) -> None:
        """Fold and flush for ever."""
        expired_at = -EXPIRE_SECONDS
        while True:
            await self._something()
            began, before = trio.current_time(), self.events
            commits = 0
            while True:
                await trio.sleep(FOLD_SECONDS)
                commits += len(self._queue)
                async with self._lock:
                    await self._fold()
                if trio.current_time() - began >= FLUSH_SECONDS or commits >= FLUSH_COMMITS:
                    break
            if self._flushed_at < began:  # else somebody asked, and had it flushed
                await self.settle()
            rate = (self.events - before) / (trio.current_time() - began)
            due = trio.current_time() - expired_at >= EXPIRE_SECONDS
            if due and self._trusts_clock():
                expired_at = trio.current_time()
                await self.expire(self.now_minute())
            await self._choose(rate)

    async def settle(self) -> None:
        """Write down all that is committed so far: whoever reads the file then misses nothing."""
        async with self._lock:
            if self._wake.is_set():  # or `run` waits for it, and would for ever
                self._wake = trio.Event()
            if self._clerk is not None:
                await self._let_count(self._clerk)
            else:
                await self._settle_here()

    async def caught_up(self) -> None:
        """Return when all that was committed before this call can be read: for questions."""
        busy = self._lock.locked() or self._queued or self._behind or self._receipts
        if busy or self._folded_upto != self.watermark:
            await self._turns()

    def keep_from(self) -> int:
        """Return the lowest sequence that is not counted for good yet."""
        return self.watermark

    async def forget_person(self, organization_id: str, user_id: str) -> None:
        """Take a person's contribution out of every metric."""
        await self.settle()
        async with self._lock:
            await self._come_home()
            self._counter.folder.words.forget(user_id)
            await self._in_thread(self._counter.file.forget_person, organization_id, user_id)
            self._tell()

    async def expire(self, now_minute: int) -> int:
        """Remove what retention says; make old minutes and hours coarser. Minutes since 1970, UTC.

        Return how many cells; what is under a legal hold stays.
        """
        async with self._lock:
            await self._come_home()
            await self._flush()
            counter = self._counter
            try:
                gone: int = await self._in_thread(counter.file.expire, now_minute, self._held())
            finally:
                counter.folder.words.clear()  # words of which no cell is left are not in the file
        return gone

    async def close(self) -> None:
        """Write down what is left, and close."""
        try:
            await self.settle()
        finally:
            self.read.close()
            clerk, self._clerk = self._clerk, None
            if clerk is not None:
                await clerk.dismiss()
            else:
                await self._in_thread(self._counter.close)

    async def check(self, views: Views, progress: Progress) -> Recount:
        """Count all stored events anew, and compare; the daemon goes on meanwhile.

        `views` shows the store as it is at that moment.
        """
        await self.settle()
        async with self._lock:
            await self._come_home()
            await self._flush()
            counter, before = self._counter, self.watermark
            snapshot = await self._in_thread(counter.snapshot)
            shown, wanted = views()
        try:
            compare = partial(counter.compare, snapshot, before=before, progress=progress)
            found: Recount = await self._in_thread(compare, shown, wanted)
        finally:
            await self._in_thread(snapshot.close)
        return found

    async def rebuild(self, views: Views, progress: Progress) -> Recount:
        """Replace all cells by a recount of the stored events, in the organizations' zones of now."""
        await self.settle()
        async with self._lock:
            await self._come_home()
            before, counter = self.watermark, self._counter
            shown, wanted = views()
            count = partial(counter.rebuild, before=before, progress=progress)
            found: Recount = await self._in_thread(count, shown, wanted)
            self.uncounted = []
            self._tell()
        return found

    async def redeclare(self, metrics: Metrics) -> None:
        """Count by these declarations from now on; what is committed was counted by the old ones."""
        async with self._lock:
            await self._come_home()
            await self._settle_here()
            self._metrics = metrics
            self.uncounted = await self._in_thread(self._counter.declare, metrics.samplers)
            self._tell()

    def now_minute(self) -> int:
        """Return the minute since 1970."""
        return int(self._clock.now().timestamp() // 60)

    @property
    def waiting(self) -> int:
        """Committed events that are not folded yet."""
        return self._queued

    def _open(self) -> None:
        self._counter = Counter(
            self.path, self._metrics.samplers, categories=self._categories, zone_of=self._zone_of
        )
        self.watermark = self._folded_upto = self._counter.watermark
        self.uncounted = self._counter.file.note_declared(self._counter.declarations())

    def note_kinds(self, kinds: Iterable[tuple[str, str, bool]]) -> None:
        """Note types, their categories, and which are errors; thread-side, before `run`."""
        self._counter.file.note_kinds(kinds)

    async def _settle_here(self) -> None:
        await self._fold()
        if self._behind:
            await self._catch_up()
        await self._flush()

    async def _fold(self) -> None:
        if not self._queue or self._behind:
            return
        queue, self._queue, self._queued = self._queue, [], 0
        try:
            await self._in_thread(self._fold_all, queue)
        except BaseException:
            self._lose()
            raise
        self._folded_upto = queue[-1].sequence + len(queue[-1].events)

    def _fold_all(self, queue: list[Committed]) -> None:
        hidden = self._hidden()
        for committed in queue:
            self._counter.fold(committed.events, committed.rows["ts"].tolist(), hidden)

    async def _flush(self) -> None:
        upto = self._folded_upto
        if upto == self.watermark and not self._receipts:
            return
        receipts, self._receipts = self._receipts, {}
        counter = self._counter
        delta = counter.folder.fresh()
        try:
            await self._in_thread(counter.write, delta, upto, receipts)
        except BaseException:
            self._lose()
            raise
        self.watermark = upto
        self._tell()
        self.events, counter.events = self.events + counter.events, 0
        self.seconds, counter.seconds = self.seconds + counter.seconds, 0.0

    def _tell(self) -> None:
        self._flushed_at = trio.current_time()
        self.version += 1
        self.changed.set()
        self.changed = trio.Event()

    def _lose(self) -> None:
        """What is in memory may be half done: begin again at what the file covers."""
        self._behind = True
        self._queue, self._queued = [], 0
        self._folded_upto = self.watermark

    async def _catch_up(self) -> None:
        """Fold from the packs what is behind; in steps, each flushed."""
        if self._behind:
            self._lose()
            await self._in_thread(self._counter.begin_again)
            self.watermark = self._folded_upto = self._counter.watermark
        self._behind = False  # commits from now on are queued
        for piece in pieces_of(self._store.views_after(self._folded_upto), QUEUE_EVENTS_MAX):
            begin = self._folded_upto
            fold = partial(self._counter.fold_packs, piece.path, piece.entries["key"].tolist())
            try:
                self._folded_upto = await self._in_thread(fold, begin, self._hidden())
            except BaseException:
                self._lose()
                raise
            await self._flush()
        await self._flush()

    async def _hire(self) -> None:
        """Have events counted in a process from now on. Takes the lock."""
        try:
            clerk = await Clerk.hire(categories=self._categories, zone_of=self._zone_of)
        except ClerkFailed as failed:
            self._do_without(failed)
            return
        handed = False
        try:
            async with self._lock:
                await self._settle_here()
                with trio.CancelScope(shield=True):
                    await self._in_thread(self._counter.close)
                    self._clerk, handed, self._quiet = clerk, True, 0
                    self._queue, self._behind = [], False  # the clerk reads it from the packs
                    log.info("metrics are counted in a second process while many events come")
                    try:
                        self.watermark = await clerk.begin(self.path, self._metrics.samplers)
                    except ClerkFailed as failed:
                        self._do_without(failed)
                        await self._come_home()
        finally:
            if not handed:
                await clerk.dismiss()

    async def _let_count(self, clerk: Clerk) -> None:
        receipts, self._receipts = self._receipts, {}
        views = self._store.views_after(self.watermark)
        pieces = pieces_of(views, QUEUE_EVENTS_MAX) or ((None,) if receipts else ())
        try:
            for piece in pieces:
                counted = await clerk.count(self.watermark, piece, self._hidden(), receipts)
                receipts = {}
                self.watermark = self._folded_upto = counted.upto
                self.events += counted.events
                self.seconds += counted.seconds
                self._queued = max(0, self._queued - counted.events)
                self._tell()
        except ClerkFailed as failed:
            self._do_without(failed)
            await self._come_home()

    async def _come_home(self) -> None:
        """Count in this process again: nobody else has the file open then."""
        clerk = self._clerk
        if clerk is not None:
            with trio.CancelScope(shield=True):
                await clerk.dismiss()
                await self._in_thread(self._open)  # where it fails, the next one tries again
                self._clerk, self._behind = None, True
            await self._catch_up()

    def _do_without(self, failed: ClerkFailed) -> None:
        log.warning("no process counts beside the daemon until it starts again", why=str(failed))
        self._clerk_rate = inf

    async def _something(self) -> None:
        """Wait until there is something to count; a clerk without work is sent home."""
        while True:
            with trio.move_on_after(inf if self._clerk is None else FLUSH_SECONDS):
                await self._wake.wait()
                return
            await self._choose(0.0)

    async def _choose(self, events_per_second: float) -> None:
        """Have a clerk while many events come."""
        if self._clerk is None:
            if events_per_second >= self._clerk_rate:
                await self._hire()
            return
        self._quiet = 0 if events_per_second >= self._clerk_rate / 4 else self._quiet + 1
        if self._quiet >= QUIET_FLUSHES:
            async with self._lock:
                await self._come_home()
