"""The access log: who read whose events. A hash chain, committed before the bytes leave.

Each entry is sealed with a keyed hash over the seal before it, so an entry that was changed, left
out or moved breaks the chain; the last seal stands, sealed again, in a second file, so that entries
missing at the end are noticed too. Whoever takes back both files to an older copy is found out only
by comparing `head` with one noted elsewhere.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import trio
from msgspec import Struct
from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from mlc_broker.model.errors import StoreError
from mlc_broker.model.event import rfc3339
from mlc_broker.runtime.clock import Clock
from mlc_broker.store.audit_entry import NO_SEAL, Entry, Head, Verdict, seal_of
from mlc_broker.store.schema import open_reader, open_writer, sqlite3, transaction
from mlc_broker.store.writer import InThread

SUBJECTS_MAX = 1000  # people named in one entry; of more, the number is told
LISTED_MAX = 1000

audit_file = Migrations("audit")


@audit_file()
def entries_and_whom_they_touch(db: Database) -> None:
    """The chain, and two ways to find entries: by organization and by person."""
    db.execute(
        "CREATE TABLE entry(number INTEGER PRIMARY KEY, body BLOB NOT NULL, seal BLOB NOT NULL)"
    )
    db.execute(
        "CREATE TABLE touched(organization_id TEXT, user_id TEXT, number INTEGER,"
        " PRIMARY KEY(organization_id, user_id, number)) WITHOUT ROWID"
    )


class Wanted(Struct, frozen=True, kw_only=True):
    """Entries asked for. None: no limit on that axis."""

    organization_id: str | None = None  # whose people were read
    user_id: str | None = None  # who was read
    before: int | None = None  # entries with a lower number
    limit: int = 50


class AuditLog:
    """`audit.db`: one writer. `record` returns when the entries are committed."""

    def __init__(
        self,
        path: Path,
        key: bytes,
        *,
        clock: Clock,
        in_thread: InThread = trio.to_thread.run_sync,
    ) -> None:
        """Open or make the file. Raises StoreError; a broken chain is told in `troubles`."""
        self.path = path
        self.troubles: list[str] = []
        self._key = key[:64]
        self._clock = clock
        self._in_thread = in_thread
        self._lock = trio.Lock()
        self._doubtful = False
        self._waiting: list[_Slip] = []
        try:
            self._db = open_writer(path, audit_file)
            self._last, self._seal = _last_of(self._db)
        except sqlite3.Error as error:
            raise StoreError(f"the access log {path.name} cannot be opened: {error}") from error
        told = Head.read(head_path(path), self._key)
        if told is None and self._last:
            self.troubles.append("the access log has no valid head: see `mlc-broker verify`")
        elif told is not None and told.number > self._last:
            self.troubles.append("entries at the end of the access log are missing")

    async def record(self, *entries: Entry) -> None:
        """Commit entries; those that come together share one commit.

        Raises StoreError when they cannot be written: then nothing may be read.
        """
        slip = _Slip([self._dated(entry) for entry in entries])
        self._waiting.append(slip)
        async with self._lock:
            if not slip.done:
                group, self._waiting = self._waiting, []
                with trio.CancelScope(shield=True):
                    await self._commit(group)
        if slip.error is not None:
            raise StoreError(
                f"the access log cannot be written: {slip.error}",
                hint="free disk space, or look at audit.db",
            ) from slip.error

    async def entries(self, wanted: Wanted) -> list[tuple[int, Entry]]:
        """Return entries and their numbers, newest first."""
        found: list[tuple[int, Entry]] = await self._in_thread(self._entries, wanted)
        return found

    async def who_read(
        self, organization_id: str, user_id: str, limit: int = 100
    ) -> list[tuple[int, Entry]]:
        """Return who read this person's events, newest first; large exports may have held them."""
        wanted = Wanted(
            organization_id=organization_id, user_id=user_id, limit=min(limit, LISTED_MAX)
        )
        return await self.entries(wanted)

    @property
    def head(self) -> str:
        """The last entry and its seal, to be noted elsewhere."""
        return f"{self._last}:{self._seal.hex()}"

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # --- writing ---

    def _dated(self, entry: Entry) -> Entry:
        return msgspec.structs.replace(entry, at=rfc3339(self._clock.now()))

    async def _commit(self, group: list[_Slip]) -> None:
        error: Exception | None = None
        try:
            await self._in_thread(self._write, [entry for slip in group for entry in slip.entries])
        except (sqlite3.Error, OSError) as caught:
            error = caught
        for slip in group:
            slip.done, slip.error = True, error

    def _write(self, entries: list[Entry]) -> None:
        if self._doubtful:  # the commit before failed: it may be there all the same
            self._last, self._seal = _last_of(self._db)
        self._doubtful = True
        number, seal = self._last, self._seal
        rows, touched = [], []
        for entry in entries:
            number += 1
            body = msgspec.json.encode(entry)
            seal = seal_of(self._key, seal, number, body)
            rows.append((number, body, seal))
            touched += [(*who, number) for who in _touched_by(entry)]
        with transaction(self._db):
            self._db.executemany("INSERT INTO entry VALUES(?, ?, ?)", rows)
            self._db.executemany("INSERT OR IGNORE INTO touched VALUES(?, ?, ?)", touched)
        self._last, self._seal, self._doubtful = number, seal, False
        Head(number, seal).write(head_path(self.path), self._key)

    # --- reading ---

    def _entries(self, wanted: Wanted) -> list[tuple[int, Entry]]:
        connection = open_reader(self.path)
        try:
            query, values = _question(wanted)
            rows = connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"the access log cannot be read: {error}") from error
        finally:
            connection.close()
        return [(number, msgspec.json.decode(body, type=Entry)) for number, body in rows]


class _Slip:
    """Entries that somebody waits for."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.done = False
        self.error: Exception | None = None


def verify(path: Path, key: bytes) -> Verdict:
    """Check the whole chain; beside a running daemon too."""
    key, verdict = key[:64], Verdict()
    head = Head.read(head_path(path), key)  # before the entries: they only grow
    try:
        connection = open_reader(path)
    except sqlite3.Error as error:
        verdict.faults.append(f"{path.name} cannot be opened: {error}")
        return verdict
    try:
        _follow(connection, key, head, verdict)
    except sqlite3.Error as error:
        verdict.faults.append(f"{path.name} is damaged: {error}")
    finally:
        connection.close()
    return verdict


def _last_of(connection: Any) -> tuple[int, bytes]:
    row = connection.execute(
        "SELECT number, seal FROM entry ORDER BY number DESC LIMIT 1"
    ).fetchone()
    return (int(row[0]), bytes(row[1])) if row else (0, NO_SEAL)


def seal_at(path: Path, number: int) -> str | None:
    """Return the seal of an entry; None: there is no such entry."""
    connection = open_reader(path)
    try:
        row = connection.execute("SELECT seal FROM entry WHERE number = ?", (number,)).fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"the access log cannot be read: {error}") from error
    finally:
        connection.close()
    return None if row is None else bytes(row[0]).hex()


def head_path(path: Path) -> Path:
    """Return where the sealed head of the log at `path` lies."""
    return path.with_name(f"{path.stem}.head")


def _follow(connection: Any, key: bytes, head: Head | None, verdict: Verdict) -> None:
    seal, expected, met = NO_SEAL, 0, head is None or head.number == 0
    for number, text, told_seal in connection.execute(
        "SELECT number, body, seal FROM entry ORDER BY number"
    ):
        expected += 1
        if number != expected:
            verdict.faults.append(f"entries {expected} to {number - 1} are missing")
            expected = number
        told, body = _bytes(told_seal), _bytes(text)
        if not hmac.compare_digest(told, seal_of(key, seal, number, body)):
            verdict.faults.append(f"entry {number} does not fit the one before it")
        seal = told
        met = met or (head is not None and (number, seal) == (head.number, head.seal))
        verdict.entries += 1
        verdict.head = f"{number}:{seal.hex()}"
    if head is None and verdict.entries:
        verdict.faults.append("the head is missing or was not sealed by us: the end is not proven")
    elif not met and head is not None:
        verdict.faults.append(
            f"the log once went to entry {head.number}; it ends at {expected}, or that entry differs"
        )


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else repr(value).encode()  # somebody was at it


def _question(wanted: Wanted) -> tuple[str, list[Any]]:
    clauses: list[str] = ["1"]
    values: list[Any] = []
    if wanted.organization_id is not None:
        whom = ["", "*"] if wanted.user_id is None else [wanted.user_id, "*"]
        clauses.append(
            "number IN (SELECT number FROM touched WHERE organization_id IN (?, '*')"
            " AND user_id IN (?, ?))"
        )
        values += [wanted.organization_id, *whom]
    elif wanted.user_id is not None:
        clauses.append("number IN (SELECT number FROM touched WHERE user_id = ?)")
        values.append(wanted.user_id)
    if wanted.before is not None:
        clauses.append("number < ?")
        values.append(wanted.before)
    query = f"SELECT number, body FROM entry WHERE {' AND '.join(clauses)}"
    return f"{query} ORDER BY number DESC LIMIT ?", [*values, wanted.limit]


def _touched_by(entry: Entry) -> Iterable[tuple[str, str]]:
    """Yield (organization, person): "" is the organization itself, "*" everybody in it."""
    organizations = set(entry.subjects) | (
        {entry.organization_id} if entry.organization_id else set()
    )
    for organization in organizations:
        yield organization, ""
        for user in entry.subjects.get(organization, ()):
            yield organization, user
    if entry.more_subjects:
        for organization in organizations or {"*"}:
            yield organization, "*"
        if entry.organization_id is None:
            yield "*", "*"
