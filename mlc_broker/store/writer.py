"""The actor that owns the hot file: group commit, and the settling of receipts behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from math import floor, inf
from typing import Any

import numpy as np
import trio

from mlc_broker.model.batch import DUPLICATE, STORED, Batch, Outcome, Receipt
from mlc_broker.model.errors import ShardCorrupt, ShardUnavailable, StoreError
from mlc_broker.model.event import NO_FACTS, Event, rfc3339
from mlc_broker.runtime.clock import Clock
from mlc_broker.runtime.crashpoint import crash_point
from mlc_broker.store.columns import EPOCH, MS, ROW, Rows, RowWriter
from mlc_broker.store.hot import Committed, HotFile
from mlc_broker.store.ids import Hasher, Ids, as_hashes
from mlc_broker.store.lines import FactWriter, Line, LineWriter, encode_lines
from mlc_broker.store.pack import FRAME_EVENTS, Pack, pack_of
from mlc_broker.store.schema import READ_ERRORS

InThread = Callable[..., Any]
STOPPING = Receipt(Outcome.RETRY, "stopping", "the daemon is stopping")
DAMAGED = Receipt(Outcome.RETRY, "corrupt", "the hot file is damaged; a new one has been begun")
PROBE_SECONDS = 1.0  # after a failed commit, with no other on its way
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
        self.on_written: Callable[[int, float], None] = lambda _events, _seconds: None
        self.trouble = ""  # why the last commit failed; empty when it did not: for /readyz
        self._hasher = hasher
        self._categories = categories
        self._rows_of, self._rows = hot, RowWriter(hot.dictionary, categories)
        self._facts = FactWriter(self._rows)
        self._clock = clock
        self._in_thread = in_thread
        self._on_commit = on_commit
        self._events_max = commit_events_max
        self._seconds_max = commit_seconds_max
        self.on_corrupt: Callable[[HotFile, str], Awaitable[None]] = _leave_it
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
                self._flight = group
                with trio.CancelScope(shield=True):
                    await self._commit(group)
                self._flight = None
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

    def replace(self, fresh: HotFile) -> None:
        """Let all further events go to `fresh`; those for the old file, which is damaged: `retry`."""
        lost = self._making
        self.hot = fresh
        self._making = self._new_group(fresh)
        lost.settle(DAMAGED, DAMAGED)
        for h in lost.hashes:
            self.pending.pop(h, None)
        self._let_in()

    # --- gathering ---

    def _admit(self, batch: Batch) -> set[Group]:
        # Only what is in the making or in flight is looked up here; what was stored before is
        # looked up once for the whole group, which costs a tenth.
        making, pending, waits = self._making, self.pending, set[Group]()
        if not making.count:
            making.lines.stored_at = rfc3339(self._clock.now())
        positions = batch.pending
        events = [event for i in positions if (event := batch.events[i]) is not None]
        hashes = self._hasher.hash_all(events)
        fresh = making.batch(batch)
        if pending.keys().isdisjoint(hashes) and len(set(hashes)) == len(hashes):
            pending.update(dict.fromkeys(hashes, making))
            making.add(events, hashes)
            fresh += positions
        else:
            for position, event, h in zip(positions, events, hashes, strict=True):
                if (group := pending.get(h)) is not None:
                    group.echoes.append((batch, position))
                    waits.add(group)
                else:
                    pending[h] = making
                    making.add([event], [h])
                    fresh.append(position)
        if fresh:
            waits.add(making)
            received_ms = floor(batch.origin.received_at.timestamp() * 1000)
            making.recv = max(making.recv, received_ms)
            self._wake.set()
        return waits

    def _new_group(self, hot: HotFile) -> Group:
        if self._rows_of is not hot:
            self._rows_of, self._rows = hot, RowWriter(hot.dictionary, self._categories)
            self._facts = FactWriter(self._rows)
        return Group(hot, self._rows, self._facts, rfc3339(self._clock.now()))

    async def _next_group(self) -> Group | None:
        while not self._waiting and not self._making.count:
            if self._closed:
                return None
            self._wake = trio.Event()
            with trio.move_on_after(PROBE_SECONDS if self.trouble else inf) as waited:
                await self._wake.wait()
            if waited.cancelled_caught:
                await self._probe()
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
        hot, hashes = group.hot, group.hashes
        damage = ""
        known = self.ids.known(hashes)
        if any(known):
            group = group.without(known)
        try:
            if not group.count:
                group.settle(STORED, DUPLICATE)
            elif self.ids.full:
                group.settle(IDS_FULL, IDS_FULL)
            else:
                word0 = hot.saved_words
                words = hot.dictionary.words[word0:]
                began = trio.current_time()
                written = await self._in_thread(group.write, words, word0)
                self.on_written(group.count, trio.current_time() - began)
                self._succeed(group, *written)
        except StoreError as error:
            self._fail(group, error)
            damage = str(error) if isinstance(error, ShardCorrupt) else ""
        except Exception as error:  # the guard around a commit (ARCHITECTURE.md)
            if group.done.is_set():
                raise  # the commit stood; what broke was told about it
            hot.suspect = True
            self._fail(group, ShardUnavailable(f"the commit broke: {error!r}"))
        finally:
            for h in hashes:
                self.pending.pop(h, None)
        if damage:
            await self._set_aside(hot, damage)

    async def _probe(self) -> None:
        # Who was told that we are not ready sends nothing: so nothing would tell that it is over.
        hot = self.hot
        try:
            await self._in_thread(hot.probe)
        except ShardCorrupt as error:
            await self._set_aside(hot, str(error))
        except StoreError as error:
            self.trouble = f"{error} {error.hint}".strip()
        else:
            self.trouble = ""

    async def _set_aside(self, hot: HotFile, why: str) -> None:
        try:
            await self.on_corrupt(hot, why)
        except (StoreError, OSError, *READ_ERRORS) as error:  # the next commit tries again
            self.trouble = f"a new hot file cannot be begun: {error}"
        else:
            self.trouble = ""

    def _succeed(self, group: Group, pack: Pack, rows: Rows, sequence: int) -> None:
        crash_point("append.before_ack")
        group.hot.note(sequence, pack.recv, rows)
        self.ids.add(as_hashes(pack.ids), pack.recv)
        self.commits += 1
        self.trouble = ""
        group.settle(STORED, DUPLICATE)
        crash_point("append.after_ack")
        stored_at = group.lines.stored_at
        self._on_commit(Committed(group.events, rows, pack, group.hot.number, sequence, stored_at))

    def _fail(self, group: Group, error: StoreError) -> None:
        self.failures += 1
        self.trouble = f"{error} {error.hint}".strip()
        reason = "corrupt" if isinstance(error, ShardCorrupt) else "storage"
        receipt = Receipt(Outcome.RETRY, reason, self.trouble)
        group.settle(receipt, receipt)

    def _give_up(self) -> None:
        groups = [*self._waiting, self._making]
        self._waiting.clear()
        self._making = self._new_group(self.hot)
        for group in groups:
            group.settle(STOPPING, STOPPING)
        self.pending.clear()
        self._let_in()


async def _leave_it(_: HotFile, __: str) -> None:
    """For a writer that stands alone."""


class Group:
    """The events of one commit, made ready as they come."""

    def __init__(self, hot: HotFile, rows: RowWriter, facts: FactWriter, stored_at: str) -> None:
        self.hot = hot
        self.events: list[Event] = []
        self.hashes: list[bytes] = []
        self.lines = LineWriter(stored_at)
        self.recv = 0
        self.echoes: list[tuple[Batch, int]] = []  # duplicates that wait for this commit
        self.done = trio.Event()
        self.owners: list[tuple[Batch, list[int]]] = []  # whose events these are, in order
        self._writer, self._facts = rows, facts
        self._rows: list[bytes] = []
        self._lines: list[Line] = []

    @property
    def count(self) -> int:
        """How many events are in it."""
        return len(self.events)

    def batch(self, batch: Batch) -> list[int]:
        """Begin to take events of this batch; put the positions taken into the list returned."""
        positions: list[int] = []
        self.owners.append((batch, positions))
        return positions

    def add(self, events: Sequence[Event], hashes: Sequence[bytes]) -> None:
        """Take events that are new."""
        row, line, meta_of, facts_of = (
            self._writer.row,
            self.lines.line,
            self.lines.meta,
            self._facts.of,
        )
        rows, lines = self._rows.append, self._lines.append
        codes, rest = self._facts.of(NO_FACTS)
        last, meta = NO_FACTS, meta_of(NO_FACTS, rest)
        for event in events:
            ms = (event.timestamp - EPOCH) // MS
            facts = event.facts
            if facts is not last:  # those of one person in a submission mostly share theirs
                codes, rest = facts_of(facts)
                meta, last = meta_of(facts, rest), facts
            rows(row(event, ms, codes))
            lines(line(event, ms, meta))
        self.events += events
        self.hashes += hashes

    def rows(self) -> Rows:
        """Return the packed columns."""
        return np.frombuffer(b"".join(self._rows), ROW)

    def write(self, words: list[str], word0: int) -> tuple[Pack, Rows, int]:
        """Compress and commit; thread-side. Return the pack, its columns, its first sequence."""
        hot = self.hot
        if hot.suspect:
            hot.reopen()
            word0, words = hot.saved_words, hot.dictionary.words[hot.saved_words :]
        rows, lines = self.rows(), self._lines
        frames = (
            (len(part), encode_lines(part))
            for part in (lines[i : i + FRAME_EVENTS] for i in range(0, len(lines), FRAME_EVENTS))
        )
        pack = pack_of(rows, b"".join(self.hashes), frames, recv=self.recv)
        return pack, rows, hot.append(pack, words, word0)

    def without(self, known: list[bool]) -> Group:
        """Return the group of those events that are not known; settle the known as duplicates."""
        rest = Group(self.hot, self._writer, self._facts, self.lines.stored_at)
        rest.recv, rest.echoes, rest.done = self.recv, self.echoes, self.done
        at = 0
        new: list[int] = []
        for batch, positions in self.owners:
            kept = rest.batch(batch)
            for position in positions:
                if known[at]:
                    batch.settle(position, DUPLICATE)
                else:
                    kept.append(position)
                    new.append(at)
                at += 1
        rest.add([self.events[i] for i in new], [self.hashes[i] for i in new])
        return rest

    def settle(self, own: Receipt, echo: Receipt) -> None:
        """Give every event its receipt, and the waiting duplicates theirs."""
        for batch, positions in self.owners:
            batch.settle_all(own, positions)
        for batch, position in self.echoes:
            batch.settle(position, echo)
        self.done.set()
