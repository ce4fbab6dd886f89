"""What readers get: the files that may hold what they want, and the packs in each.

A view is taken on the event loop in one go; its files are then opened by readers, in threads, by
connections of their own. It shows every committed event once: what a home has is not in the hot
part any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from mlc_broker.model.errors import ShardCorrupt
from mlc_broker.store.columns import Dictionary
from mlc_broker.store.hot import storage_error
from mlc_broker.store.pack import COLUMNS, Pack
from mlc_broker.store.schema import READ_ERRORS
from mlc_broker.store.select import Selection, Words, mentions
from mlc_broker.store.shard import SqlWords

_COLUMNS = ", ".join(COLUMNS)
_HEADS = "SELECT id, n, t0, t1 FROM pack"
_BOUNDS = "t1 >= ? AND t0 < ? AND run <= ? AND expires > ?"
_FEW_PACKS = 2_000


class PackRef(Struct, frozen=True, gc=False):
    """A pack that may hold wanted events; `t0` to `t1` is its time range in epoch ms."""

    key: int
    n: int
    t0: int
    t1: int


class HotView(Struct, frozen=True, gc=False):
    """The part of a hot file that no home has yet, as it stood when the view was taken."""

    path: Path
    t0: int
    t1: int
    entries: NDArray[Any]  # of `index.PackIndex`
    dictionary: Dictionary

    def words(self, _: Any) -> Words:
        """Return the file's dictionary."""
        return self.dictionary

    def find(self, _: Any, __: Words, ___: Selection) -> list[PackRef]:
        """Return the packs that may hold wanted events, newest first: chosen already."""
        newest = self.entries[np.argsort(-self.entries["t1"], kind="stable")]
        columns = (newest[name].tolist() for name in ("key", "n", "t0", "t1"))
        return [PackRef(*values) for values in zip(*columns, strict=True)]

    def load(self, connection: Any, ref: PackRef) -> Pack:
        """Read a pack and check it; raises ShardCorrupt."""
        return load_hot(connection, self.path, ref.key)


class HomeView(Struct, frozen=True, gc=False):
    """A home, up to the last run that was in force when the view was taken."""

    path: Path
    t0: int
    t1: int
    run: int

    def words(self, connection: Any) -> Words:
        """Return the file's dictionary, asked through this connection."""
        return SqlWords(connection)

    def find(self, connection: Any, words: Words, wanted: Selection) -> list[PackRef]:
        """Return the packs that may hold wanted events, newest first; raises ShardCorrupt."""
        try:
            return self._find(connection, words, wanted)
        except READ_ERRORS as error:
            raise storage_error(error, self.path) from error

    def _find(self, connection: Any, words: Words, wanted: Selection) -> list[PackRef]:
        begin = -(2**63) if wanted.begin_ms is None else wanted.begin_ms
        end = 2**63 - 1 if wanted.end_ms is None else wanted.end_ms
        bounds = (begin, end, self.run, wanted.now_ms)
        needs = mentions(words, wanted)
        if needs:
            keys = set.intersection(*(_mentioning(connection, codes) for codes in needs))
            found = _heads_of(connection, keys, bounds)
        else:
            found = connection.execute(f"{_HEADS} WHERE {_BOUNDS}", bounds).fetchall()
        refs = [PackRef(*head) for head in found]
        return sorted(refs, key=lambda ref: (-ref.t1, ref.key))

    def load(self, connection: Any, ref: PackRef) -> Pack:
        """Read a pack and check it; raises ShardCorrupt."""
        return _load(connection, f"SELECT {_COLUMNS} FROM pack WHERE id = ?", ref.key, self.path)


FileView = HotView | HomeView


def _heads_of(connection: Any, keys: set[int], bounds: tuple[int, ...]) -> list[Any]:
    """Return the heads of these packs within the bounds: few are looked up one by one."""
    if len(keys) > _FEW_PACKS:
        every = connection.execute(f"{_HEADS} WHERE {_BOUNDS}", bounds)
        return [head for head in every if head[0] in keys]
    query = f"{_HEADS} WHERE id = ? AND {_BOUNDS}"
    return [
        head
        for key in sorted(keys)
        for head in connection.execute(query, (key, *bounds)).fetchall()
    ]


def _mentioning(connection: Any, codes: list[int]) -> set[int]:
    query = "SELECT pack FROM mention WHERE code = ?"
    return {key for code in codes for (key,) in connection.execute(query, (code,))}


def pieces_of(views: Iterable[HotView], events: int) -> list[HotView]:
    """Return the packs of these views in pieces of about so many events."""
    found = []
    for view in views:
        turns = np.flatnonzero(np.diff(np.cumsum(view.entries["n"]) // events)) + 1
        for entries in np.split(view.entries, turns):
            found.append(replace(view, entries=entries))  # noqa: PERF401
    return found


def load_hot(connection: Any, path: Path, key: int) -> Pack:
    """Read the pack of a hot file whose first event has this sequence; raises ShardCorrupt."""
    return _load(connection, f"SELECT {_COLUMNS} FROM pack WHERE seq = ?", key, path)


def _load(connection: Any, query: str, key: int, path: Path) -> Pack:
    try:
        row = connection.execute(query, (key,)).fetchone()
    except READ_ERRORS as error:
        raise storage_error(error, path) from error
    if row is None:
        raise ShardCorrupt(f"{path.name}: pack {key} is gone")
    pack = Pack.from_row(row)
    pack.verify()
    return pack
