"""What became of the events that were not stored: kept a week, by the hash of their id.

Reasons are plugin words or the protocol's: few, and never what somebody sent. One row a flush:
packed 16-byte hashes and two-byte codes, so that a flood of sampled events costs little.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import trio
from msgspec import Struct
from sqlite_utils import Database, Migrations
from sqlite_utils.utils import sqlite3

from mlc_broker.model.batch import Batch, Outcome, Receipt, all_stored
from mlc_broker.runtime.clock import Clock

KEPT_DAYS = 7
DETAIL_CHARACTERS_MAX = 200
Word = tuple[Outcome, str, str]  # outcome, reason, detail

_DETAILED_MAX = 10_000  # different details in one flush; further receipts go without
_OUR_REASONS = frozenset(
    {"schema", "malformed", "forbidden", "unknown_type", "timestamp_future", "timestamp_too_old"}
)
_TICKED = re.compile(r"`([^`]*)`")
_HARMLESS = re.compile(r"\$[\w.\[\]]*|[a-z]+( \| [a-z]+)*")  # a path of a schema's names, or types
_VALUE = re.compile(r""""[^"]*"?|'[^']*'?|\S*@\S*|[+-]?\d[\d .()/-]{3,}|\w*\d{4,}\w*""")

migrations = Migrations("receipts")


@migrations()
def create(db: Database) -> None:
    """Make the one table."""
    db.table("told").create(
        {"id": int, "at": int, "words": str, "hashes": bytes, "codes": bytes}, pk="id"
    )


class Told(Struct, frozen=True, kw_only=True):
    """What was answered about an event, and when."""

    outcome: Outcome
    reason: str
    detail: str = ""  # of a rejection: which field, and why; never a value
    at: datetime


class ReceiptBook:
    """Receipts other than `stored` and `duplicate`, findable for a week.

    `note` costs the pipeline a list entry an event; `flush` writes, once a second. Beyond
    `waiting_max` unwritten receipts, further ones are not noted (and counted in `unnoted`).
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        hash_id: Callable[[str | None, str], bytes],
        in_thread: Callable[..., Any] = trio.to_thread.run_sync,
        waiting_max: int = 200_000,
    ) -> None:
        self._db = Database(sqlite3.connect(str(path), check_same_thread=False))
        self._db.conn.execute("PRAGMA journal_mode=WAL")
        self._db.conn.execute("PRAGMA synchronous=NORMAL")  # a hint for people, not a promise
        migrations.apply(self._db)
        self._clock, self._hash_id, self._in_thread = clock, hash_id, in_thread
        self._waiting: dict[bytes, Word] = {}
        self._flushing: dict[bytes, Word] = {}
        self._waiting_max = waiting_max
        self.unnoted = 0

    def note(self, batch: Batch, receipts: Sequence[Receipt]) -> None:
        """Remember what was answered."""
        if all_stored(receipts):
            return
        default = batch.origin.principal.organization_id
        for position, receipt in enumerate(receipts):
            if receipt.outcome in (Outcome.STORED, Outcome.DUPLICATE, Outcome.RETRY):
                continue
            event_id = batch.event_ids[position]
            if event_id is None:
                continue
            if len(self._waiting) >= self._waiting_max:
                self.unnoted += 1
                continue
            event = batch.events[position]
            organization = event.organization_id if event is not None else default
            told = (receipt.outcome, receipt.reason, without_values(receipt))
            self._waiting[self._hash_id(organization or default, event_id)] = told
            sender = batch.origin.principal
            user = sender.id if sender.kind == "user" else event.user_id if event else None
            if user is not None:  # a second way to it, for this person alone
                self._waiting[self._hash_id(organization or default, _of(user, event_id))] = told

    async def find(
        self,
        organization_ids: Sequence[str | None],
        event_id: str,
        user_id: str | None = None,
    ) -> Told | None:
        """Return the last word on this event of any of these organizations, if it was not stored.

        With `user_id`: only if the event was that person's.
        """
        name = event_id if user_id is None else _of(user_id, event_id)
        keys = [self._hash_id(organization_id, name) for organization_id in organization_ids]
        for key in keys:
            told = self._waiting.get(key) or self._flushing.get(key)
            if told is not None:
                return Told(outcome=told[0], reason=told[1], detail=told[2], at=self._clock.now())
        found: Told | None = await self._in_thread(self._find, keys)
        return found

    async def flush(self) -> None:
        """Write what was noted since the last time; what cannot be written is let go."""
        if not self._waiting:
            return
        self._flushing, self._waiting = self._waiting, {}
        try:
            await self._in_thread(self._write, self._flushing, self._clock.now())
        except sqlite3.Error:
            self.unnoted += len(self._flushing)
        self._flushing = {}

    def close(self) -> None:
        """Let the file go."""
        self._db.close()

    def _write(self, told: dict[bytes, Word], now: datetime) -> None:
        code: dict[Word, int] = {}
        codes = np.fromiter((_code_of(word, code) for word in told.values()), np.uint16, len(told))
        words = list(code)
        at, oldest = now.timestamp(), (now - timedelta(days=KEPT_DAYS)).timestamp()
        with self._db.atomic():
            self._db.execute("DELETE FROM told WHERE at < ?", (int(oldest * 1000),))
            self._db.execute(
                "INSERT INTO told(at, words, hashes, codes) VALUES (?, ?, ?, ?)",
                (
                    int(at * 1000),
                    msgspec.json.encode(words).decode(),
                    b"".join(told),
                    codes.tobytes(),
                ),
            )

    def _find(self, keys: list[bytes]) -> Told | None:
        asked = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)
        rows = self._db.execute("SELECT at, words, hashes, codes FROM told ORDER BY id DESC")
        for at, words, hashes, codes in rows:
            halves = np.frombuffer(hashes, np.uint64).reshape(-1, 2)
            near = np.flatnonzero(np.isin(halves[:, 0], asked[:, 0]))
            hits = [at for at in near.tolist() if (asked == halves[at]).all(axis=1).any()]
            if hits:
                outcome, reason, *detail = msgspec.json.decode(words)[
                    np.frombuffer(codes, np.uint16)[hits[-1]]
                ]
                moment = datetime.fromtimestamp(at / 1000, UTC)
                return Told(
                    outcome=Outcome(outcome), reason=reason, detail="".join(detail), at=moment
                )
        return None


def without_values(receipt: Receipt) -> str:
    """Return a rejection's words without what may be a value of the sender's; 200 characters."""
    if receipt.outcome is not Outcome.REJECTED or receipt.reason not in _OUR_REASONS:
        return ""  # a plugin's words may quote anything
    shown = _TICKED.sub(
        lambda ticked: ticked[0] if _HARMLESS.fullmatch(ticked[1]) else "…", receipt.detail
    )
    return _VALUE.sub("…", shown)[:DETAIL_CHARACTERS_MAX]


def _code_of(word: Word, code: dict[Word, int]) -> int:
    if word not in code and len(code) >= _DETAILED_MAX:
        word = (word[0], word[1], "")  # codes have two bytes, reasons are few
    return code.setdefault(word, len(code))


def _of(user_id: str, event_id: str) -> str:
    return f"{event_id}\n{user_id}"  # no event id has a line's end
