"""Tables, migrations and connections. One SQLite library for every file: the one named here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database, utils
from sqlite_utils.migrations import Migrations

sqlite3 = utils.sqlite3

# What reading a damaged file raises: pysqlite3 cannot even spell some of SQLite's complaints.
READ_ERRORS = (sqlite3.DatabaseError, UnicodeDecodeError)
APPLICATION_ID = 0x6D6C6362  # "mlcb"
BUSY_MS = 5000

_PACK = """
CREATE TABLE pack(
  {key},                    -- {what}
  n INTEGER NOT NULL, t0 INTEGER NOT NULL, t1 INTEGER NOT NULL, recv INTEGER NOT NULL,{more}
  ids BLOB NOT NULL, cols BLOB NOT NULL, frames BLOB NOT NULL, offs BLOB NOT NULL,
  crc BLOB NOT NULL)
"""

hot_file = Migrations("hot")
home_file = Migrations("home")
meta_file = Migrations("meta")


@hot_file()
def packs_in_order_of_arrival(db: Database) -> None:
    """One row a commit; its new words beside it, so that one statement stays atomic."""
    key, what = "seq INTEGER PRIMARY KEY", "sequence of the commit's first event"
    db.execute(_PACK.format(key=key, what=what, more=" word0 INTEGER NOT NULL, words BLOB,"))


@home_file()
def packs_by_person(db: Database) -> None:
    """Packs of sorted events, the words they use, and what each mentions."""
    key, what = "id INTEGER PRIMARY KEY", "runs one behind the other, sorted within each"
    db.execute(
        _PACK.format(key=key, what=what, more=" run INTEGER NOT NULL, expires INTEGER NOT NULL,")
    )
    db.execute("CREATE INDEX pack_t1 ON pack(t1)")
    db.execute(
        "CREATE TABLE word(code INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE,"
        " is_set INTEGER NOT NULL)"
    )
    db.execute("CREATE INDEX word_sets ON word(code) WHERE is_set")
    db.execute(
        "CREATE TABLE mention(code INTEGER, pack INTEGER, PRIMARY KEY(code, pack)) WITHOUT ROWID"
    )
    db.execute("CREATE TABLE taken(hot INTEGER PRIMARY KEY, upto INTEGER NOT NULL)")


@meta_file()
def what_there_is(db: Database) -> None:
    """The manifest: secrets, hot files and how far they are sealed, homes, tombstones."""
    db.execute("CREATE TABLE number(name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
    db.execute("CREATE TABLE secret(name TEXT PRIMARY KEY, value BLOB NOT NULL)")
    db.execute(
        "CREATE TABLE hot(number INTEGER PRIMARY KEY, begun_ms INTEGER NOT NULL,"
        " state TEXT NOT NULL, sealed_upto INTEGER NOT NULL, sealing_upto INTEGER NOT NULL)"
    )
    db.execute(
        "CREATE TABLE home(path TEXT PRIMARY KEY, version INTEGER NOT NULL,"
        " merged INTEGER NOT NULL, n INTEGER NOT NULL, t0 INTEGER NOT NULL, t1 INTEGER NOT NULL,"
        " expires_ms INTEGER NOT NULL, recv INTEGER NOT NULL)"
    )
    db.execute(
        "CREATE TABLE tombstone(organization_id TEXT, user_id TEXT, at_ms INTEGER NOT NULL,"
        " PRIMARY KEY(organization_id, user_id)) WITHOUT ROWID"
    )


@meta_file()
def what_must_stay(db: Database) -> None:
    """Legal holds; user_id is empty where all of an organization is held."""
    db.execute(
        "CREATE TABLE hold(organization_id TEXT, user_id TEXT, pseudonym TEXT NOT NULL,"
        " reason TEXT NOT NULL, set_by TEXT NOT NULL, at_ms INTEGER NOT NULL,"
        " PRIMARY KEY(organization_id, user_id)) WITHOUT ROWID"
    )


def open_writer(
    path: Path, migrations: Migrations, *, page_bytes: int = 4096, full: bool = True
) -> Any:
    """Open the one connection that writes and checkpoints this file; make or migrate its tables.

    It commits each statement at once unless told BEGIN. `full`: fsync before a commit returns.
    """
    _make_private(path)
    connection = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)
    connection.text_factory = _text
    try:
        connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        connection.execute(f"PRAGMA page_size={page_bytes}")
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        migrations.apply(Database(connection))
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> Any:
    """Open a connection that can only read, for one thread at a time."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro{_immutable(path)}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = _text
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    connection.execute("PRAGMA query_only=ON")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    return connection


@contextmanager
def transaction(connection: Any) -> Iterator[None]:
    """BEGIN IMMEDIATE … COMMIT, or ROLLBACK when something is raised."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def sync_file(path: Path) -> None:
    """Make a file survive a power cut, and its name. Never of a file that SQLite has open here."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    sync_directory(path.parent)


def _text(raw: bytes) -> str:
    # A flipped bit can make a blob pass as text: checksums find that, not the decoder.
    return raw.decode("utf-8", "replace")


def _immutable(path: Path) -> str:
    # Where nobody can write, SQLite cannot make the files that readers of a WAL share. Without a
    # WAL there is nothing that they would have to tell each other.
    if os.access(path.parent, os.W_OK):
        return ""
    wal = path.with_name(path.name + "-wal")
    return "" if wal.exists() and wal.stat().st_size else "&immutable=1"


def _make_private(path: Path) -> None:
    # Made before SQLite sees it, so that no other user ever could read it. An existing file is
    # never opened here: closing it again would drop SQLite's locks on it.
    make_private_directory(path.parent)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        sync_directory(path.parent)


def make_private_directory(directory: Path) -> None:
    """Make a directory, and those above it that are missing, for us alone; durable."""
    if directory.is_dir():
        return
    make_private_directory(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make names just made, moved or removed in this directory survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
