"""The store: where batches are kept, and where readers find them again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from math import floor
from pathlib import Path
from typing import Any, Self

import structlog
import trio
from msgspec import Struct

from mlc_broker.model.batch import DUPLICATE, Batch, Outcome, Receipt
from mlc_broker.model.errors import StoreError
from mlc_broker.model.event import Event
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Scope
from mlc_broker.runtime.clock import Clock, SystemClock
from mlc_broker.store.columns import RETENTIONS, epoch_ms
from mlc_broker.store.disk import Disk
from mlc_broker.store.files import Files
from mlc_broker.store.holds import Hold, held_by
from mlc_broker.store.hot import Committed, HotFile
from mlc_broker.store.ids import Hasher, Ids
from mlc_broker.store.known import SealedIds
from mlc_broker.store.layout import Home, months_around, slot_of
from mlc_broker.store.manifest import HomeEntry
from mlc_broker.store.schema import READ_ERRORS
from mlc_broker.store.select import Selection
from mlc_broker.store.upkeep import GRACE_SECONDS, Report, Upkeep
from mlc_broker.store.view import FileView, HotView
from mlc_broker.store.writer import InThread, Writer

log = structlog.get_logger("store")
HOUR_MS = 3_600_000
WATCH_SECONDS = 1.0  # between two looks at the disk
ERASED = Receipt(Outcome.DROPPED, "erased")
AHEAD_MS = HOUR_MS // 6  # no event's timestamp is so much later than its receipt
NEVER = 2**63 - 1


class Limits(Struct, frozen=True, kw_only=True):
    """What the store may take; each name carries its unit."""

    commit_events_max: int = 1000
    commit_seconds_max: float = 0.005
    hot_bytes_max: int = 256 * 1024 * 1024
    hot_hours_max: float = 24.0
    window_hours: float = 24.0  # of deduplication in memory, by time of receipt; at least 24
    wal_bytes_max: int = 32 * 1024 * 1024  # then a log is checkpointed; a reader may hold it
    free_bytes_min: int = 0  # with less free disk, events are answered `retry`
    ballast_bytes: int = 0  # see disk.py
    ids_bytes_max: int = 1024 * 1024 * 1024
    sealed_ids_bytes_max: int = 256 * 1024 * 1024
    upkeep_seconds: float = 60.0  # between two rounds
    slots: int = 1


class Store:
    """One data directory. `open` it, `run` it, `append` to it, `stop` and `close` it."""

    def __init__(self, files: Files, limits: Limits, clock: Clock, in_thread: InThread) -> None:
        self.files = files
        self.disk = files.disk
        self.limits = limits
        self.on_commit: Callable[[Committed], None] = lambda _: None
        self.keep_from: Callable[[], int] = lambda: NEVER  # lowest sequence somebody needs yet
        self.trusts_clock: Callable[[], bool] = lambda: True  # False: nothing is taken for expired
        self.ids = Ids(window_ms=int(limits.window_hours * HOUR_MS), bytes_max=limits.ids_bytes_max)
        self.writer: Writer
        self.upkeep: Upkeep
        self._clock = clock
        self._in_thread = in_thread
        self._hasher: Hasher
        self._sealed = SealedIds(files.directory, bytes_max=limits.sealed_ids_bytes_max)
        self._sealed_lock = trio.Lock()
        self._failing: dict[str, str] = {}  # upkeep that failed when it was last tried

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        categories: Callable[[str], str | None],
        limits: Limits | None = None,
        clock: Clock | None = None,
        durability: str = "power-loss",
        in_thread: InThread = trio.to_thread.run_sync,
    ) -> Self:
        """Open or make a data directory; `categories` knows the category of an event type.

        Raises DirectoryInUse when another daemon has it, ShardUnavailable when the disk fails.
        """
        limits = limits or Limits()
        disk = Disk(
            directory, free_bytes_min=limits.free_bytes_min, ballast_bytes=limits.ballast_bytes
        )
        files = Files(
            directory,
            durable=durability == "power-loss",
            disk=disk,
            wal_bytes_max=limits.wal_bytes_max,
        )
        store = cls(files, limits, clock or SystemClock(), in_thread)
        await store._open(categories)
        return store

    async def append(self, batch: Batch) -> None:
        """Settle every pending event: `stored` or `duplicate` after the commit, else `retry`."""
        if self.disk.low:
            batch.settle_all(Receipt(Outcome.RETRY, "storage", self.disk.low))
            return
        await self._settle_replayed(batch)
        if self.files.hidden:
            self._drop_hidden(batch)
        await self.writer.append(batch)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit what is appended until `stop`; a crash of it leaves no batch waiting."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            await self.writer.run(task_status=task_status)
            nursery.cancel_scope.cancel()

    async def run_upkeep(self) -> None:
        """Rotate, seal, merge and expire when it is due, for ever. One bad file stops nothing."""
        while True:
            await trio.sleep(self.limits.upkeep_seconds)
            await self.tidy()

    def stop(self) -> None:
        """Take no more batches; `run` ends when what was taken is committed."""
        self.writer.close()

    def not_ready(self) -> list[str]:
        """Return why events should not be sent now, and what to do; empty: ready."""
        return [reason for reason in (self.disk.low, self.writer.trouble) if reason]

    @property
    def troubles(self) -> list[str]:
        """What somebody should look at; events are taken all the same."""
        return [*self.files.troubles, *self._failing.values()]

    async def close(self) -> None:
        """Close all files and give the directory back. `run` must have ended."""
        await self._in_thread(self.files.close)

    # --- reading ---

    def select(self, scope: Scope, wanted: Filter | None = None) -> Selection:
        """Return what readers hand to `views` and `select`: expiry and erasure are in it."""
        return Selection(
            scope=scope,
            filter=wanted or Filter(),
            now_ms=self.now_ms(),
            hidden=self.files.hidden,
        )

    def views(self, wanted: Selection) -> list[FileView]:
        """Return the files that may hold what is wanted, newest first (see view.py)."""
        return self.files.views(wanted)

    def views_after(self, sequence: int) -> list[HotView]:
        """Return committed packs from a sequence on, in order of arrival: for cursors."""
        return self.files.views_after(sequence)

    # --- upkeep ---

    async def tidy(self) -> None:
        """Do what is due: rotate, seal, merge, unlink what has expired or is out of view."""
        steady = self.trusts_clock()  # else what seems to have expired may be a year's work
        if steady:
            await self._try("removing what has expired", self.unlink_expired)
        await self._try("removing what is sealed", self.release)
        if self.disk.low:
            return  # sealing and merging need room before they give some
        if self._rotation_due():
            await self._try("beginning a hot file", self.rotate)
        if not steady:
            return
        now_ms = self.now_ms()
        await self._try("sealing", partial(self.upkeep.seal, now_ms))
        await self._try("merging", partial(self.upkeep.merge, now_ms))

    async def rotate(self) -> None:
        """Begin a new hot file."""
        await self.upkeep.rotate(self.now_ms())

    async def seal_now(self) -> int:
        """Move everything stored into homes; return how many hot files were sealed."""
        if len(self.writer.hot.index):
            await self.rotate()
        return await self.upkeep.seal(self.now_ms())

    async def merge(self) -> int:
        """Rewrite the homes whose month is over as one run each; return how many."""
        return await self.upkeep.merge(self.now_ms())

    async def unlink_expired(self) -> int:
        """Remove the files of which everything has expired; return how many."""
        return await self.upkeep.unlink_expired(self.now_ms())

    async def release(self, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """Unlink sealed hot files that nobody needs, and forget ids beyond the window."""
        await self.upkeep.release(self.keep_from(), grace_seconds=grace_seconds)
        now_ms = self.now_ms()
        window_ms = int(self.limits.window_hours * HOUR_MS)
        self.ids.forget(min(now_ms - window_ms, self.files.oldest_unsealed_ms(now_ms)))

    async def verify(self, progress: Callable[[Report], None] = lambda _: None) -> Report:
        """Check every pack of every file."""
        return await self.upkeep.verify(progress)

    async def hide(self, organization_id: str, user_id: str) -> None:
        """Make a person's events invisible at once and for good; sealing leaves them behind."""
        await self._in_thread(self.files.manifest.bury, organization_id, user_id, self.now_ms())
        self.files.hidden |= {(organization_id, user_id)}

    async def unhide(self, organization_id: str, user_id: str) -> None:
        """End what `hide` began: no file holds events of the person any more."""
        await self._in_thread(self.files.manifest.unbury, organization_id, user_id)
        self.files.hidden -= {(organization_id, user_id)}

    async def hold(self, hold: Hold) -> None:
        """Keep what is held from expiring and from being erased, from now on."""
        async with self.upkeep.standing_still():  # no file is halfway rewritten without it
            await self._in_thread(self.files.manifest.put_hold, hold)
            self.files.held = held_by(await self._in_thread(self.files.manifest.holds))

    async def end_hold(self, organization_id: str, user_id: str = "") -> bool:
        """End a hold; False: there was none."""
        async with self.upkeep.standing_still():
            remove = self.files.manifest.remove_hold
            ended: bool = await self._in_thread(remove, organization_id, user_id)
            self.files.held = held_by(await self._in_thread(self.files.manifest.holds))
        return ended

    def now_ms(self) -> int:
        """Return the time, in ms since 1970."""
        return floor(self._clock.now().timestamp() * 1000)

    def _rotation_due(self) -> bool:
        hot = self.writer.hot
        age_ms = self.now_ms() - self.files.entries[hot.number].begun_ms
        old = age_ms > self.limits.hot_hours_max * HOUR_MS
        return bool(len(hot.index)) and (old or hot.size_bytes > self.limits.hot_bytes_max)

    async def _try(self, what: str, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            await work()
        except (StoreError, OSError, *READ_ERRORS) as error:
            told = f"{what} failed: {error}"
            if self._failing.get(what) != told:
                log.error("upkeep", trouble=told)  # noqa: TRY400 (told in words)
            self._failing[what] = told
        else:
            self._failing.pop(what, None)

    async def _watch(self) -> None:
        # A full disk is seen before it hurts; a reader who holds a WAL for long costs two of them.
        while True:
            await trio.sleep(WATCH_SECONDS)
            before = self.disk.low
            await self._in_thread(self.disk.look)
            if bool(before) != bool(self.disk.low):
                log.warning("disk", state=self.disk.low or "there is room again")
            held = self.writer.hot.wal_bytes > 2 * self.limits.wal_bytes_max
            if held and not self.upkeep.busy:
                await self._try("beginning a hot file", self.rotate)

    async def _replace(self, hot: HotFile, why: str) -> None:
        log.error("store", trouble=f"{hot.path.name} is damaged: {why}")
        await self.upkeep.replace(hot, why, self.now_ms())

    # --- opening, and replays ---

    async def _open(self, categories: Callable[[str], str | None]) -> None:
        limits, in_thread = self.limits, self._in_thread
        window_ms = int(limits.window_hours * HOUR_MS)
        hot = await in_thread(self.files.open, self.ids, self.now_ms(), window_ms)
        self._hasher = Hasher(self.files.manifest.secret("ids"))
        self.writer = Writer(
            hot,
            self.ids,
            self._hasher,
            categories,
            self._clock,
            in_thread=in_thread,
            on_commit=self._committed,
            commit_events_max=limits.commit_events_max,
            commit_seconds_max=limits.commit_seconds_max,
        )
        self.upkeep = Upkeep(
            self.files, self.writer, self.ids, slots=limits.slots, in_thread=in_thread
        )
        self.writer.on_corrupt = self._replace

    def _committed(self, committed: Committed) -> None:
        self.on_commit(committed)

    async def _settle_replayed(self, batch: Batch) -> None:
        # Ids in memory cover the window. An event older than that may have been stored before it:
        # then its id lies in the home of its month.
        if not self.files.homes:
            return
        edge_ms = self.now_ms() - int(self.limits.window_hours * HOUR_MS) + AHEAD_MS
        old = [
            (position, event)
            for position in batch.pending
            if (event := batch.events[position]) and epoch_ms(event) < edge_ms
        ]
        if not old:
            return
        hashes = self._hasher.hash_all(event for _, event in old)
        run = -1
        known: set[bytes] = set()
        while run != self.files.run:  # sealing may have moved ids meanwhile: look again
            run = self.files.run
            if homes := self._homes_of([event for _, event in old]):
                async with self._sealed_lock:
                    known = await self._in_thread(self._sealed.known, homes, hashes)
        for (position, _), h in zip(old, hashes, strict=True):
            if h in known:
                batch.settle(position, DUPLICATE)

    def _drop_hidden(self, batch: Batch) -> None:
        # Events that were under way when their person's erasure began.
        for position in batch.pending:
            event = batch.events[position]
            if event and (event.organization_id, event.user_id) in self.files.hidden:
                batch.settle(position, ERASED)

    def _homes_of(self, events: list[Event]) -> list[HomeEntry]:
        found: dict[Home, HomeEntry] = {}
        places = {
            (month, slot_of(event.organization_id, self.limits.slots))
            for event in events
            for month in months_around(epoch_ms(event))
        }
        for month, slot in places:
            for retention in RETENTIONS:
                home = Home(retention, month, slot)
                if home in self.files.homes:
                    found[home] = self.files.homes[home]
        return list(found.values())
