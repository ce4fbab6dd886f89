"""Taking events out of files that stay: a person's, or those that have expired. No trace is left.

Every home is worked on alone, in a thread, so that commits go on; readers keep what they have
begun to read until they are through.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mlc_broker.model.errors import StoreError
from mlc_broker.store.manifest import HomeEntry
from mlc_broker.store.select import gone_for
from mlc_broker.store.shard import Shard
from mlc_broker.store.store import Store


class Scrubber:
    """Works on the files of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def forget(self, organization_id: str, names: tuple[str, ...]) -> dict[str, int] | None:
        """Remove the events of a person (by each of their ids) from every file.

        The ids must be hidden already. None: a file is still needed; call again.
        """
        store = self._store
        await store.seal_now()
        hidden = frozenset((organization_id, name) for name in names)
        dropped = await store.upkeep.rewrite(partial(_drop_person, names=names, hidden=hidden))
        await store.release(grace_seconds=0.0)
        return None if store.upkeep.held else {"events": dropped}

    async def purge(self, now_ms: int) -> int:
        """Remove what has expired by then from every home; return how many events."""
        dropped = await self._store.upkeep.rewrite(partial(_drop_expired, now_ms=now_ms))
        await self._store.release(grace_seconds=0.0)
        return dropped


def _drop_person(
    _: HomeEntry, path: Path, *, names: tuple[str, ...], hidden: frozenset[tuple[str, str]]
) -> int:
    shard = Shard(path)
    try:
        gone = gone_for(-(2**62), hidden)
        dropped = sum(shard.drop(gone, code) for code in shard.codes(names))
        shard.forget_words(names)
        _emptied(shard)
    finally:
        shard.close()
    return dropped


def _drop_expired(_: HomeEntry, path: Path, *, now_ms: int) -> int:
    shard = Shard(path)
    try:
        dropped = shard.drop_expired(gone_for(now_ms, frozenset()), now_ms)
        if dropped:
            _emptied(shard)
    finally:
        shard.close()
    return dropped


def _emptied(shard: Shard) -> None:
    if not shard.checkpoint():
        raise StoreError(f"{shard.path.name} is still being read", hint="it is tried again")
