"""Counting, one thread at a time: the file of the cells, and the folder that makes them.

The daemon counts with it in its own threads, and, when many events come, in a process beside it
(rollups_clerk.py). Whoever has it open is the only one who writes the file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from mlc_broker.model.event import Event
from mlc_broker.model.metric import Metric
from mlc_broker.store.files import unlink as remove
from mlc_broker.store.lines import event_of
from mlc_broker.store.rollups_file import RollupsFile
from mlc_broker.store.rollups_fold import Delta, Folder, Hidden
from mlc_broker.store.rollups_recount import Progress, Recount, compare, recount
from mlc_broker.store.schema import open_reader
from mlc_broker.store.select import Selection
from mlc_broker.store.view import FileView, HotView, load_hot

Receipts = dict[tuple[int, int, str, str], int]  # organization, minute, outcome, reason: how many


class Source(Protocol):
    """What is counted: the store."""

    def views_after(self, sequence: int) -> list[HotView]:
        """Return committed packs from a sequence on, in order of arrival."""


class Counter:
    """The open file, and what is folded but not written yet."""

    def __init__(
        self,
        path: Path,
        samplers: Sequence[Metric],
        *,
        categories: Callable[[str], str | None],
        zone_of: Callable[[str], str],
    ) -> None:
        """Open the file, and make it where there is none. Raises StoreError."""
        self.path = path
        self.events = 0  # folded by this counter
        self.seconds = 0.0  # of CPU, spent folding and writing
        self._samplers = samplers
        self._categories = categories
        self._zone_of = zone_of
        self.file = RollupsFile(path)
        self.watermark = self.file.watermark  # what the file covers
        self.folder = self.new_folder(self.file.zones())

    def new_folder(self, zones: dict[str, str]) -> Folder:
        """Return a folder that has seen nothing, but knows in which zones people are counted."""
        folder = Folder(self._samplers, self._categories, self._zone_of)
        folder.zones.update(zones)
        return folder

    def declare(self, samplers: Sequence[Metric]) -> list[str]:
        """Count by these from now on; return those that miss what was stored before them."""
        self._samplers = samplers
        uncounted = self.file.note_declared(self.declarations())
        self.folder = self.new_folder(self.folder.zones)
        return uncounted

    def declarations(self) -> dict[str, str]:
        """Return what each sampler says, as the file keeps it."""
        encode = msgspec.json.encode
        return {metric.name: encode(metric).decode() for metric in self._samplers}

    def fold(self, events: Sequence[Event], times: Iterable[int] | None, hidden: Hidden) -> None:
        """Count committed events; `times`: their timestamps in epoch ms, where they are known."""
        began = time.thread_time()
        self.folder.fold(events, times, hidden)
        self.events += len(events)
        self.seconds += time.thread_time() - began

    def fold_packs(self, path: Path, keys: Iterable[int], begin: int, hidden: Hidden) -> int:
        """Count the events of these packs of a hot file, from a sequence on; return the one behind.

        Raises StoreError.
        """
        upto = begin
        connection = open_reader(path)
        try:
            for key in keys:
                pack = load_hot(connection, path, key)
                lines = pack.lines(range(max(0, begin - key), pack.n))
                self.fold([event_of(line) for line in lines], None, hidden)
                upto = key + pack.n
        finally:
            connection.close()
        return upto

    def write(self, delta: Delta, upto: int, receipts: Receipts) -> None:
        """Write cells that cover the events before `upto`. Raises StoreError."""
        began = time.thread_time()
        if upto != self.watermark:
            self.file.add(self.folder, delta, upto, since=self.watermark)
            self.watermark = upto
        if receipts:
            self.file.add_receipts(receipts)
        self.seconds += time.thread_time() - began

    def snapshot(self) -> Any:
        """Return a connection that goes on seeing the file as it is now."""
        connection = open_reader(self.path)
        connection.execute("BEGIN")
        connection.execute("SELECT sequence FROM watermark").fetchone()
        return connection

    def compare(
        self,
        snapshot: Any,
        views: list[FileView],
        wanted: Selection,
        *,
        before: int,
        progress: Progress,
    ) -> Recount:
        """Count all events that the views show, up to a sequence, anew; compare with a snapshot."""
        fresh = self.path.with_name("rollups.recount.db")
        remove(fresh)
        target = RollupsFile(fresh)
        try:
            folder = self.new_folder(dict(self.folder.zones))
            found = recount(views, wanted, folder, target, before=before, progress=progress)
            compare(snapshot, target, wanted.now_ms // 60_000, found)
        finally:
            target.close()
            remove(fresh)
        return found

    def rebuild(
        self, views: list[FileView], wanted: Selection, *, before: int, progress: Progress
    ) -> Recount:
        """Replace all cells by a recount of what the views show, up to a sequence."""
        folder = self.new_folder({})
        self.file.clear()
        found = recount(views, wanted, folder, self.file, before=before, progress=progress)
        self.watermark = self.file.watermark
        self.file.note_counted(self.declarations())
        self.folder = self.new_folder(folder.zones)
        return found

    def begin_again(self) -> None:
        """Forget what was folded but not written, and see what the file covers by now."""
        self.folder.forget()
        self.watermark = self.file.watermark

    def close(self) -> None:
        """Close the file."""
        self.file.close()
