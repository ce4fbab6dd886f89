"""The files of one data directory: found and opened at start, shown to readers as one view."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from mlc_broker.model.errors import DirectoryInUse, ShardCorrupt, ShardUnavailable
from mlc_broker.runtime.crashpoint import crash_point
from mlc_broker.store.disk import Disk
from mlc_broker.store.holds import Held, held_by
from mlc_broker.store.hot import WAL_BYTES_MAX, HotFile, storage_error
from mlc_broker.store.ids import Ids, as_hashes, is_ids
from mlc_broker.store.layout import HOT, LOCK, META, SHARDS, Home, home_path, hot_path
from mlc_broker.store.manifest import HomeEntry, HotEntry, Manifest
from mlc_broker.store.schema import READ_ERRORS, make_private_directory, open_reader
from mlc_broker.store.select import Selection, mentions
from mlc_broker.store.view import FileView, HomeView, HotView

_SIDE_FILES = ("-wal", "-shm", "-journal")


class Files:
    """What there is. Opened thread-side; then changed and viewed on the event loop only."""

    def __init__(
        self, directory: Path, *, durable: bool, disk: Disk, wal_bytes_max: int = WAL_BYTES_MAX
    ) -> None:
        self.directory = directory
        self.disk = disk
        self.troubles: list[str] = []  # what was found broken, for the log and /healthz
        self.hot: dict[int, HotFile] = {}
        self.entries: dict[int, HotEntry] = {}  # of the hot files, by number
        self.homes: dict[Home, HomeEntry] = {}
        self.run = 0  # the last run of sealing that is in force
        self.hidden: frozenset[tuple[str, str]] = frozenset()
        self.held: Held = frozenset()  # legal holds: neither expiry nor erasure takes these
        self.manifest: Manifest
        self._durable = durable
        self._wal_bytes_max = wal_bytes_max
        self._lock: int | None = None

    def open(self, ids: Ids, now_ms: int, window_ms: int) -> HotFile:
        """Take the directory, open what is there; return the hot file that takes commits.

        Raises DirectoryInUse, ShardUnavailable. A damaged hot file is set aside.
        """
        try:
            self._take_directory()
            self.disk.look()  # on a full disk nothing can be opened before the ballast is gone
            self.manifest = Manifest(self.directory)
            self.homes = {entry.home: entry for entry in self.manifest.homes()}
            self.run = self.manifest.number("run")
            self.hidden = self.manifest.tombstones()
            self.held = held_by(self.manifest.holds())
            self._sweep()
            current = self._open_hot_files() or self.begin_hot(now_ms)
            self._remember_ids(ids, now_ms, window_ms)
        except READ_ERRORS as error:
            self.close()
            raise storage_error(error, self.directory / META) from error
        except OSError as error:
            self.close()
            hint = "look at the disk, at the owner of the directory and its permissions"
            raise ShardUnavailable(f"{error.filename}: {error.strerror}", hint=hint) from error
        except BaseException:
            self.close()
            raise
        return current

    def begin_hot(self, now_ms: int) -> HotFile:
        """Make the next hot file; thread-side."""
        number = self.manifest.begin_hot(now_ms)
        crash_point("rotate.after_manifest")
        hot = self._open_hot(number)
        # New dicts, the entries first: the event loop may be walking through these.
        self.entries = {entry.number: entry for entry in self.manifest.hot_files()}
        self.hot = self.hot | {number: hot}
        return hot

    def views(self, wanted: Selection) -> list[FileView]:
        """Return the files that may hold what is wanted, newest first. Shows each event once."""
        begin, end = wanted.begin_ms, wanted.end_ms
        found: list[FileView] = []
        for number, hot in self.hot.items():
            entries = hot.index.find(mentions(hot.dictionary, wanted), begin, end)
            entries = entries[entries["key"] >= self._sealed_upto(number)]
            if len(entries):
                t0, t1 = int(entries["t0"].min()), int(entries["t1"].max())
                found.append(HotView(hot.path, t0, t1, entries, hot.dictionary))
        for home in self.homes.values():
            early = begin is not None and home.t1 < begin
            late = end is not None and home.t0 >= end
            if home.n and not early and not late and home.expires_ms > wanted.now_ms:
                path = home_path(self.directory, home.home, home.version)
                found.append(HomeView(path, home.t0, home.t1, self.run))
        return sorted(found, key=lambda file: -file.t1)

    def views_after(self, sequence: int) -> list[HotView]:
        """Return all that hot files still hold from this sequence on, in order of arrival.

        For whoever follows commits by a cursor: events that are sealed already are among them.
        """
        found = []
        for _, hot in sorted(self.hot.items()):
            entries = hot.index.entries
            entries = entries[entries["key"] + entries["n"] > sequence]
            if len(entries):
                t0, t1 = int(entries["t0"].min()), int(entries["t1"].max())
                found.append(HotView(hot.path, t0, t1, entries, hot.dictionary))
        return found

    def oldest_unsealed_ms(self, now_ms: int) -> int:
        """Return the earliest time of receipt among events that no home has (epoch ms)."""
        oldest = now_ms
        for number, hot in self.hot.items():
            entries = hot.index.entries
            left = entries[entries["key"] >= self._sealed_upto(number)]
            if len(left):
                oldest = min(oldest, int(left["recv"].min()))
        return oldest

    def remove_hot(self, number: int) -> None:
        """Close and unlink a hot file whose events are all in homes; thread-side."""
        self._out_of_view(number)
        self.manifest.forget_hot(number)
        crash_point("release.before_unlink")
        unlink(hot_path(self.directory, number))

    def close(self) -> None:
        """Close all and give the directory back."""
        for hot in self.hot.values():
            hot.close()
        if hasattr(self, "manifest"):
            self.manifest.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_directory(self) -> None:
        make_private_directory(self.directory)
        self.directory.chmod(0o700)
        lock = os.open(self.directory / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            message = f"another daemon works in {self.directory}: stop it, or give this one its own"
            raise DirectoryInUse(message) from None
        self._lock = lock

    def _sweep(self) -> None:
        # What a crash left behind: a home half rewritten, a version no longer in force, a hot file
        # that the manifest has forgotten.
        valid = {
            home_path(self.directory, entry.home, entry.version) for entry in self.homes.values()
        }
        for path in (self.directory / SHARDS).glob("*/*/*.*.db"):
            if path not in valid:
                unlink(path)
        for entry in self.homes.values():
            plain = home_path(self.directory, entry.home, 0)
            if plain not in valid:
                unlink(plain)
        numbers = {entry.number for entry in self.manifest.hot_files()}
        for path in (self.directory / HOT).glob("*.db"):
            if path.stem.isdigit() and int(path.stem) not in numbers:
                unlink(path)

    def _open_hot_files(self) -> HotFile | None:
        current = None
        for entry in self.manifest.hot_files():
            if entry.state == "corrupt":
                continue
            try:
                hot = self._open_hot(entry.number)
            except ShardCorrupt as error:
                self.set_aside(entry.number, str(error))
                continue
            self.hot[entry.number] = hot
            self.entries[entry.number] = entry
            current = hot if entry.state == "open" else current
        return current

    def set_aside(self, number: int, why: str) -> None:
        """Close and rename a damaged hot file, and note it; thread-side."""
        self._out_of_view(number)
        path = hot_path(self.directory, number)
        _rename(path, f"{path.name}.corrupt-{number}")
        self.manifest.mark_hot(number, "corrupt")
        self.troubles.append(f"{path.name} is damaged and was set aside: {why}")

    def set_aside_home(self, entry: HomeEntry, why: str) -> None:
        """Rename a damaged home, and forget it: what comes for it begins a new one; thread-side."""
        path = home_path(self.directory, entry.home, entry.version)
        self.homes = {home: known for home, known in self.homes.items() if home != entry.home}
        self.manifest.forget_home(entry.home)
        number = 1
        while path.with_name(f"{path.name}.corrupt-{number}").exists():
            number += 1
        _rename(path, f"{path.name}.corrupt-{number}")
        self.troubles.append(f"{entry.home.path} is damaged and was set aside: {why}")

    def _open_hot(self, number: int) -> HotFile:
        path = hot_path(self.directory, number)
        return HotFile.open(path, number, full=self._durable, wal_bytes_max=self._wal_bytes_max)

    def _out_of_view(self, number: int) -> None:
        hot = self.hot.get(number)
        self.hot = {key: known for key, known in self.hot.items() if key != number}
        self.entries = {key: known for key, known in self.entries.items() if key != number}
        if hot is not None:
            hot.close()

    def _sealed_upto(self, number: int) -> int:
        entry = self.entries.get(number)
        return _ALL if entry is None else entry.sealed_upto  # begun or removed this very moment

    def _remember_ids(self, ids: Ids, now_ms: int, window_ms: int) -> None:
        since_ms, found = now_ms - window_ms, list[tuple[int, bytes]]()
        for number, hot in self.hot.items():
            ids_of_file = hot.take_ids()
            if self.entries[number].state != "sealed":
                found += ids_of_file
        for entry in self.homes.values():
            if entry.recv >= since_ms:
                path = home_path(self.directory, entry.home, entry.version)
                try:
                    found += _ids_since(path, since_ms)
                except READ_ERRORS as error:  # the others still serve
                    self.troubles.append(f"{entry.home.path} is damaged: {error}")
        ages: dict[int, list[tuple[int, bytes]]] = {}  # what is forgotten together, together
        for item in found:
            ages.setdefault(max(item[0], since_ms) // (window_ms // 4), []).append(item)
        for _, some in sorted(ages.items()):
            hashes = as_hashes(b"".join(blob for _, blob in some))
            ids.load(hashes, max(recv for recv, _ in some))


_ALL = 2**63 - 1


def _ids_since(path: Path, since_ms: int) -> list[tuple[int, bytes]]:
    connection = open_reader(path)
    try:
        query = "SELECT recv, ids FROM pack WHERE recv >= ?"
        rows = connection.execute(query, (since_ms,)).fetchall()
        return [row for row in rows if type(row[0]) is int and is_ids(row[1])]
    finally:
        connection.close()


def _rename(path: Path, name: str) -> None:
    for suffix in ("", *_SIDE_FILES):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(path.with_name(name + suffix))


def unlink(path: Path) -> None:
    """Remove a SQLite file that nobody has open for writing, with what stands beside it."""
    for suffix in (*_SIDE_FILES, ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
