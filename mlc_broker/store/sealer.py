"""Moves the events of closed hot files into their homes, step by step; merges months that are over.

Each step may be cut off anywhere and is repeated after a restart: a home notes in the same
transaction which hot file it took and how far, and the manifest is told last.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from mlc_broker.model.errors import ShardCorrupt
from mlc_broker.runtime.crashpoint import crash_point
from mlc_broker.store.columns import RETENTIONS, Rows
from mlc_broker.store.hot import HotFile, storage_error
from mlc_broker.store.layout import Home, home_path, slot_of
from mlc_broker.store.manifest import HomeEntry, HotEntry, Manifest
from mlc_broker.store.pack import COLUMNS, ID_BYTES, Pack
from mlc_broker.store.schema import READ_ERRORS, open_reader
from mlc_broker.store.select import Words
from mlc_broker.store.shard import Gone, Part, Shard

ALL = -1  # all of it was merged
STEP_EVENTS = 32_768  # about 25 MB of lines
_TOTALS = (
    "SELECT coalesce(sum(n), 0), coalesce(min(t0), 0), coalesce(max(t1), 0),"
    " coalesce(max(expires), 0), coalesce(max(recv), 0) FROM pack"
)
_READ = f"SELECT {', '.join(COLUMNS)} FROM pack WHERE seq = ?"


class Sealed(Struct, frozen=True, gc=False):
    """What one step did."""

    hot: int
    upto: int  # the sequence behind the last event that homes have now
    run: int
    homes: list[HomeEntry]
    done: bool  # whether that was all of the hot file
    damaged: str = ""  # what was wrong with packs that had to be left behind


class HomeDamaged(ShardCorrupt):
    """A home cannot take events. It is set aside, and the step done again."""

    def __init__(self, entry: HomeEntry, why: str) -> None:
        super().__init__(f"{entry.home.path}: {why}")
        self.entry, self.why = entry, why


class Sealer:
    """Sync, thread-side, one step at a time."""

    def __init__(self, directory: Path, manifest: Manifest, *, slots: int) -> None:
        self._directory = directory
        self._manifest = manifest
        self._slots = slots

    def step(self, hot: HotFile, entry: HotEntry, gone: Gone) -> Sealed:
        """Move the next events of a closed hot file; `entry` says how far it got.

        Events that are `gone` (have expired, or their person is being erased) are left behind.
        """
        begin = max(entry.sealed_upto, hot.first_sequence)
        packs, upto, damaged = self._read(hot, begin, entry.sealing_upto)
        run = self._manifest.number("run") + 1
        homes = []
        if packs:
            self._manifest.plan_sealing(hot.number, upto)
            crash_point("seal.after_plan")
            words = hot.dictionary.words
            known = {known.home: known for known in self._manifest.homes()}
            for home, part in self._parts(packs, words, hot.dictionary, gone):
                home_entry = known.get(home) or HomeEntry(home)
                homes.append(self._take(home_entry, part, words, run, hot.number, upto))
                crash_point("seal.after_home_commit")
        self._manifest.note_sealed(hot.number, upto, run, homes)
        crash_point("seal.after_manifest")
        return Sealed(hot.number, upto, run, homes, upto >= hot.next_sequence, damaged)

    def merge(self, entry: HomeEntry, gone: Gone) -> Iterator[HomeEntry | None]:
        """Rewrite a home as one run, without what is `gone`; yields None until it is done.

        The last one yielded is the new entry: its version is in force; the old file is still there.
        """
        run = self._manifest.number("run")
        old = Shard(home_path(self._directory, entry.home, entry.version))
        target = home_path(self._directory, entry.home, entry.version + 1)
        try:
            for _ in old.merge_into(target, gone, run=run):
                yield None
        finally:
            old.close()
        crash_point("merge.after_file")
        new = self._entry(entry.home, entry.version + 1, ALL)
        self._manifest.put_home(new)
        crash_point("merge.after_manifest")
        yield new

    def refreshed(self, entry: HomeEntry) -> HomeEntry:
        """Count a home of which events were taken out, and note it."""
        new = self._entry(entry.home, entry.version, min(entry.merged, entry.n))
        self._manifest.put_home(new)
        return new

    def _read(self, hot: HotFile, begin: int, planned: int) -> tuple[list[Pack], int, str]:
        packs, upto, count, damaged = [], begin, 0, ""
        connection = open_reader(hot.path)
        try:
            for entry in hot.index.entries[hot.index.entries["key"] >= begin]:
                sequence, n = int(entry["key"]), int(entry["n"])
                if (sequence >= planned) if planned > begin else (count >= STEP_EVENTS):
                    break
                count += n
                upto = sequence + n
                try:
                    packs.append(_checked(connection, sequence))
                except ShardCorrupt as error:  # the others are none the worse
                    damaged = f"the {n} events of commit {sequence}: {error}"
        except READ_ERRORS as error:
            raise storage_error(error, hot.path) from error
        finally:
            connection.close()
        return packs, upto, damaged

    def _parts(
        self,
        packs: list[Pack],
        words: list[str],
        dictionary: Words,
        gone: Gone,
    ) -> Iterator[tuple[Home, Part]]:
        rows = np.concatenate([pack.rows() for pack in packs])
        ids = np.frombuffer(b"".join(p.ids for p in packs), np.uint8).reshape(-1, ID_BYTES)
        recv = max(pack.recv for pack in packs)
        keep = ~gone(rows, dictionary) & _first_of_each(ids)
        lines = [line for pack in packs for line in pack.lines()]
        keys = self._home_keys(rows, words)
        for key in np.unique(keys[keep]):
            chosen = np.flatnonzero(keep & (keys == key))
            month = str(key["month"].astype("datetime64[M]"))
            home = Home(RETENTIONS[int(key["retention"])], month, int(key["slot"]))
            some = [lines[i] for i in chosen.tolist()]
            yield home, Part(rows[chosen], ids[chosen], some, recv)

    def _home_keys(self, rows: Rows, words: list[str]) -> NDArray[Any]:
        kind = [("month", "<i8"), ("retention", "u1"), ("slot", "<u4")]
        keys = np.empty(len(rows), kind)
        keys["month"] = rows["ts"].astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
        keys["retention"] = rows["retention"]
        codes, where = np.unique(rows["organization"], return_inverse=True)
        slots = [slot_of(words[code] or None, self._slots) for code in codes.tolist()]
        keys["slot"] = np.array(slots, np.uint32)[where]
        return keys

    def _take(
        self, entry: HomeEntry, part: Part, words: list[str], run: int, hot: int, upto: int
    ) -> HomeEntry:
        try:
            shard = Shard(home_path(self._directory, entry.home, entry.version))
            try:
                shard.take(part, words, run=run, hot=hot, upto=upto)
            finally:
                shard.close()
            return self._entry(entry.home, entry.version, entry.merged)
        except ShardCorrupt as error:
            raise HomeDamaged(entry, str(error)) from error
        except READ_ERRORS as error:
            told = storage_error(error, home_path(self._directory, entry.home, entry.version))
            if isinstance(told, ShardCorrupt):
                raise HomeDamaged(entry, str(told)) from error
            raise told from error

    def _entry(self, home: Home, version: int, merged: int) -> HomeEntry:
        connection = open_reader(home_path(self._directory, home, version))
        try:
            row = connection.execute(_TOTALS).fetchone()
        finally:
            connection.close()
        return HomeEntry(home, version, row[0] if merged < 0 else merged, *row)


def _checked(connection: Any, sequence: int) -> Pack:
    row = connection.execute(_READ, (sequence,)).fetchone()
    if row is None:
        raise ShardCorrupt("is gone")
    pack = Pack.from_row(row)
    pack.verify()
    return pack


def _first_of_each(ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
    # Insurance: an id stands once in the hot file already.
    _, first = np.unique(ids.view("V16").ravel(), return_index=True)
    mask = np.zeros(len(ids), np.bool_)
    mask[first] = True
    return mask
