"""A copy of everything, made while commits go on; and back again, checked to the last byte.

Each SQLite file is copied by `VACUUM INTO`, whole and without a WAL; sealing waits meanwhile, so the
files fit each other. The order matters: what counts or lists events is copied before the events, so
that it never knows more than they do. The manifest is written last: without it, it is no backup.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from hashlib import blake2b
from pathlib import Path

import msgspec
from msgspec import Struct

from mlc_broker.model.errors import StoreError
from mlc_broker.store.care.erased import ERASED
from mlc_broker.store.layout import HOT, META, SHARDS
from mlc_broker.store.schema import make_private_directory, sqlite3, sync_directory, sync_file

MANIFEST = "manifest.json"
VERSION = 1
PLAIN = (ERASED, "audit.head")  # copied as they are, before the rest
_CHUNK_BYTES = 1 << 20

Progress = Callable[[str], None]


class Copied(Struct, frozen=True):
    """A file of the backup."""

    path: str  # within the data directory
    bytes: int
    blake2b: str


class Contents(Struct, frozen=True, kw_only=True):
    """The manifest."""

    version: int
    made_at: datetime
    broker: str
    files: list[Copied]

    @property
    def bytes(self) -> int:
        """Size of it all."""
        return sum(file.bytes for file in self.files)


def back_up(
    data: Path, target: Path, *, now: datetime, broker: str, progress: Progress = lambda _: None
) -> Contents:
    """Copy a data directory into `target`, which must be empty or not there.

    Sealing, merging and purging must stand still; commits need not. Raises StoreError, OSError:
    then what is in `target` is no backup, and is left for a look.
    """
    _must_be_empty(target)
    make_private_directory(target.absolute())
    files = []
    for path in _in_order(data):
        relative = path.relative_to(data)
        copy = target / relative
        make_private_directory(copy.parent.absolute())
        progress(str(relative))
        if path.suffix == ".db":
            _vacuum(path, copy)
        else:
            shutil.copyfile(path, copy)
        copy.chmod(0o600)
        sync_file(copy)
        files.append(Copied(str(relative), copy.stat().st_size, _digest(copy)))
    contents = Contents(version=VERSION, made_at=now, broker=broker, files=files)
    draft = target / f"{MANIFEST}.part"
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(contents), indent=1))
    draft.chmod(0o600)
    sync_file(draft)
    draft.rename(target / MANIFEST)
    sync_directory(target)
    return contents


def read_manifest(source: Path) -> Contents:
    """Return what a backup should hold; raises StoreError where it is none."""
    try:
        contents = msgspec.json.decode((source / MANIFEST).read_bytes(), type=Contents)
    except FileNotFoundError:
        raise StoreError(f"{source} is no whole backup", hint=f"it has no {MANIFEST}") from None
    except msgspec.DecodeError as error:
        raise StoreError(f"{source / MANIFEST} cannot be read: {error}") from None
    if contents.version > VERSION:
        raise StoreError(f"{source} is of a newer mlc-broker", hint="restore it with that one")
    for file in contents.files:
        path = Path(file.path)
        if path.is_absolute() or ".." in path.parts:
            raise StoreError(f"{source / MANIFEST} names a file outside: {file.path}")
    return contents


def check(source: Path) -> Contents:
    """Read every byte of a backup; raises StoreError at the first that is not as it was."""
    contents = read_manifest(source)
    for file in contents.files:
        path = source / file.path
        if not path.is_file():
            raise StoreError(f"{path} is missing from the backup")
        if path.stat().st_size != file.bytes or _digest(path) != file.blake2b:
            raise StoreError(f"{path} is not as it was written", hint="take another backup")
    return contents


def restore(source: Path, data: Path, *, progress: Progress = lambda _: None) -> Contents:
    """Put a backup into an empty data directory, checked before and after. Raises StoreError."""
    contents = check(source)
    _must_be_empty(data)
    make_private_directory(data.absolute())
    for file in contents.files:
        progress(file.path)
        copy = data / file.path
        make_private_directory(copy.parent.absolute())
        shutil.copyfile(source / file.path, copy)
        copy.chmod(0o600)
        sync_file(copy)
        if _digest(copy) != file.blake2b:
            raise StoreError(f"{copy} did not arrive whole", hint="look at the disk")
    return contents


def _in_order(data: Path) -> Iterator[Path]:
    yield from (data / name for name in PLAIN if (data / name).exists())
    rest = sorted(path for path in data.glob("*.db") if path.name != META)
    yield from rest
    yield data / META
    yield from sorted((data / SHARDS).glob("*/*/*.db"))
    yield from sorted((data / HOT).glob("*.db"))


def _vacuum(path: Path, copy: Path) -> None:
    # A connection of its own, which only reads: SQLite's locks of this process stay as they are.
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA busy_timeout=5000")
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("VACUUM INTO ?", (str(copy),))
    except sqlite3.Error as error:
        raise StoreError(f"{path.name} could not be copied: {error}") from error


def _must_be_empty(directory: Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise StoreError(
            f"{directory} is not empty", hint="name a directory that is, or is not yet"
        )


def _digest(path: Path) -> str:
    digest = blake2b(digest_size=32)
    with path.open("rb") as file:
        while part := file.read(_CHUNK_BYTES):
            digest.update(part)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest.hexdigest()
