"""The set of files: where batches are stored, and where readers find the packs."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import trio
from msgspec import Struct

from mlc_broker.model.batch import Batch
from mlc_broker.model.errors import DirectoryInUse, ShardCorrupt, ShardUnavailable
from mlc_broker.runtime.clock import Clock, SystemClock
from mlc_broker.store.hot import Committed, HotFile
from mlc_broker.store.ids import Hasher, Ids, as_hashes
from mlc_broker.store.layout import LOCK, hot_path
from mlc_broker.store.manifest import Manifest
from mlc_broker.store.writer import InThread, Writer

HOUR_MS = 3_600_000


class Limits(Struct, frozen=True, kw_only=True):
    """What the store may take; each name carries its unit."""

    commit_events_max: int = 1000
    commit_seconds_max: float = 0.005
    hot_bytes_max: int = 256 * 1024 * 1024
    hot_hours_max: float = 24.0
    window_hours: float = 24.0  # of deduplication by time of receipt, at least
    ids_bytes_max: int = 1024 * 1024 * 1024
    slots: int = 1


class Store:
    """One data directory. `open` it, `run` it, `append` to it, `close` it."""

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        clock: Clock,
        *,
        durable: bool,
        in_thread: InThread,
    ) -> None:
        self.directory = directory
        self.limits = limits
        self.troubles: list[str] = []  # what was found broken, for /healthz and the log
        self.on_commit: Callable[[Committed], None] = lambda _: None
        self._clock = clock
        self._durable = durable
        self._in_thread = in_thread
        self._lock: int | None = None
        self.manifest: Manifest
        self.writer: Writer
        self.ids = Ids(window_ms=int(limits.window_hours * HOUR_MS), bytes_max=limits.ids_bytes_max)
        self._hot: dict[int, HotFile] = {}  # all whose events are not yet in homes, by number

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
        store = cls(
            directory,
            limits or Limits(),
            clock or SystemClock(),
            durable=durability == "power-loss",
            in_thread=in_thread,
        )
        hot, hasher = await in_thread(store._open)
        store.writer = Writer(
            hot,
            store.ids,
            hasher,
            categories,
            store._clock,
            in_thread=in_thread,
            on_commit=lambda committed: store.on_commit(committed),
            commit_events_max=store.limits.commit_events_max,
            commit_seconds_max=store.limits.commit_seconds_max,
        )
        return store

    async def append(self, batch: Batch) -> None:
        """Settle every pending event: `stored` or `duplicate` after the commit, else `retry`."""
        await self.writer.append(batch)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit what is appended until `stop`; a crash of it leaves no batch waiting."""
        await self.writer.run(task_status=task_status)

    def stop(self) -> None:
        """Take no more batches; `run` ends when what was taken is committed."""
        self.writer.close()

    async def close(self) -> None:
        """Close all files and give the directory back. `run` must have ended."""
        await self._in_thread(self._close)

    # --- opening, thread-side ---

    def _open(self) -> tuple[HotFile, Hasher]:
        self._take_directory()
        try:
            self.manifest = Manifest(self.directory)
            hasher = Hasher(self.manifest.secret("ids"))
            hot = self._open_hot_files()
        except BaseException:
            self._close()
            raise
        return hot, hasher

    def _take_directory(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        self._lock = os.open(self.directory / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = None
            message = f"another daemon works in {self.directory}; stop it, or give this one its own"
            raise DirectoryInUse(message) from None

    def _open_hot_files(self) -> HotFile:
        current = None
        for entry in self.manifest.hot_files():
            if entry.state in {"open", "closed"} and (hot := self._open_hot(entry.number)):
                current = hot if entry.state == "open" else current
        return current or self._begin_hot()

    def _open_hot(self, number: int) -> HotFile | None:
        path = hot_path(self.directory, number)
        try:
            hot = HotFile.open(path, number, full=self._durable)
        except ShardCorrupt as error:
            self._set_aside(path, number, str(error))
            return None
        for recv, ids in hot.ids():
            self.ids.add_unknown(as_hashes(ids), recv)
        self._hot[number] = hot
        return hot

    def _begin_hot(self) -> HotFile:
        number = self.manifest.begin_hot(self._now_ms())
        hot = HotFile.open(hot_path(self.directory, number), number, full=self._durable)
        self._hot[number] = hot
        return hot

    def _set_aside(self, path: Path, number: int, why: str) -> None:
        for suffix in ("", "-wal", "-shm"):
            file = path.with_name(path.name + suffix)
            if file.exists():
                file.rename(path.with_name(f"{path.name}.corrupt-{number}{suffix}"))
        self.manifest.mark_hot(number, "corrupt")
        self.troubles.append(f"{path.name} is damaged and was set aside: {why}")

    def _close(self) -> None:
        for hot in self._hot.values():
            hot.close()
        if hasattr(self, "manifest"):
            self.manifest.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)
