"""The actor that owns the hot file: group commit, and the settling of receipts behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import floor
from typing import Any

import numpy as np
import trio

from mlc_broker.model.batch import DUPLICATE, STORED, Batch, Outcome, Receipt
from mlc_broker.model.errors import ShardCorrupt, ShardUnavailable, StoreError
from mlc_broker.model.event import Event, rfc3339
from mlc_broker.runtime.clock import Clock
from mlc_broker.runtime.crashpoint import crash_point
from mlc_broker.store.columns import ROW, RowWriter, epoch_ms
from mlc_broker.store.hot import Committed, HotFile
from mlc_broker.store.ids import Hasher, Ids, as_hashes
from mlc_broker.store.lines import LineWriter
from mlc_broker.store.pack import Pack, pack_of

InThread = Callable[..., Any]
STOPPING = Receipt(Outcome.RETRY, "stopping", "the daemon is stopping")
IDS_FULL = Receipt(Outcome.RETRY, "overload", "no memory is left for the ids of the window")


class Writer:
    """Gathers batches into groups; one group is in the making while one is in flight."""

    def __init__(
        self,
        hot: HotFile,
        ids: Ids,
        hasher: Hasher,
        categories: Callable[[str], str | None],
        clock: Clock,
        *,
        in_thread: InThread = trio.to_thread.run_sync,
        on_commit: Callable[[Committed], None] = lambda _: None,
        commit_events_max: int = 1000,
        commit_seconds_max: float = 0.005,
    ) -> None:
        self.hot = hot
        self.ids = ids
        self.pending: dict[bytes, Group] = {}
        self.commits = 0
        self.failures = 0
        self._hasher = hasher
        self._categories = _Categories(categories)
        self._clock = clock
        self._in_thread = in_thread
        self._on_commit = on_commit
        self._events_max = commit_events_max
        self._seconds_max = commit_seconds_max
        self._closed = False
        self._wake = trio.Event()
        self._room = trio.Event()
        self._waiting: deque[Group] = deque()  # before a rotation's last group: at most one
        self._flight: Group | None = None
        self._making = self._new_group(hot)

    async def append(self, batch: Batch) -> None:
        """Store what is pending in the batch: returns when each event is settled."""
        while self._making.count >= self._events_max and not self._closed:
            await self._room.wait()
        if self._closed:
            batch.settle_all(STOPPING)
            return
        for group in self._admit(batch):
            await group.done.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit groups until `close`; whatever ends it, no batch is left waiting."""
        task_status.started()
        try:
            while True:
                group = await self._next_group()
                if group is None:
                    return
                with trio.CancelScope(shield=True):
                    await self._commit(group)
        finally:
            self._give_up()

    def close(self) -> None:
        """Take no more; `run` ends when what was taken is committed."""
        self._closed = True
        self._wake.set()
        self._let_in()

    async def rotate(self, fresh: HotFile) -> HotFile:
        """Let all further events go to `fresh`; return the old file when its last commit ended."""
        old, last = self.hot, self._making
        self.hot = fresh
        self._making = self._new_group(fresh)
        if last.count:
            self._waiting.append(last)
            self._wake.set()
        else:
            last = self._flight or last
        self._let_in()
        if last.count:
            await last.done.wait()
        return old

    # --- gathering ---

    def _admit(self, batch: Batch) -> set[Group]:
        positions = batch.pending
        events: list[Event] = [e for i in positions if (e := batch.events[i]) is not None]
        hashes = self._hasher.hash_all(events)
        known = self.ids.known(hashes)
        making: Group | None = self._making
        pending, waits = self.pending, set[Group]()
        if self.ids.full:
            making = None
        elif not self._making.count:
            self._making.lines.stored_at = rfc3339(self._clock.now())
        fresh = making.batch(batch) if making else []
        now_ms = floor(batch.origin.received_at.timestamp() * 1000)
        for position, event, h, old in zip(positions, events, hashes, known, strict=True):
            if old:
                batch.settle(position, DUPLICATE)
            elif (group := pending.get(h)) is not None:
                group.echoes.append((batch, position))
                waits.add(group)
            elif making is None:
                batch.settle(position, IDS_FULL)
            else:
                pending[h] = making
                making.add(event, h)
                fresh.append(position)
        if fresh and making is not None:
            waits.add(making)
            making.recv = max(making.recv, now_ms)
            self._wake.set()
        return waits

    def _new_group(self, hot: HotFile) -> Group:
        return Group(hot, self._categories, rfc3339(self._clock.now()))

    async def _next_group(self) -> Group | None:
        while not self._waiting and not self._making.count:
            if self._closed:
                return None
            self._wake = trio.Event()
            await self._wake.wait()
        if self._waiting:
            return self._waiting.popleft()
        await self._linger()
        if self._waiting:  # a rotation came between
            return self._waiting.popleft()
        group, self._making = self._making, self._new_group(self.hot)
        self._let_in()
        return group

    async def _linger(self) -> None:
        # Everybody who is ready to add something does so first: a commit costs the same for all.
        # As soon as nobody adds, waiting would only delay the answers.
        began = trio.current_time()
        seen = -1
        while seen < self._making.count < self._events_max:
            if trio.current_time() - began >= self._seconds_max:
                return
            seen = self._making.count
            await trio.lowlevel.checkpoint()

    def _let_in(self) -> None:
        self._room.set()
        self._room = trio.Event()

    # --- committing ---

    async def _commit(self, group: Group) -> None:
        self._flight = group
        hot = group.hot
        words_end = len(hot.dictionary)
        word0 = hot.saved_words
        words = hot.dictionary.words[word0:words_end]
        try:
            pack, sequence = await self._in_thread(group.write, words, word0)
        except StoreError as error:
            self._fail(group, error)
            return
        except Exception as error:  # noqa: BLE001 - the guard around a commit (ARCHITECTURE.md)
            hot.suspect = True
            self._fail(group, ShardUnavailable(f"the commit broke: {error!r}"))
            return
        finally:
            self._flight = None
        crash_point("append.before_ack")
        self._succeed(group, pack, sequence)

    def _succeed(self, group: Group, pack: Pack, sequence: int) -> None:
        rows = group.rows
        group.hot.note(sequence, pack.recv, rows)
        self.ids.add(as_hashes(pack.ids), pack.recv)
        self._forget_pending(group)
        self.commits += 1
        group.settle(STORED, DUPLICATE)
        self._on_commit(
            Committed(group.events, rows, pack, group.hot.number, sequence, group.lines.stored_at)
        )
        crash_point("append.after_ack")

    def _fail(self, group: Group, error: StoreError) -> None:
        self.failures += 1
        self._forget_pending(group)
        reason = "corrupt" if isinstance(error, ShardCorrupt) else "storage"
        receipt = Receipt(Outcome.RETRY, reason, f"{error} {error.hint}".strip())
        group.settle(receipt, receipt)

    def _forget_pending(self, group: Group) -> None:
        for h in group.hashes:
            self.pending.pop(h, None)

    def _give_up(self) -> None:
        groups = [*self._waiting, self._making]
        self._waiting.clear()
        self._making = self._new_group(self.hot)
        for group in groups:
            self._forget_pending(group)
            group.settle(STOPPING, STOPPING)
        self._let_in()


class Group:
    """The events of one commit, encoded as they come."""

    def __init__(self, hot: HotFile, categories: dict[str, str], stored_at: str) -> None:
        self.hot = hot
        self.events: list[Event] = []
        self.hashes: list[bytes] = []
        self.lines = LineWriter(stored_at)
        self.recv = 0
        self.echoes: list[tuple[Batch, int]] = []  # duplicates that wait for this commit
        self.done = trio.Event()
        self._row = RowWriter(hot.dictionary, categories).row
        self._rows: list[bytes] = []
        self._batches: list[tuple[Batch, list[int]]] = []

    @property
    def count(self) -> int:
        """How many events are in it."""
        return len(self.events)

    @property
    def rows(self) -> np.ndarray[Any, Any]:
        """The packed columns."""
        return np.frombuffer(b"".join(self._rows), ROW)

    def batch(self, batch: Batch) -> list[int]:
        """Begin to take events of this batch; put the positions taken into the list returned."""
        positions: list[int] = []
        self._batches.append((batch, positions))
        return positions

    def add(self, event: Event, h: bytes) -> None:
        """Take an event that is new."""
        ms = epoch_ms(event)
        self._rows.append(self._row(event, ms))
        self.lines.add(event, ms)
        self.events.append(event)
        self.hashes.append(h)

    def write(self, words: list[str], word0: int) -> tuple[Pack, int]:
        """Compress and commit; thread-side. Return the pack and its first sequence."""
        if self.hot.suspect:
            self.hot.reopen()
            word0, words = self.hot.saved_words, self.hot.dictionary.words[self.hot.saved_words :]
        ids = b"".join(self.hashes)
        pack = pack_of(self.rows, ids, self.lines.frames, recv=self.recv)
        return pack, self.hot.append(pack, words, word0)

    def settle(self, own: Receipt, echo: Receipt) -> None:
        """Give every event its receipt, and the waiting duplicates theirs."""
        for batch, positions in self._batches:
            batch.settle_all(own, positions)
        for batch, position in self.echoes:
            batch.settle(position, echo)
        self.done.set()


class _Categories(dict[str, str]):
    """Event type → category, asked once for each type."""

    def __init__(self, ask: Callable[[str], str | None]) -> None:
        super().__init__()
        self._ask = ask

    def get(self, event_type: str, default: Any = None) -> Any:  # type: ignore[override]
        found = super().get(event_type)
        if found is None:
            found = self._ask(event_type)
            if found is None:
                return default
            self[event_type] = found
        return found
