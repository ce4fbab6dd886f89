"""What keeps the files in order: rotation, sealing, merging, expiry, checking. In small steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio
from msgspec import Struct

from mlc_broker.model.errors import BrokerError, ShardCorrupt
from mlc_broker.store.files import Files, unlink
from mlc_broker.store.holds import knows_any
from mlc_broker.store.hot import HotFile, storage_error
from mlc_broker.store.ids import Ids
from mlc_broker.store.layout import home_path
from mlc_broker.store.manifest import HomeEntry
from mlc_broker.store.pack import COLUMNS, Pack
from mlc_broker.store.schema import READ_ERRORS, open_reader
from mlc_broker.store.sealer import HomeDamaged, Sealer
from mlc_broker.store.select import gone_for
from mlc_broker.store.shard import Gone
from mlc_broker.store.writer import InThread, Writer

GRACE_SECONDS = 600.0  # a file taken out of view is still there for readers that began before
MERGE_AFTER_MS = 2 * 86_400_000  # after the month's end
MERGE_GROWTH = 1.1  # a merged home is merged again when late events made it larger by so much


class Report(Struct, gc=False):
    """What a walk over all packs found."""

    files: int = 0
    packs: int = 0
    events: int = 0
    damaged: list[str] = msgspec.field(default_factory=list)


class Upkeep:
    """One step at a time: a lock stands around each."""

    def __init__(
        self, files: Files, writer: Writer, ids: Ids, *, slots: int, in_thread: InThread
    ) -> None:
        self._files = files
        self._writer = writer
        self._ids = ids
        self._in_thread = in_thread
        self._sealer = Sealer(files.directory, files.manifest, slots=slots)
        self._lock = trio.Lock()
        self._garbage: list[tuple[float, Path]] = []
        self._unmergeable: set[HomeEntry] = set()
        self._retired: dict[int, float] = {}  # sealed hot files, and since when

    def standing_still(self) -> trio.Lock:
        """Return the lock under which no file is begun, sealed, merged or removed."""
        return self._lock

    async def rotate(self, now_ms: int) -> None:
        """Begin a new hot file; the old one waits to be sealed."""
        async with self._lock:
            fresh = await self._in_thread(self._files.begin_hot, now_ms)
            old = await self._writer.rotate(fresh)
            await self._in_thread(old.checkpoint)

    async def replace(self, hot: HotFile, why: str, now_ms: int) -> None:
        """Set a damaged hot file aside; commits go to a new one at once."""
        async with self._lock:
            if hot.number not in self._files.hot:
                return
            if self._writer.hot is hot:
                self._writer.replace(await self._in_thread(self._files.begin_hot, now_ms))
            await self._in_thread(self._files.set_aside, hot.number, why)

    async def seal(self, now_ms: int) -> int:
        """Move all events of closed hot files into homes; return how many files were finished.

        What is damaged is set aside and told of in `Files.troubles`; the rest goes on.
        """
        async with self._lock:
            finished = 0
            for number, hot in sorted(self._files.hot.items()):
                if self._files.entries[number].state == "closed":
                    try:
                        await self._seal_file(hot, now_ms)
                    except ShardCorrupt as error:
                        await self._in_thread(self._files.set_aside, number, str(error))
                    finished += 1
            return finished

    async def merge(self, now_ms: int) -> int:
        """Rewrite homes whose month is over as one run; return how many."""
        async with self._lock:
            due = [
                entry
                for entry in self._files.homes.values()
                if _merge_due(entry, now_ms) and entry not in self._unmergeable
            ]
            merged = 0
            for entry in due:
                try:
                    await self._merge_home(entry, now_ms)
                    merged += 1
                except (ShardCorrupt, *READ_ERRORS) as error:
                    self._note_unmergeable(entry, error)
            return merged

    def _note_unmergeable(self, entry: HomeEntry, error: Exception) -> None:
        # Its sound packs are served as they are.
        if not isinstance(error, ShardCorrupt):
            told = storage_error(error, home_path(self._files.directory, entry.home, entry.version))
            if not isinstance(told, ShardCorrupt):
                raise told from error
            error = told
        self._unmergeable.add(entry)
        self._files.troubles.append(f"{entry.home.path} cannot be merged: {error}")

    async def unlink_expired(self, now_ms: int) -> int:
        """Remove the files of which every event has expired and none is held; return how many."""
        async with self._lock:
            gone = [home for home in self._files.homes.values() if home.expires_ms <= now_ms]
            removed = 0
            for entry in gone:
                path = home_path(self._files.directory, entry.home, entry.version)
                held = self._files.held
                if held and await self._in_thread(knows_any, path, held):
                    continue  # a purge takes what is not held out of it
                del self._files.homes[entry.home]
                await self._in_thread(self._files.manifest.forget_home, entry.home)
                await self._in_thread(unlink, path)
                removed += 1
            return removed

    async def rewrite(self, change: Callable[[HomeEntry, Path], int]) -> int:
        """Let `change` take events out of each home, in a thread; return how many in all.

        The lock is given back between homes. A home that is empty afterwards is unlinked.
        """
        total = 0
        for home in sorted(self._files.homes):
            async with self._lock:
                entry = self._files.homes.get(home)
                if entry is None:
                    continue
                path = home_path(self._files.directory, entry.home, entry.version)
                count = await self._in_thread(change, entry, path)
                if count:
                    total += count
                    await self._note_rewritten(entry, path)
        return total

    async def _note_rewritten(self, entry: HomeEntry, path: Path) -> None:
        new = await self._in_thread(self._sealer.refreshed, entry)
        if new.n:
            self._files.homes[entry.home] = new
            return
        del self._files.homes[entry.home]
        await self._in_thread(self._files.manifest.forget_home, entry.home)
        await self._in_thread(unlink, path)

    @property
    def busy(self) -> bool:
        """Whether something is being done: what is asked for now has to wait."""
        return self._lock.locked()

    @property
    def held(self) -> bool:
        """Whether files that are out of view are still there, because somebody needs them."""
        sealed = any(entry.state == "sealed" for entry in self._files.entries.values())
        return sealed or bool(self._garbage)

    async def release(self, keep_from: int, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """Unlink what is out of view: old versions, and sealed hot files before `keep_from`."""
        async with self._lock:
            before = trio.current_time() - grace_seconds
            for since, path in [item for item in self._garbage if item[0] <= before]:
                self._garbage.remove((since, path))
                await self._in_thread(unlink, path)
            for number, hot in list(self._files.hot.items()):
                entry = self._files.entries[number]
                since = self._retired.get(number, float("-inf"))
                if entry.state == "sealed" and hot.next_sequence <= keep_from and since <= before:
                    await self._in_thread(self._files.remove_hot, number)

    async def verify(self, progress: Callable[[Report], None] = lambda _: None) -> Report:
        """Read every pack of every file and check it; `progress` is told after each file."""
        report = Report()
        paths = [hot.path for hot in self._files.hot.values()]
        paths += [
            home_path(self._files.directory, entry.home, entry.version)
            for entry in self._files.homes.values()
        ]
        for path in paths:
            await self._in_thread(verify_file, path, report)
            progress(report)
        return report

    async def _seal_file(self, hot: HotFile, now_ms: int) -> None:
        files, done, damaged = self._files, False, ""
        while not done:
            entry = files.entries[hot.number]
            step = partial(self._sealer.step, hot, entry, self._gone(now_ms))
            try:
                sealed = await self._in_thread(step)
            except HomeDamaged as error:
                await self._in_thread(files.set_aside_home, error.entry, error.why)
                continue
            done, damaged = sealed.done, sealed.damaged or damaged
            # In one go, with no await between: a view shows each event once.
            files.run = sealed.run
            files.homes.update({home.home: home for home in sealed.homes})
            files.entries[hot.number] = msgspec.structs.replace(
                entry, sealed_upto=sealed.upto, state="sealed" if done else "closed"
            )
        if damaged:
            await self._in_thread(files.set_aside, hot.number, f"only {damaged}")
            return
        await self._in_thread(files.manifest.mark_hot, hot.number, "sealed")
        self._retired[hot.number] = trio.current_time()

    def _gone(self, now_ms: int) -> Gone:
        return gone_for(now_ms, self._files.hidden, self._files.held)

    async def _merge_home(self, entry: HomeEntry, now_ms: int) -> None:
        steps: Iterator[HomeEntry | None] = self._sealer.merge(entry, self._gone(now_ms))
        new = None
        while new is None:
            new = await self._in_thread(next, steps)
        await self._in_thread(_finish, steps)
        self._files.homes[entry.home] = new
        old = home_path(self._files.directory, entry.home, entry.version)
        self._garbage.append((trio.current_time(), old))


def _merge_due(entry: HomeEntry, now_ms: int) -> bool:
    over = now_ms > entry.home.end_ms + MERGE_AFTER_MS
    return over and entry.n > entry.merged * MERGE_GROWTH


def _finish(steps: Iterator[Any]) -> None:
    for _ in steps:
        pass


def verify_file(path: Path, report: Report) -> None:
    """Check every pack of a file, and note what is damaged."""
    report.files += 1
    try:
        connection = open_reader(path)
    except READ_ERRORS as error:
        report.damaged.append(str(storage_error(error, path)))
        return
    try:
        for row in connection.execute(f"SELECT {', '.join(COLUMNS)} FROM pack"):
            report.packs += 1
            pack = Pack.from_row(row)
            pack.verify()
            report.events += pack.n
    except READ_ERRORS as error:
        report.damaged.append(str(storage_error(error, path)))
    except BrokerError as error:
        report.damaged.append(f"{path.name}: {error}")
    finally:
        connection.close()
