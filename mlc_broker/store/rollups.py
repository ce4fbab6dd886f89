"""Counts what is committed: cells in memory, flushed with the watermark that they cover.

On the way to an acknowledgement only a list grows. A task of its own folds and flushes, in a thread.
Whatever is in memory may be lost: at the start, and after a trouble, the packs behind the watermark
are folded again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import trio

from mlc_broker.model.event import Event
from mlc_broker.model.metric import Metrics
from mlc_broker.runtime.clock import Clock
from mlc_broker.store.files import unlink as remove
from mlc_broker.store.hot import Committed
from mlc_broker.store.lines import event_of
from mlc_broker.store.rollups_asked import CellReader, Turns
from mlc_broker.store.rollups_file import RollupsFile
from mlc_broker.store.rollups_fold import Folder, Hidden
from mlc_broker.store.rollups_recount import Progress, Recount, compare, recount
from mlc_broker.store.rollups_words import word_id
from mlc_broker.store.schema import open_reader
from mlc_broker.store.select import Selection
from mlc_broker.store.view import FileView, HotView

InThread = Callable[..., Any]
FLUSH_SECONDS = 1.0
FLUSH_COMMITS = 150
FOLD_SECONDS = 0.25
QUEUE_EVENTS_MAX = 60_000  # beyond it they are folded from their packs later
EXPIRE_SECONDS = 3600.0


class Source(Protocol):
    """What is counted: the store."""

    def views_after(self, sequence: int) -> list[HotView]:
        """Return committed packs from a sequence on, in order of arrival."""


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
    ) -> None:
        self.path = path
        self.watermark = 0  # durable: hot files before it are not needed here
        self.version = 0  # grows with every flush
        self.changed = trio.Event()  # set at the next flush; then there is a new one
        self.events = 0  # folded since the start
        self.seconds = 0.0  # spent folding and flushing
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
        self._receipts: dict[tuple[int, int, str, str], int] = {}
        self._wake = trio.Event()
        self._lock = trio.Lock()
        self._flushed_at = -FLUSH_SECONDS
        self._turns = Turns(self.settle)
        self.read = CellReader(path)
        self._file: RollupsFile
        self._folder: Folder

    async def open(self) -> None:
        """Open the file and count what was committed after its watermark. Raises StoreError."""
        await self._in_thread(self._open)
        self._folded_upto = self.watermark
        await self._catch_up()

    def note(self, committed: Committed) -> None:
        """Take what a commit stored; never waits."""
        if self._queued >= QUEUE_EVENTS_MAX:
            self._behind = True
            self._queue.clear()
            self._queued = 0
        if not self._behind:
            self._queue.append(committed)
            self._queued += len(committed.events)
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
            await self._wake.wait()
            began = trio.current_time()
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
            due = trio.current_time() - expired_at >= EXPIRE_SECONDS
            if due and self._trusts_clock():
                expired_at = trio.current_time()
                await self.expire(self.now_minute())

    async def settle(self) -> None:
        """Write down all that is committed so far: whoever reads the file then misses nothing."""
        async with self._lock:
            if self._wake.is_set():  # or `run` waits for it, and would for ever
                self._wake = trio.Event()
            await self._fold()
            if self._behind:
                await self._catch_up()
            await self._flush()

    async def caught_up(self) -> None:
        """Return when all that was committed before this call can be read: for questions."""
        quiet = not (self._lock.locked() or self._queue or self._behind or self._receipts)
        if not quiet or self._folded_upto != self.watermark:
            await self._turns()

    def keep_from(self) -> int:
        """Return the lowest sequence that is not counted for good yet."""
        return self.watermark

    async def forget_person(self, organization_id: str, user_id: str) -> None:
        """Take a person's contribution out of every metric."""
        await self.settle()
        async with self._lock:
            self._folder.words.forget(user_id)
            await self._in_thread(self._file.forget_person, organization_id, user_id)
            self._tell()

    async def expire(self, now_minute: int) -> int:
        """Remove what retention says; make old minutes and hours coarser. Minutes since 1970, UTC.

        Return how many cells; what is under a legal hold stays.
        """
        async with self._lock:
            await self._flush()
            try:
                gone: int = await self._in_thread(self._file.expire, now_minute, self._held())
            finally:
                self._folder.words.clear()  # words of which no cell is left are not in the file
        return gone

    async def close(self) -> None:
        """Write down what is left, and close."""
        try:
            await self.settle()
        finally:
            self.read.close()
            await self._in_thread(self._file.close)

    async def check(
        self, views: Callable[[], tuple[list[FileView], Selection]], progress: Progress
    ) -> Recount:
        """Count all stored events anew, and compare; the daemon goes on meanwhile.

        `views` shows the store as it is at that moment.
        """
        fresh = self.path.with_name("rollups.recount.db")
        await self.settle()
        async with self._lock:
            await self._flush()
            snapshot = await self._in_thread(self._snapshot)
            before = self.watermark
            shown, wanted = views()
        try:
            found: Recount = await self._in_thread(
                self._check, snapshot, shown, wanted, fresh, before, progress
            )
        finally:
            await self._in_thread(snapshot.close)
        return found

    async def rebuild(
        self, views: Callable[[], tuple[list[FileView], Selection]], progress: Progress
    ) -> Recount:
        """Replace all cells by a recount of the stored events, in the organizations' zones of now."""
        await self.settle()
        async with self._lock:
            before = self.watermark
            shown, wanted = views()
            folder = self._new_folder({})
            await self._in_thread(self._file.clear)
            found: Recount = await self._in_thread(
                partial(
                    recount, shown, wanted, folder, self._file, before=before, progress=progress
                )
            )
            await self._in_thread(self._file.note_counted, self._declarations())
            self.uncounted = []
            self._folder = self._new_folder(folder.zones)
            self._tell()
        return found

    async def redeclare(self, metrics: Metrics) -> None:
        """Count by these declarations from now on; what is committed was counted by the old ones."""
        async with self._lock:
            await self._fold()
            if self._behind:
                await self._catch_up()
            await self._flush()
            self._metrics = metrics
            declarations = self._declarations()
            self.uncounted = await self._in_thread(self._file.note_declared, declarations)
            self._folder = self._new_folder(self._folder.zones)
            self._tell()

    def now_minute(self) -> int:
        """Return the minute since 1970."""
        return int(self._clock.now().timestamp() // 60)

    @property
    def waiting(self) -> int:
        """Committed events that are not folded yet."""
        return self._queued

    # --- thread-side, or holding the lock ---

    def _open(self) -> None:
        self._file = RollupsFile(self.path)
        self.watermark = self._file.watermark
        self._folder = self._new_folder(self._file.zones())
        self.uncounted = self._file.note_declared(self._declarations())

    def _declarations(self) -> dict[str, str]:
        encode = msgspec.json.encode
        return {metric.name: encode(metric).decode() for metric in self._metrics.samplers}

    def _new_folder(self, zones: dict[str, str]) -> Folder:
        folder = Folder(self._metrics, self._categories, self._zone_of)
        folder.zones.update(zones)
        return folder

    def _snapshot(self) -> Any:
        """Return a connection that goes on seeing the file as it is now."""
        connection = open_reader(self.path)
        connection.execute("BEGIN")
        connection.execute("SELECT sequence FROM watermark").fetchone()
        return connection

    def _check(
        self,
        snapshot: Any,
        views: list[FileView],
        wanted: Selection,
        fresh: Path,
        before: int,
        progress: Progress,
    ) -> Recount:
        remove(fresh)
        target = RollupsFile(fresh)
        try:
            folder = self._new_folder(dict(self._folder.zones))
            found = recount(views, wanted, folder, target, before=before, progress=progress)
            compare(snapshot, target, wanted.now_ms // 60_000, found)
        finally:
            target.close()
            remove(fresh)
        return found

    def note_kinds(self, kinds: Iterable[tuple[str, str, bool]]) -> None:
        """Note event types, their categories, and which are errors; thread-side, before `run`."""
        self._file.note_kinds(kinds)

    async def _fold(self) -> None:
        queue, self._queue, self._queued = self._queue, [], 0
        if not queue or self._behind:
            return
        try:
            await self._in_thread(self._fold_all, queue)
        except BaseException:
            self._lose()
            raise

    def _fold_all(self, queue: list[Committed]) -> None:
        began = cpu_seconds()
        hidden = self._hidden()
        for committed in queue:
            self._folder.fold(committed.events, committed.rows["ts"].tolist(), hidden)
            self.events += len(committed.events)
            self._folded_upto = committed.sequence + len(committed.events)
        self.seconds += cpu_seconds() - began

    async def _flush(self) -> None:
        upto = self._folded_upto
        if upto == self.watermark and not self._receipts:
            return
        receipts, self._receipts = self._receipts, {}
        delta = self._folder.fresh()
        try:
            await self._in_thread(self._write, delta, upto, receipts)
        except BaseException:
            self._lose()
            raise
        self.watermark, self._flushed_at = upto, trio.current_time()
        self._tell()

    def _write(self, delta: Any, upto: int, receipts: dict[tuple[int, int, str, str], int]) -> None:
        began = cpu_seconds()
        if upto != self.watermark:
            self._file.add(self._folder, delta, upto)
        if receipts:
            self._file.add_receipts(receipts)
        self.seconds += cpu_seconds() - began

    def _tell(self) -> None:
        self.version += 1
        self.changed.set()
        self.changed = trio.Event()

    def _lose(self) -> None:
        """What is in memory may be half done: begin again at the watermark."""
        self._behind = True
        self._folder.forget()
        self._queue, self._queued = [], 0
        self._folded_upto = self.watermark

    async def _catch_up(self) -> None:
        """Fold from the packs what is behind; in steps, each flushed."""
        if self._behind:
            self._lose()
        begin = self._folded_upto
        self._behind = False  # commits from now on are queued
        for view in self._store.views_after(begin):
            for entry in view.entries:
                key, n = int(entry["key"]), int(entry["n"])
                try:
                    await self._in_thread(self._fold_pack, view, key, n, begin)
                except BaseException:
                    self._lose()
                    raise
                if self._folder.delta.events >= QUEUE_EVENTS_MAX:
                    await self._flush()
        await self._flush()

    def _fold_pack(self, view: HotView, key: int, n: int, begin: int) -> None:
        connection = open_reader(view.path)
        try:
            ref = next(r for r in view.find(connection, view.dictionary, None) if r.key == key)  # type: ignore[arg-type]
            pack = view.load(connection, ref)
        finally:
            connection.close()
        events = events_of(pack.lines(range(max(0, begin - key), n)))
        self._folder.fold(events, None, self._hidden())
        self._folded_upto = key + n


def events_of(lines: Iterable[bytes]) -> list[Event]:
    """Return the events of stored lines."""
    return [event_of(line) for line in lines]


def cpu_seconds() -> float:
    """Return seconds of CPU of this thread: what counting costs."""
    return time.thread_time()
