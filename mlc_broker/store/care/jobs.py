"""Long pieces of work that must not be forgotten: what is to be done, for whom, and how it ended.

Sync, thread-side. A job that is done keeps no id of a person: the record of deletion
(`erased.py`) has a keyed hash instead.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import msgspec
from msgspec import Struct
from sqlite_utils import Database, Migrations
from sqlite_utils.utils import sqlite3

State = Literal["waiting", "running", "done", "failed", "cancelled"]

KEPT_DAYS = 400  # a job that is over

migrations = Migrations("jobs")


@migrations()
def create(db: Database) -> None:
    """Make the one table. Times are ms since 1970."""
    db.table("job").create(
        {
            "id": str,
            "kind": str,
            "state": str,
            "organization_id": str,
            "user_id": str,  # empty when the job is over
            "requested_by": str,
            "requested_ms": int,
            "due_ms": int,
            "finished_ms": int,
            "detail": str,
            "report": str,
        },
        pk="id",
        not_null={"kind", "state", "due_ms", "requested_ms"},
    )
    db.table("job").create_index(["state", "due_ms"])


@migrations()
def numbers(db: Database) -> None:
    """What care remembers from one day to the next."""
    db.table("number").create({"name": str, "value": int}, pk="name")


class Job(Struct, frozen=True, kw_only=True):
    """A job as it stands."""

    id: str
    kind: str
    state: State
    organization_id: str
    user_id: str
    requested_by: str
    requested_at: datetime
    due: datetime
    finished_at: datetime | None = None
    detail: str = ""
    report: dict[str, Any] = {}


class Jobs:
    """The file `jobs.db`: one connection, one call at a time."""

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        self._db = Database(
            sqlite3.connect(str(path), check_same_thread=False, isolation_level=None)
        )
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
            self._db.conn.execute(f"PRAGMA {pragma}")
        migrations.apply(self._db)

    def add(
        self,
        kind: str,
        organization_id: str,
        user_id: str,
        *,
        requested_by: str,
        now: datetime,
        due: datetime,
    ) -> Job:
        """Write a job down; one for the same person that waits already is returned instead.

        Then the earlier of the two times holds.
        """
        with self._lock:
            row = self._db.execute(
                "SELECT id FROM job WHERE kind = ? AND organization_id = ? AND user_id = ?"
                " AND state IN ('waiting', 'running')",
                (kind, organization_id, user_id),
            ).fetchone()
            if row is not None:
                self._db.execute(
                    "UPDATE job SET due_ms = min(due_ms, ?) WHERE id = ?", (_ms(due), row[0])
                )
                found = self._find(row[0])
                assert found is not None
                return found
            job_id = f"job_{secrets.token_hex(12)}"
            self._db.execute(
                "INSERT INTO job(id, kind, state, organization_id, user_id, requested_by,"
                " requested_ms, due_ms) VALUES (?, ?, 'waiting', ?, ?, ?, ?, ?)",
                (job_id, kind, organization_id, user_id, requested_by, _ms(now), _ms(due)),
            )
            job = self._find(job_id)
            assert job is not None
            return job

    def find(self, job_id: str) -> Job | None:
        """Return the job."""
        with self._lock:
            return self._find(job_id)

    def unfinished(self) -> Sequence[Job]:
        """Return what waits or was begun, what is due first first."""
        with self._lock:
            rows = self._db.execute(
                f"SELECT {_FIELDS} FROM job WHERE state IN ('waiting', 'running') ORDER BY due_ms"
            ).fetchall()
        return [_job(row) for row in rows]

    def begin(self, job_id: str) -> bool:
        """Note that the job is being done; False when it was cancelled before."""
        with self._lock:
            return bool(
                self._db.execute(
                    "UPDATE job SET state = 'running'"
                    " WHERE id = ? AND state IN ('waiting', 'running')",
                    (job_id,),
                ).rowcount
            )

    def cancel(self, job_id: str) -> Job | None:
        """Cancel a job that waits; return it as it is then, None where there is none."""
        with self._lock:
            self._db.execute(
                "UPDATE job SET state = 'cancelled' WHERE id = ? AND state = 'waiting'", (job_id,)
            )
            return self._find(job_id)

    def note(self, job_id: str, detail: str) -> None:
        """Note what is in a running job's way."""
        with self._lock:
            self._db.execute("UPDATE job SET detail = ? WHERE id = ?", (detail[:500], job_id))

    def finish(
        self,
        job_id: str,
        state: Literal["done", "failed"],
        *,
        now: datetime,
        report: dict[str, Any],
        detail: str = "",
    ) -> None:
        """Note how the job ended. A job that is done forgets whom it was about."""
        with self._lock:
            self._db.execute(
                "UPDATE job SET state = ?, finished_ms = ?, detail = ?, report = ?,"
                " user_id = iif(?1 = 'done', '', user_id) WHERE id = ?5",
                (state, _ms(now), detail[:500], msgspec.json.encode(report).decode(), job_id),
            )
            self._db.execute(
                "DELETE FROM job WHERE state IN ('done', 'cancelled', 'failed')"
                " AND requested_ms < ?",
                (_ms(now) - KEPT_DAYS * 86_400_000,),
            )
            self._db.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def number(self, name: str) -> int:
        """Return a number that was noted; 0 where there is none."""
        with self._lock:
            row = self._db.execute("SELECT value FROM number WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def set_number(self, name: str, value: int) -> None:
        """Note a number."""
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO number VALUES (?, ?)", (name, value))

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            self._db.close()

    def _find(self, job_id: str) -> Job | None:
        row = self._db.execute(f"SELECT {_FIELDS} FROM job WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else _job(row)


_FIELDS = (
    "id, kind, state, organization_id, user_id, requested_by, requested_ms, due_ms,"
    " finished_ms, detail, report"
)


def _job(row: Sequence[Any]) -> Job:
    return Job(
        id=row[0],
        kind=row[1],
        state=row[2],
        organization_id=row[3] or "",
        user_id=row[4] or "",
        requested_by=row[5] or "",
        requested_at=_moment(row[6]),
        due=_moment(row[7]),
        finished_at=None if row[8] is None else _moment(row[8]),
        detail=row[9] or "",
        report=msgspec.json.decode(row[10]) if row[10] else {},
    )


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
