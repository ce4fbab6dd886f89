"""Reading: pages of the newest events, whole scans, and one event by its id. Sync, thread-side.

Every answer comes through a Selection, so through a Scope. Files are opened newest first and only
as far as the answer needs. What is damaged is passed over and noted in `troubles`, never served.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush, heappushpop
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from mlc_broker.model.errors import ShardCorrupt, Unavailable
from mlc_broker.store.columns import Rows
from mlc_broker.store.connections import (
    Connections,
    PooledWords,
    is_gone,
    is_interrupted,
    is_senseless,
)
from mlc_broker.store.hot import storage_error
from mlc_broker.store.packcache import OpenPack, PackCache
from mlc_broker.store.schema import sqlite3
from mlc_broker.store.select import Selection, Words, select
from mlc_broker.store.view import FileView, HotView, PackRef

TROUBLES_MAX = 100
_REFS_AT_ONCE = 256
_COUNT = count()


class Position(Struct, frozen=True, order=True, gc=False):
    """Where an event stands in the order of reading: by time, then by the hash of its id.

    Both stay what they are when the event moves to another file, and after a restart.
    """

    ts: int  # epoch ms
    low: int
    high: int


class Found(Struct, frozen=True, gc=False):
    """One event found, and where it stands."""

    position: Position
    line: bytes


class Piece(Struct, frozen=True, gc=False):
    """The wanted events of one pack: their columns, and their lines, each with its end."""

    rows: Rows
    words: PooledWords
    body: bytes


class ViewGone(Exception):
    """A file was unlinked after the view was taken: take a new view and ask again."""


class Deadline:
    """Until when a question may take; it also stops SQLite in the middle of a statement."""

    def __init__(self, seconds_max: float) -> None:
        self._end = time.monotonic() + seconds_max
        self._seconds_max = seconds_max

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self._end

    def check(self) -> None:
        """Raise Unavailable when the time is over."""
        if self.passed:
            raise Unavailable(
                f"This question takes longer than {self._seconds_max:g} s: ask for a shorter "
                "time, one class or one person, or take an export."
            )


class Reader:
    """Read-only connections, and what was opened last. Any thread may ask at any time."""

    def __init__(self, *, open_files_max: int = 64, cache_bytes_max: int = 64 * 1024**2) -> None:
        self.connections = Connections(open_files_max)
        self.cache = PackCache(cache_bytes_max)
        self.troubles: dict[str, str] = {}  # what was passed over: place → why

    def page(
        self,
        views: Sequence[FileView],
        wanted: Selection,
        *,
        limit: int,
        before: Position | None = None,
        deadline: Deadline,
    ) -> list[Found]:
        """Return the newest `limit` wanted events behind `before`, newest first.

        Raises Unavailable after the deadline, ViewGone when a file has left meanwhile.
        """
        best = _Newest(limit, before)
        todo: list[_Todo] = [(-view.t1, next(_COUNT), _Opening(view)) for view in views]
        heapify(todo)
        while todo and -todo[0][0] >= best.threshold:
            deadline.check()
            _, _, step = heappop(todo)
            if isinstance(step, _Opening):
                step = _Walk(self, step.view, wanted, deadline)
            else:
                self._offer(step, best, wanted, deadline)
            if step.advance():
                heappush(todo, (-step.ref.t1, next(_COUNT), step))
        return best.found()

    def scan(
        self, views: Sequence[FileView], wanted: Selection, *, deadline: Deadline
    ) -> Iterator[Piece]:
        """Yield all wanted events, pack by pack, in the order in which they lie on disk.

        Newest file first. Within sealed files that is by class, person and time: sorting
        everything by time would mean opening everything at once.
        """
        for view in views:
            words = PooledWords(self.connections, view)
            for ref in sorted(self._refs(view, words, wanted, deadline), key=lambda ref: ref.key):
                deadline.check()
                opened = self._open(view, ref, deadline, keep=False)
                if opened is None:
                    continue
                mask = self._mask(view, words, opened, wanted, deadline)
                if mask.all():
                    yield Piece(opened.rows, words, opened.body())
                elif mask.any():
                    lines = opened.lines(np.flatnonzero(mask).tolist())
                    yield Piece(opened.rows[mask], words, b"\n".join(lines) + b"\n")

    def by_hash(
        self,
        views: Sequence[FileView],
        wanted: Selection,
        hashes: NDArray[np.uint64],
        *,
        deadline: Deadline,
    ) -> bytes | None:
        """Return the line of the event whose id has one of these hashes, if it is wanted."""
        for view in views:
            for key in self._packs_with(view, hashes, deadline):
                opened = self._open(view, PackRef(key, 0, 0, 0), deadline)
                if opened is None:
                    continue
                words = PooledWords(self.connections, view)
                mask = _any_of(opened.pack.hashes(), hashes)
                mask &= self._mask(view, words, opened, wanted, deadline)
                if mask.any():
                    return opened.lines([int(np.flatnonzero(mask)[0])])[0]
        return None

    def close(self) -> None:
        """Close every connection."""
        self.connections.close()

    def note(self, place: str, why: object) -> None:
        """Remember what was passed over, for the log and `/healthz`."""
        if len(self.troubles) < TROUBLES_MAX:
            self.troubles.setdefault(place, str(why)[:300])

    # --- steps ---

    def _offer(self, walk: _Walk, best: _Newest, wanted: Selection, deadline: Deadline) -> None:
        opened = self._open(walk.view, walk.ref, deadline)
        if opened is not None:
            best.offer(opened, self._mask(walk.view, walk.words, opened, wanted, deadline))

    def _mask(
        self,
        view: FileView,
        words: PooledWords,
        opened: OpenPack,
        wanted: Selection,
        deadline: Deadline,
    ) -> NDArray[np.bool_]:
        try:
            return select(opened.rows, words, wanted)
        except (sqlite3.Error, ValueError) as error:  # the file's dictionary
            self._pass_over(view.path, error, deadline)
            return np.zeros(len(opened.rows), np.bool_)

    def _refs(
        self, view: FileView, words: Words, wanted: Selection, deadline: Deadline
    ) -> Iterator[PackRef]:
        if isinstance(view, HotView):
            yield from _newest_of(view.entries)
            return
        try:
            with self.connections.borrow(view.path, deadline) as connection:
                refs = view.find(connection, words, wanted)
        except (sqlite3.Error, ValueError) as error:
            self._pass_over(view.path, error, deadline)
            return
        yield from refs

    def _open(
        self, view: FileView, ref: PackRef, deadline: Deadline, *, keep: bool = True
    ) -> OpenPack | None:
        try:
            with self.connections.borrow(view.path, deadline) as connection:
                return self.cache.open(view, connection, ref, keep=keep)
        except (sqlite3.Error, ShardCorrupt, ValueError, TypeError) as error:
            self._pass_over(view.path, error, deadline, pack=ref.key)
            return None

    def _packs_with(
        self, view: FileView, hashes: NDArray[np.uint64], deadline: Deadline
    ) -> list[int]:
        query = (
            "SELECT seq, ids FROM pack ORDER BY seq DESC"
            if isinstance(view, HotView)
            else f"SELECT id, ids FROM pack WHERE run <= {int(view.run)}"
        )
        low, found = np.unique(hashes[:, 0]), []
        try:
            with self.connections.borrow(view.path, deadline) as connection:
                for key, ids in connection.execute(query):
                    lows = np.frombuffer(ids, "<u8")[::2]
                    if (lows == low[0]).any() if len(low) == 1 else np.isin(lows, low).any():
                        found.append(key)
        except (sqlite3.Error, ValueError) as error:
            self._pass_over(view.path, error, deadline)
        return found

    def _pass_over(
        self, path: Path, error: Exception, deadline: Deadline, *, pack: int | None = None
    ) -> None:
        """Note damage; raise where it is none: the time is over, or the file has left."""
        if is_interrupted(error):
            deadline.check()
        if isinstance(error, sqlite3.Error):
            if is_gone(error) and not path.exists():
                raise ViewGone(path.name) from error
            told = storage_error(error, path)
            if not isinstance(told, ShardCorrupt) and not is_senseless(error):
                raise Unavailable(f"A file cannot be read now: {told}") from error
        place = path.name if pack is None else f"{path.parent.name}/{path.name} pack {pack}"
        self.note(place, error)


class _Opening(Struct, frozen=True):
    """A file that nobody has looked into yet."""

    view: FileView


class _Walk:
    """A file being walked through, pack by pack, newest first."""

    def __init__(
        self, reader: Reader, view: FileView, wanted: Selection, deadline: Deadline
    ) -> None:
        self.view = view
        self.words = PooledWords(reader.connections, view)
        self._refs = reader._refs(view, self.words, wanted, deadline)  # noqa: SLF001 (one room)
        self.ref: PackRef

    def advance(self) -> bool:
        """Go to the next pack; False: there is none."""
        ref = next(self._refs, None)
        if ref is not None:
            self.ref = ref
        return ref is not None


_Todo: TypeAlias = tuple[int, int, _Opening | _Walk]


class _Newest:
    """The newest events offered so far, no more than asked for."""

    def __init__(self, limit: int, before: Position | None) -> None:
        self._limit = limit
        self._before = before
        self._heap: list[tuple[Position, int, OpenPack, int]] = []  # the oldest of them on top

    @property
    def threshold(self) -> int:
        """The time (epoch ms) before which nothing is of interest any more."""
        return self._heap[0][0].ts if len(self._heap) >= self._limit else -(2**63)

    def offer(self, opened: OpenPack, mask: NDArray[np.bool_]) -> None:
        """Take what is newer than what there is."""
        times, hashes = opened.rows["ts"], opened.pack.hashes()
        mask = mask & (times >= self.threshold)
        if self._before is not None:
            mask &= _behind(times, hashes, self._before)
        positions = np.flatnonzero(mask)
        if len(positions) > 2 * self._limit:  # nothing older than the limit-th of these can count
            some = times[positions]
            edge = np.partition(some, len(some) - self._limit)[len(some) - self._limit]
            positions = positions[some >= edge]
        chosen = zip(
            times[positions].tolist(),
            hashes[positions, 0].tolist(),
            hashes[positions, 1].tolist(),
            positions.tolist(),
            strict=True,
        )
        for ts, low, high, at in chosen:
            self._take(Position(ts, low, high), opened, at)

    def found(self) -> list[Found]:
        """Return what was taken, newest first, each event once."""
        ordered = sorted(self._heap, key=lambda item: item[0], reverse=True)
        by_pack: dict[int, tuple[OpenPack, list[int]]] = {}
        for _, _, opened, at in ordered:
            by_pack.setdefault(id(opened), (opened, []))[1].append(at)
        lines = {
            (key, at): line
            for key, (opened, places) in by_pack.items()
            for at, line in zip(places, opened.lines(places), strict=True)
        }
        return [Found(position, lines[id(opened), at]) for position, _, opened, at in ordered]

    def _take(self, position: Position, opened: OpenPack, at: int) -> None:
        item = (position, next(_COUNT), opened, at)
        if len(self._heap) < self._limit:
            heappush(self._heap, item)
        else:
            heappushpop(self._heap, item)


def _behind(
    times: NDArray[np.int64], hashes: NDArray[np.uint64], before: Position
) -> NDArray[np.bool_]:
    low, high = np.uint64(before.low), np.uint64(before.high)
    tied = (hashes[:, 0] < low) | ((hashes[:, 0] == low) & (hashes[:, 1] < high))
    behind: NDArray[np.bool_] = (times < before.ts) | ((times == before.ts) & tied)
    return behind


def _newest_of(entries: NDArray[Any]) -> Iterator[PackRef]:
    order = np.argsort(-entries["t1"], kind="stable")
    for at in range(0, len(order), _REFS_AT_ONCE):
        some = entries[order[at : at + _REFS_AT_ONCE]]
        columns: Iterable[list[int]] = (some[name].tolist() for name in ("key", "n", "t0", "t1"))
        for values in zip(*columns, strict=True):
            yield PackRef(*values)


def _any_of(ids: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    mask = np.zeros(len(ids), np.bool_)
    for low, high in hashes.tolist():
        mask |= (ids[:, 0] == low) & (ids[:, 1] == high)
    return mask
