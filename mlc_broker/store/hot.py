"""The file that takes every commit: one row a commit, one statement, one fsync.

Sync, and used by one thread at a time; the dictionary and the index beside it are the caller's,
who grows them on the event loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import msgspec
import zstandard
from msgspec import Struct

from mlc_broker.model.errors import ShardCorrupt, ShardUnavailable
from mlc_broker.runtime.crashpoint import crash_point
from mlc_broker.store.columns import Dictionary, Rows
from mlc_broker.store.index import PackIndex
from mlc_broker.store.pack import COLUMNS, ID_BYTES, Pack
from mlc_broker.store.schema import READ_ERRORS, hot_file, open_writer, sqlite3

SEQUENCE_BITS = 40  # a sequence is the file's number, then the event's place in the file
PAGE_BYTES = 8192
WAL_BYTES_MAX = 32 * 1024 * 1024  # then it is checkpointed
CACHE_KIB = 65_536
VERIFIED_AT_OPEN_PACKS = 64  # the newest: what a crash or a torn write can have touched
_FIELDS = "seq, word0, words, " + ", ".join(COLUMNS)
_INSERT = f"INSERT INTO pack({_FIELDS}) VALUES({','.join('?' * (len(COLUMNS) + 3))})"
_HEADS = "SELECT seq, n, recv, word0, words, ids, cols FROM pack ORDER BY seq"


# What reading back a damaged file may raise, besides SQLite's own errors.
_DAMAGE = (
    ShardCorrupt,
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
    msgspec.MsgspecError,
    zstandard.ZstdError,
)


class HotFile:
    """One hot file, open for appending."""

    def __init__(
        self, path: Path, number: int, *, full: bool = True, wal_bytes_max: int = WAL_BYTES_MAX
    ) -> None:
        self.path = path
        self.number = number
        self.dictionary = Dictionary()
        self.index = PackIndex()
        self.first_sequence = self.next_sequence = number << SEQUENCE_BITS
        self.saved_words = 1  # how many of the dictionary's words lie in the file
        self.suspect = False  # an I/O error: reopened and recounted before the next commit
        self._full = full
        self._wal_bytes_max = wal_bytes_max
        self._db: Any = None
        self._ids: list[tuple[int, bytes]] = []

    @classmethod
    def open(
        cls, path: Path, number: int, *, full: bool = True, wal_bytes_max: int = WAL_BYTES_MAX
    ) -> Self:
        """Open or make the file, and read back what its packs say.

        Raises ShardCorrupt when it is damaged, ShardUnavailable when it cannot be opened now.
        """
        hot = cls(path, number, full=full, wal_bytes_max=wal_bytes_max)
        hot._connect()
        try:
            for row in hot._db.execute(_HEADS):
                hot._read_back(*row)
            hot._verify_newest()
        except sqlite3.DatabaseError as error:
            hot.close()
            raise storage_error(error, path) from error
        except _DAMAGE as error:
            hot.close()
            raise ShardCorrupt(f"{path.name}: {error}") from error
        return hot

    @property
    def size_bytes(self) -> int:
        """Size of the file and its WAL on disk, in bytes."""
        return _size(self.path) + self.wal_bytes

    @property
    def wal_bytes(self) -> int:
        """Size of the WAL, in bytes; it grows while a reader holds what it was."""
        return _size(self.path.with_name(self.path.name + "-wal"))

    def append(self, pack: Pack, words: list[str], word0: int) -> int:
        """Commit a pack; return the sequence of its first event.

        `words` are new in the dictionary since the last commit, the first with the code `word0`.
        Raises ShardUnavailable; after an I/O error the file must be `reopen`ed first.
        """
        sequence = self.next_sequence
        new_words = msgspec.msgpack.encode(words) if words else None
        crash_point("append.before_commit")
        try:
            self._db.execute(_INSERT, (sequence, word0, new_words, *pack.to_row()))
        except sqlite3.Error as error:
            self.suspect = not is_full(error)
            raise storage_error(error, self.path) from error
        crash_point("append.after_commit")
        self.next_sequence = sequence + pack.n
        self.saved_words = word0 + len(words)
        return sequence

    def reopen(self) -> None:
        """Close and open the file after an I/O error, and make it hold what was said to be stored.

        A row whose commit failed may be there all the same. It is taken out: its events were
        answered `retry`, and nothing vouches for its bytes.
        """
        self.close()
        self._connect()
        try:
            self._db.execute("DELETE FROM pack WHERE seq >= ?", (self.next_sequence,))
            last = "SELECT seq + n FROM pack ORDER BY seq DESC LIMIT 1"
            found = self._db.execute(last).fetchone()
        except sqlite3.Error as error:
            raise storage_error(error, self.path) from error
        if found is not None and found[0] != self.next_sequence:
            raise ShardCorrupt(f"{self.path.name} lost commits after an I/O error")
        if found is None and self.next_sequence != self.first_sequence:
            raise ShardCorrupt(f"{self.path.name} lost all commits after an I/O error")
        self.suspect = False

    def note(self, sequence: int, recv: int, rows: Rows) -> None:
        """Put a committed pack into the index."""
        self.index.add(sequence, recv, rows)

    def take_ids(self) -> list[tuple[int, bytes]]:
        """Return (latest receipt in epoch ms, packed ids) of each pack read at opening, once."""
        taken, self._ids = self._ids, []
        return taken

    def probe(self) -> None:
        """Write and sync something that changes nothing: raises when commits would fail too."""
        if self.suspect:
            self.reopen()
        try:
            self._db.execute("PRAGMA user_version=1")
        except sqlite3.Error as error:
            self.suspect = not is_full(error)
            raise storage_error(error, self.path) from error

    def checkpoint(self) -> None:
        """Move the WAL into the file and empty it, unless somebody reads from it."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise storage_error(error, self.path) from error

    def close(self) -> None:
        """Close the connection; may be called twice."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _connect(self) -> None:
        try:
            db = open_writer(self.path, hot_file, page_bytes=PAGE_BYTES, full=self._full)
        except READ_ERRORS as error:
            raise storage_error(error, self.path) from error
        db.execute(f"PRAGMA wal_autocheckpoint={max(1, self._wal_bytes_max // PAGE_BYTES)}")
        db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        self._db = db

    def _read_back(
        self, sequence: int, n: int, recv: int, word0: int, words: Any, ids: Any, cols: Any
    ) -> None:
        if sequence != self.next_sequence or len(ids) != n * ID_BYTES:
            raise ShardCorrupt(f"commit {sequence} is not the one expected")
        if words is not None:
            if word0 != len(self.dictionary):
                raise ShardCorrupt(f"commit {sequence} has words that do not follow")
            self.dictionary.extend(msgspec.msgpack.decode(words, type=list[str]))
        head = Pack(n, 0, 0, recv, ids, cols, b"", b"", b"")
        self.index.add(sequence, recv, head.columns())
        self._ids.append((recv, ids))
        self.next_sequence = sequence + n
        self.saved_words = len(self.dictionary)

    def _verify_newest(self) -> None:
        query = f"SELECT {', '.join(COLUMNS)} FROM pack ORDER BY seq DESC LIMIT ?"
        for row in self._db.execute(query, (VERIFIED_AT_OPEN_PACKS,)):
            Pack.from_row(row).verify()


class Committed(Struct, frozen=True, gc=False):
    """What one commit stored."""

    events: list[Any]  # of Event, in the order of the commit
    rows: Rows  # their packed columns, in the same order
    pack: Pack
    hot: int  # number of the hot file
    sequence: int  # of the first event
    stored_at: str


def file_of(sequence: int) -> int:
    """Return the number of the hot file that holds the event of that sequence."""
    return sequence >> SEQUENCE_BITS


def is_full(error: Exception) -> bool:
    """Whether SQLite rolled back by itself and the next commit may well succeed."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in {5, 6, 13}  # BUSY, LOCKED, FULL


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def storage_error(error: Exception, path: Path) -> ShardCorrupt | ShardUnavailable:
    """Return our word for what SQLite says about a file."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    if code in {1, 11, 26} or isinstance(error, UnicodeDecodeError):  # ERROR, CORRUPT, NOTADB
        return ShardCorrupt(f"{path.name}: {error} ({name})")
    hint = "free some disk space" if code == 13 else "look at the disk and its permissions"
    return ShardUnavailable(f"{path.name}: {error} ({name})", hint=hint)
