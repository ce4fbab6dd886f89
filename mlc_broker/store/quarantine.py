"""What was rejected (for a week), what broke a processor, what no sink would take: sealed.

It may hold what `protect` has not seen, so every event is encrypted (AES-GCM, a key file beside the
configuration) before it is written; in the clear stand only when, why, and by which build.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from threading import RLock
from typing import Any

import msgspec
import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Raw, Struct
from sqlite_utils import Database, Migrations
from sqlite_utils.utils import sqlite3

from mlc_broker.model.batch import Batch, Outcome, Receipt
from mlc_broker.model.errors import StoreError
from mlc_broker.model.event import Event
from mlc_broker.runtime.clock import Clock
from mlc_broker.store.holds import Held, is_held

InThread = Callable[..., Any]

REJECTED_DAYS = 7
QUARANTINED_DAYS = 30

migrations = Migrations("quarantine")


@migrations()
def create(db: Database) -> None:
    """Make the one table: what is grouped stands in the clear, what was sent is sealed."""
    db.table("kept").create(
        {
            "id": int,
            "at": int,  # ms since 1970
            "outcome": str,
            "reason": str,  # a rejection's reason, a processor's or a sink's name
            "event_type": str,
            "cause": str,  # reason and kind of error: never a value that somebody sent
            "build": str,
            "bytes": int,
            "sealed": bytes,
        },
        pk="id",
    )
    db.table("kept").create_index(["outcome", "at"])


class Kept(Struct, frozen=True, kw_only=True):
    """One event in quarantine, unsealed."""

    id: int
    at: datetime
    outcome: Outcome
    reason: str
    detail: str
    build: str
    organization_id: str | None = None
    event: Event | None = None  # None: it was refused before it was an event
    original: str | None = None  # what came instead, as text


class Cause(Struct, frozen=True, kw_only=True):
    """What has one cause: how much, since when, under which builds."""

    outcome: Outcome
    reason: str
    event_type: str
    cause: str
    count: int
    bytes: int
    first_at: datetime
    last_at: datetime
    builds: list[str]


class _Sealed(Struct, omit_defaults=True):
    detail: str = ""
    organization_id: str | None = None
    event: Event | None = None
    original: str | None = None


def _alone(method: Callable[..., Any]) -> Callable[..., Any]:
    """One thread at a time: the connection is one."""

    @wraps(method)
    def locked(self: QuarantineFile, *args: Any, **named: Any) -> Any:
        with self._lock:
            return method(self, *args, **named)

    return locked


class QuarantineFile:
    """The file `quarantine.db`: bounded, sealed, one writing connection. Sync, thread-side."""

    def __init__(self, path: Path, key: bytes, *, build: str, bytes_max: int) -> None:
        self.held: Callable[[], Held] = frozenset  # what is under a legal hold stays
        self._db = Database(sqlite3.connect(str(path), check_same_thread=False))
        self._db.conn.execute("PRAGMA journal_mode=WAL")
        self._db.conn.execute("PRAGMA synchronous=FULL")
        self._db.conn.execute("PRAGMA secure_delete=ON")
        migrations.apply(self._db)
        self._lock = RLock()  # pages, commands and the pipeline come from different threads
        self._aead = AESGCM(key)
        self._build, self._bytes_max = build, bytes_max
        found = self._db.execute("SELECT coalesce(sum(bytes), 0) FROM kept").fetchone()
        self.bytes: int = found[0]

    @_alone
    def add(self, rows: Sequence[tuple[datetime, Receipt, str, _Sealed]]) -> None:
        """Seal and commit; the oldest go when `bytes_max` is passed."""
        with self._db.atomic():
            for at, receipt, event_type, content in rows:
                sealed = self._seal(content)
                self.bytes += len(sealed)
                self._db.execute(
                    "INSERT INTO kept(at, outcome, reason, event_type, cause, build, bytes, sealed)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        _ms(at),
                        receipt.outcome.value,
                        receipt.reason,
                        event_type,
                        _cause(receipt),
                        self._build,
                        len(sealed),
                        sealed,
                    ),
                )
            while self.bytes > self._bytes_max:
                self._forget_oldest()

    @_alone
    def last_id(self) -> int:
        """Return the number of the newest entry; 0: there is none."""
        newest: int = self._db.execute("SELECT coalesce(max(id), 0) FROM kept").fetchone()[0]
        return newest

    @_alone
    def causes(self) -> list[Cause]:
        """Return what is kept, grouped by cause, the most frequent first."""
        rows = self._db.execute(
            "SELECT outcome, reason, event_type, cause, count(*), sum(bytes), min(at), max(at),"
            " group_concat(DISTINCT build) FROM kept"
            " GROUP BY outcome, reason, event_type, cause ORDER BY count(*) DESC, min(at) LIMIT 1000"
        ).fetchall()
        return [
            Cause(
                outcome=Outcome(row[0]),
                reason=row[1],
                event_type=row[2],
                cause=row[3],
                count=row[4],
                bytes=row[5],
                first_at=_moment(row[6]),
                last_at=_moment(row[7]),
                builds=sorted(row[8].split(",")),
            )
            for row in rows
        ]

    @_alone
    def read(
        self,
        *,
        outcome: Outcome | None = None,
        reason: str | None = None,
        limit: int = 1000,
        after: int = 0,
    ) -> list[Kept]:
        """Return what is kept behind row `after`, oldest first, unsealed."""
        rows = self._db.execute(
            "SELECT id, at, outcome, reason, build, sealed FROM kept"
            " WHERE (?1 IS NULL OR outcome = ?1) AND (?2 IS NULL OR reason = ?2) AND id > ?4"
            " ORDER BY id LIMIT ?3",
            (outcome.value if outcome else None, reason, limit, after),
        ).fetchall()
        return [
            Kept(
                id=row[0],
                at=_moment(row[1]),
                outcome=Outcome(row[2]),
                reason=row[3],
                build=row[4],
                detail=content.detail,
                organization_id=content.organization_id,
                event=content.event,
                original=content.original,
            )
            for row in rows
            for content in (self._unseal(row[5]),)
        ]

    @_alone
    def forget_person(self, organization_id: str, user_id: str) -> int:
        """Remove every event of the person, or that names them; return how many.

        All is unsealed for it: what was refused at the gate is looked through as text.
        """
        gone = []
        for content, key in self._each():
            event = content.event
            if content.organization_id not in (None, organization_id):
                continue
            told = msgspec.json.encode(event).decode() if event is not None else content.original
            if user_id in (told or ""):
                gone.append(key)
        self.remove(gone)
        return len(gone)

    def _each(self) -> Iterator[tuple[_Sealed, int]]:
        last = 0
        while True:
            rows = self._db.execute(
                "SELECT id, sealed FROM kept WHERE id > ? ORDER BY id LIMIT 500", (last,)
            ).fetchall()
            if not rows:
                return
            for key, sealed in rows:
                yield self._unseal(sealed), key
            last = rows[-1][0]

    @_alone
    def remove(self, ids: Sequence[int]) -> None:
        """Forget these: they were stored after all, or must be forgotten."""
        with self._db.atomic():
            for at in range(0, len(ids), 500):
                part = ids[at : at + 500]
                marks = ",".join("?" * len(part))
                self._db.execute(f"DELETE FROM kept WHERE id IN ({marks})", part)
        self._recount()
        self._db.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @_alone
    def purge(self, now: datetime) -> int:
        """Forget what is older than its time and not held; return how many."""
        rejected = _ms(now - timedelta(days=REJECTED_DAYS))
        any_other = _ms(now - timedelta(days=QUARANTINED_DAYS))
        old = self._db.execute(
            "SELECT id FROM kept WHERE at < ? OR (at < ? AND outcome = 'rejected')",
            (any_other, rejected),
        ).fetchall()
        gone = {key for (key,) in old}
        if gone and (held := self.held()):
            gone -= {key for content, key in self._each() if _under_hold(held, content)}
        self.remove(sorted(gone))
        return len(gone)

    def expire(self, now: datetime) -> int:
        """As `purge`: what the nightly round calls."""
        gone: int = self.purge(now)
        return gone

    @_alone
    def close(self) -> None:
        """Let the file go."""
        self._db.close()

    def _forget_oldest(self) -> None:
        """Room is made by what was rejected first, then by what broke a processor."""
        row = self._db.execute(
            "SELECT id, bytes FROM kept ORDER BY outcome <> 'rejected', id LIMIT 1"
        ).fetchone()
        if row is None:
            self.bytes = 0
            return
        self._db.execute("DELETE FROM kept WHERE id = ?", (row[0],))
        self.bytes -= row[1]

    def _recount(self) -> None:
        self.bytes = self._db.execute("SELECT coalesce(sum(bytes), 0) FROM kept").fetchone()[0]

    def _seal(self, content: _Sealed) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._aead.encrypt(nonce, msgspec.json.encode(content), None)

    def _unseal(self, sealed: bytes) -> _Sealed:
        try:
            clear = self._aead.decrypt(sealed[:12], sealed[12:], None)
        except InvalidTag as error:
            msg = "the quarantine was sealed under another key"
            raise StoreError(msg, hint="put the former quarantine.key back") from error
        return msgspec.json.decode(clear, type=_Sealed)


def _under_hold(held: Held, content: _Sealed) -> bool:
    organization_id = content.organization_id or ""
    user_id = content.event.user_id if content.event is not None else None
    if is_held(held, organization_id, user_id or ""):
        return True
    text = content.original or ""  # refused before it was an event: looked through as text
    return any(user and org == organization_id and user in text for org, user in held)


class Quarantine:
    """The quarantine as the pipeline sees it: what broke a processor is kept before the answer."""

    def __init__(
        self,
        file: QuarantineFile,
        *,
        clock: Clock,
        in_thread: InThread = trio.to_thread.run_sync,
        waiting_max: int = 10_000,
        known_type: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.file = file
        self._known_type = known_type  # what a sender calls a type may hold anything: it is sealed
        self.unkept = 0  # rejected events that were too many to keep
        self._clock, self._in_thread = clock, in_thread
        self._waiting_max = waiting_max
        self._waiting: list[tuple[datetime, Receipt, str, _Sealed]] = []
        self._lock = trio.Lock()

    async def keep(self, batch: Batch, refused: Sequence[tuple[Event, Receipt]]) -> bool:
        """Keep these and the batch's `originals`: rejected ones soon, quarantined ones now."""
        now = self._clock.now()
        rows = [
            (now, receipt, self._shown(event.event_type), _content(event, receipt))
            for event, receipt in refused
        ]
        organization_id = batch.origin.principal.organization_id
        for position, original in batch.originals.items():
            receipt = batch.receipts[position] or Receipt(Outcome.REJECTED)
            text = original.decode(errors="replace")
            content = _Sealed(receipt.detail, organization_id, None, text)
            rows.append((now, receipt, "", content))
        room = max(0, self._waiting_max - len(self._waiting))
        self.unkept += max(0, len(rows) - room)
        urgent = any(receipt.outcome is not Outcome.REJECTED for _, receipt, _, _ in rows)
        if urgent:
            return await self._write(rows)
        self._waiting += rows[:room]
        return True

    def _shown(self, event_type: str) -> str:
        return event_type[:64] if self._known_type(event_type) else ""

    async def flush(self) -> bool:
        """Write what waits; called every second and at the end."""
        rows, self._waiting = self._waiting, []
        return not rows or await self._write(rows)

    async def _write(self, rows: list[tuple[datetime, Receipt, str, _Sealed]]) -> bool:
        async with self._lock:
            try:
                await self._in_thread(self.file.add, rows)
            except sqlite3.Error:  # disk full, I/O: the sender keeps what broke a processor
                self.unkept += len(rows)
                return False
        return True


def _content(event: Event, receipt: Receipt) -> _Sealed:
    owned = msgspec.structs.replace(  # a Raw part must not hold the whole message in memory
        event,
        properties_json=Raw(bytes(event.properties_json)),
        context_json=Raw(bytes(event.context_json)),
        device_json=Raw(bytes(event.device_json)),
    )
    return _Sealed(receipt.detail, event.organization_id, owned)


def _cause(receipt: Receipt) -> str:
    """Return what groups: the kind of an error, never the text that may quote a value."""
    if receipt.outcome is Outcome.REJECTED:
        return receipt.reason
    return receipt.detail.split(":", 1)[0][:100]


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
