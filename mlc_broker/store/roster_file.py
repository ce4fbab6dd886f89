"""`roster.db`: where the roster survives. Sync: call it in a worker thread, one call at a time.

Every write is one transaction, so that a failed import leaves what was there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import msgspec
from sqlite_utils import Database, Migrations

from mlc_broker.model.errors import StoreError
from mlc_broker.model.event import rfc3339
from mlc_broker.model.person import KINDS, RECORD_TYPES, ConsentEntry, Enrollment, Kind
from mlc_broker.store.consents import Consents
from mlc_broker.store.roster_memory import Change, Memory
from mlc_broker.store.schema import sqlite3

CONSENT_COLUMNS = "organization_id, user_id, category, purpose, word, given_by, basis, at"

migrations = Migrations("mlc_broker.roster")


@migrations()
def people_and_places(db: Any) -> None:
    """Create a table for each kind of record, and the history of consents."""
    key = "organization_id TEXT NOT NULL, id TEXT NOT NULL, record TEXT NOT NULL"
    feed = "from_feed INTEGER NOT NULL DEFAULT 0"
    for kind in ("organizations", "users", "classes"):
        db.execute(
            f"CREATE TABLE {kind}({key}, {feed}, PRIMARY KEY(organization_id, id)) WITHOUT ROWID"
        )
    db.execute(
        f"CREATE TABLE enrollments({key}, {feed}, user_id TEXT NOT NULL, class_id TEXT NOT NULL,"
        " PRIMARY KEY(organization_id, id)) WITHOUT ROWID"
    )
    db.execute("CREATE INDEX enrollments_of_user ON enrollments(organization_id, user_id)")
    db.execute("CREATE INDEX enrollments_of_class ON enrollments(organization_id, class_id)")
    db.execute(
        "CREATE TABLE consents(id INTEGER PRIMARY KEY, organization_id TEXT NOT NULL,"
        " user_id TEXT NOT NULL, category TEXT NOT NULL, purpose TEXT NOT NULL,"
        " word TEXT NOT NULL, given_by TEXT NOT NULL, basis TEXT NOT NULL, at TEXT NOT NULL)"
    )
    db.execute("CREATE INDEX consents_of_user ON consents(organization_id, user_id)")


class RosterFile:
    """The one connection that writes `roster.db`."""

    def __init__(self, path: Path, *, busy_ms_max: int = 5_000) -> None:
        self._path = path
        self._busy_ms_max = busy_ms_max
        self._db: Any = None
        self._version = 0

    def open(self) -> None:
        """Open the file, make it where there is none, and bring its tables up to date."""
        with self._complaints("opened"):
            if not self._path.exists():
                self._path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(
                str(self._path), isolation_level=None, check_same_thread=False
            )
            self._db = Database(connection)
            self._db.execute(f"PRAGMA busy_timeout={self._busy_ms_max}")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            # Who was erased leaves no trace in pages that are free.
            self._db.execute("PRAGMA secure_delete=ON")
            migrations.apply(self._db)
            self._version = self._data_version()

    def close(self) -> None:
        """Close the file; the last to close folds the write-ahead log into it."""
        if self._db is not None:
            self._db.conn.close()
            self._db = None

    def changed_outside(self) -> bool:
        """Return whether another process wrote since the last look. Costs microseconds."""
        version = self._data_version()
        changed = version != self._version
        self._version = version
        return changed

    def load(self, memory: Memory, consents: Consents) -> None:
        """Read everything into memory."""
        with self._complaints("read"), self._transaction("DEFERRED"):
            for kind in KINDS:
                decode = msgspec.json.Decoder(RECORD_TYPES[kind]).decode
                for org, key, text in self._rows(f"SELECT organization_id, id, record FROM {kind}"):
                    memory.apply(
                        Change(kind=kind, organization_id=org, id=key, record=decode(text))
                    )
            for org, user, *words in self._rows(
                f"SELECT {CONSENT_COLUMNS} FROM consents ORDER BY id"
            ):
                consents.add(org, user, [_consent(words)])

    def write(self, changes: Iterable[Change]) -> None:
        """Make the changes durable: all of them, or none.

        They were worked out from what was read: when another process wrote since, none.
        """
        with self._complaints("written"), self._transaction():
            if self._data_version() != self._version:
                raise StoreError(
                    "The roster was changed by another process meanwhile.", hint="try again"
                )
            for (kind, is_put), group in groupby(changes, key=_how):
                if is_put:
                    self._put(kind, list(group))
                else:
                    for change in group:
                        self._delete(change.kind, change.organization_id, change.id)

    def add_consents(self, org: str, user: str, entries: Sequence[ConsentEntry]) -> None:
        """Add words to a person's history."""
        with self._complaints("written"), self._transaction():
            self._db.conn.executemany(
                f"INSERT INTO consents({CONSENT_COLUMNS}) VALUES(?,?,?,?,?,?,?,?)",
                [
                    (org, user, e.category, e.purpose, e.word, e.given_by, e.basis, rfc3339(e.at))
                    for e in entries
                ],
            )

    def consents_of(self, org: str, user: str) -> list[ConsentEntry]:
        """Return a person's history of consent, oldest first."""
        with self._complaints("read"):
            rows = self._rows(
                f"SELECT {CONSENT_COLUMNS} FROM consents WHERE organization_id=? AND user_id=?"
                " ORDER BY id",
                (org, user),
            )
            return [_consent(words) for _, _, *words in rows]

    def from_feed(self, kind: Kind, org: str) -> set[str]:
        """Return the ids of the organization's records that a OneRoster file brought."""
        with self._complaints("read"):
            rows = self._rows(
                f"SELECT id FROM {kind} WHERE organization_id=? AND from_feed", (org,)
            )
            return {key for (key,) in rows}

    def erase_person(self, org: str, user: str, scrubbed: Iterable[Change]) -> dict[str, int]:
        """Remove the person's rows and consents, put the `scrubbed` records; count what went.

        The write-ahead log is emptied too.
        """
        with self._complaints("written"):
            with self._transaction():
                gone = {
                    "users": self._run(
                        "DELETE FROM users WHERE organization_id=? AND id=?", org, user
                    ),
                    "enrollments": self._run(
                        "DELETE FROM enrollments WHERE organization_id=? AND user_id=?", org, user
                    ),
                    "consents": self._run(
                        "DELETE FROM consents WHERE organization_id=? AND user_id=?", org, user
                    ),
                }
                for change in scrubbed:
                    self._put(change.kind, [change])
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return gone

    def _put(self, kind: Kind, changes: list[Change]) -> None:
        extra = ", user_id, class_id" if kind == "enrollments" else ""
        update = ", user_id=excluded.user_id, class_id=excluded.class_id" if extra else ""
        encode = msgspec.json.encode
        self._db.conn.executemany(
            f"INSERT INTO {kind}(organization_id, id, record, from_feed{extra})"
            f" VALUES(?,?,?,?{',?,?' if extra else ''})"
            " ON CONFLICT(organization_id, id) DO UPDATE SET record=excluded.record,"
            f" from_feed=max(from_feed, excluded.from_feed){update}",
            [
                (
                    change.organization_id,
                    change.id,
                    encode(change.record).decode(),
                    int(change.from_feed),
                    *_indexed(change),
                )
                for change in changes
            ],
        )
        for change in changes:
            if change.moved_from is not None:
                self._move(change.id, change.moved_from, change.organization_id)

    def _move(self, user: str, old: str, new: str) -> None:
        # A word once given holds wherever the person goes; the old history stays where it is.
        columns = CONSENT_COLUMNS.removeprefix("organization_id, ")
        self._run(
            f"INSERT INTO consents({CONSENT_COLUMNS}) SELECT ?, {columns} FROM consents"
            " WHERE organization_id=? AND user_id=? ORDER BY id",
            new,
            old,
            user,
        )
        self._delete("users", old, user)

    def _delete(self, kind: Kind, org: str, key: str) -> None:
        if kind == "organizations":
            for table in (*get_args(Kind), "consents"):
                self._run(f"DELETE FROM {table} WHERE organization_id=?", org)
            return
        self._run(f"DELETE FROM {kind} WHERE organization_id=? AND id=?", org, key)
        if kind in {"users", "classes"}:
            column = "user_id" if kind == "users" else "class_id"
            self._run(f"DELETE FROM enrollments WHERE organization_id=? AND {column}=?", org, key)

    def _run(self, sql: str, *values: str) -> int:
        return int(self._db.conn.execute(sql, values).rowcount)

    def _rows(self, sql: str, values: tuple[str, ...] = ()) -> Iterator[Any]:
        return iter(self._db.conn.execute(sql, values))

    def _data_version(self) -> int:
        with self._complaints("read"):
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        connection = self._db.conn
        connection.execute(f"BEGIN {kind}")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk may have rolled back already
                connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _complaints(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self._path.name} cannot be {what}: {error}.", hint=_hint(str(error))
            ) from error
        except (msgspec.DecodeError, OSError) as error:
            raise StoreError(
                f"{self._path.name} cannot be {what}: {error}.",
                hint="restore it from a backup, or move it away and import the roster again",
            ) from error


def _how(change: Change) -> tuple[Kind, bool]:
    return change.kind, change.record is not None


def _indexed(change: Change) -> tuple[str, ...]:
    record = change.record
    return (record.user_id, record.class_id) if isinstance(record, Enrollment) else ()


def _consent(words: list[str]) -> ConsentEntry:
    category, purpose, word, given_by, basis, at = words
    return msgspec.convert(
        {
            "category": category,
            "purpose": purpose,
            "word": word,
            "given_by": given_by,
            "basis": basis,
            "at": datetime.fromisoformat(at),
        },
        ConsentEntry,
    )


def _hint(error: str) -> str:
    if "locked" in error:
        return "another process writes the roster; try again when it is done"
    if "full" in error:
        return "free some space on the disk"
    if "malformed" in error or "not a database" in error:
        return "restore it from a backup, or move it away and import the roster again"
    return "look at the disk and at the file's permissions"
