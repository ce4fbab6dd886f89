"""Taking events out of files that stay: a person's, or those that have expired. No trace is left.

Every home is worked on alone, in a thread, so that commits go on; readers keep what they have
begun to read until they are through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import trio

from mlc_broker.model.errors import StoreError
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Grant, Scope
from mlc_broker.store.columns import Rows
from mlc_broker.store.holds import Held
from mlc_broker.store.layout import home_path
from mlc_broker.store.manifest import HomeEntry
from mlc_broker.store.pack import COLUMNS, Pack
from mlc_broker.store.schema import open_reader
from mlc_broker.store.select import Selection, gone_for, select
from mlc_broker.store.shard import Gone, Shard, SqlWords, first_expiry
from mlc_broker.store.store import Store
from mlc_broker.store.view import HotView

TRIES, TRY_SECONDS = 20, 0.2  # for a hot file that somebody reads yet


class Scrubber:
    """Works on the files of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._first: dict[HomeEntry, int] = {}  # when the first event of a home expires

    async def forget(self, organization_id: str, names: tuple[str, ...]) -> dict[str, int] | None:
        """Remove the events of a person (by each of their ids) from every file.

        The ids must be hidden already. None: a file is still needed; call again.
        """
        store = self._store
        unsealed = await self._in_hot_files(organization_id, names)
        await store.seal_now()
        hidden = frozenset((organization_id, name) for name in names)
        drop = partial(_drop_person, names=names, hidden=hidden, held=store.files.held)
        dropped = await store.upkeep.rewrite(drop)
        for _ in range(TRIES):
            await store.release(grace_seconds=0.0)
            if not store.upkeep.held:
                return {"events": unsealed + dropped}
            await trio.sleep(TRY_SECONDS)  # the rollups are about to be done with it
        return None

    async def _in_hot_files(self, organization_id: str, names: tuple[str, ...]) -> int:
        """Count what sealing is about to leave behind."""
        wanted = Selection(
            scope=Scope(
                organization_id=organization_id, grants=(Grant(user_ids=frozenset(names)),)
            ),
            filter=Filter(user_id=frozenset(names)),
            now_ms=-(2**62),
        )
        views = [view for view in self._store.views(wanted) if isinstance(view, HotView)]
        return int(await trio.to_thread.run_sync(_selected, views, wanted))

    async def purge(self, now_ms: int) -> int:
        """Remove what has expired by then from every file; return how many events.

        Files of which everything has expired are unlinked, the others lose what has expired.
        """
        store = self._store
        await store.seal_now()
        before = sum(entry.n for entry in store.files.homes.values())
        await store.upkeep.unlink_expired(now_ms)
        await store.upkeep.rewrite(partial(self._drop_expired, now_ms=now_ms))
        await store.release(grace_seconds=0.0)
        return before - sum(entry.n for entry in store.files.homes.values())

    async def expired(self, now_ms: int) -> dict[str, int]:
        """Count what `purge` would remove from homes, by retention class; change nothing."""
        store, counts = self._store, Counter[str]()
        await store.seal_now()
        for entry in list(store.files.homes.values()):
            path = home_path(store.files.directory, entry.home, entry.version)
            counts[entry.home.retention] += await trio.to_thread.run_sync(
                _count, path, gone_for(now_ms, frozenset(), store.files.held)
            )
        return {name: count for name, count in counts.items() if count}

    def _drop_expired(self, entry: HomeEntry, path: Path, *, now_ms: int) -> int:
        first = self._first.get(entry)
        if first is None:
            if len(self._first) >= _REMEMBERED_MAX:
                self._first.clear()
            first = self._first[entry] = min(_expiries(path), default=2**62)
        if first > now_ms:
            return 0
        gone = gone_for(now_ms, frozenset(), self._store.files.held)
        shard = Shard(path)
        try:
            dropped = shard.drop_expired(gone, now_ms)
            _emptied(shard)
        finally:
            shard.close()
        return dropped


_REMEMBERED_MAX = 10_000  # homes


def _selected(views: Sequence[HotView], wanted: Selection) -> int:
    count = 0
    for view in views:
        connection = open_reader(view.path)
        try:
            words = view.words(connection)
            for ref in view.find(connection, words, wanted):
                rows = view.load(connection, ref).rows()
                count += int(select(rows, words, wanted).sum())
        finally:
            connection.close()
    return count


def _expiries(path: Path) -> Iterator[int]:
    for rows in _rows(path):
        yield first_expiry(rows)


def _count(path: Path, gone: Gone) -> int:
    connection = open_reader(path)
    try:
        words = SqlWords(connection)
        return sum(int(gone(rows, words).sum()) for rows in _rows(path))
    finally:
        connection.close()


def _rows(path: Path) -> Iterator[Rows]:
    connection = open_reader(path)
    try:
        for row in connection.execute(f"SELECT {', '.join(COLUMNS)} FROM pack"):
            yield Pack.from_row(row).rows()
    finally:
        connection.close()


def _drop_person(
    _: HomeEntry, path: Path, *, names: tuple[str, ...], hidden: Held, held: Held
) -> int:
    shard = Shard(path)
    try:
        gone = gone_for(-(2**62), hidden, held)
        dropped = sum(shard.drop(gone, code) for code in shard.codes(names))
        shard.forget_words(names)
        _emptied(shard)
    finally:
        shard.close()
    return dropped


def _emptied(shard: Shard) -> None:
    if not shard.checkpoint():
        raise StoreError(f"{shard.path.name} is still being read", hint="it is tried again")
