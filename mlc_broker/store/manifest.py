"""meta.db: which files there are and how far they got; secrets; who is being erased."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from mlc_broker.store.holds import QUERY, Hold, hold_of
from mlc_broker.store.layout import META, Home
from mlc_broker.store.schema import meta_file, open_writer, transaction

State = Literal["open", "closed", "sealed", "corrupt"]


class HotEntry(Struct, frozen=True, gc=False):
    """A hot file: `open` takes commits, `closed` waits to be sealed, `sealed` is only kept."""

    number: int
    begun_ms: int
    state: State
    sealed_upto: int  # the sequence behind the last event that its homes have
    sealing_upto: int  # how far the step goes that was begun last


class HomeEntry(Struct, frozen=True, gc=False):
    """A sealed file: which version of it holds, and what is in it."""

    home: Home
    version: int = 0
    merged: int = 0  # events in it when it was last rewritten as one run
    n: int = 0
    t0: int = 0  # epoch ms
    t1: int = 0
    expires_ms: int = 0  # when the last of its events has expired
    recv: int = 0  # latest receipt


class Manifest:
    """Sync; used by one thread at a time. Every change is one transaction."""

    def __init__(self, directory: Path) -> None:
        self._db: Any = open_writer(directory / META, meta_file)

    def secret(self, name: str) -> bytes:
        """Return a secret of this directory, made at the first asking."""
        insert = "INSERT INTO secret VALUES(?, ?) ON CONFLICT DO NOTHING"
        self._db.execute(insert, (name, secrets.token_bytes(32)))
        found: bytes = self._db.execute(
            "SELECT value FROM secret WHERE name = ?", (name,)
        ).fetchone()[0]
        return found

    def number(self, name: str) -> int:
        """Return a number that only grows; 0 at first."""
        row = self._db.execute("SELECT value FROM number WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def hot_files(self) -> list[HotEntry]:
        """Return all hot files that exist, oldest first."""
        rows = self._db.execute(
            "SELECT number, begun_ms, state, sealed_upto, sealing_upto FROM hot ORDER BY number"
        )
        return [HotEntry(*row) for row in rows]

    def begin_hot(self, begun_ms: int) -> int:
        """Return the number of a new hot file; the open one, if any, is closed.

        A number is never given twice: sequences, and so cursors over them, begin with it.
        """
        with transaction(self._db):
            self._db.execute("UPDATE hot SET state = 'closed' WHERE state = 'open'")
            number = self.number("hot") + 1
            self._db.execute("INSERT INTO hot VALUES(?, ?, 'open', 0, 0)", (number, begun_ms))
            self._set_number("hot", number)
        return number

    def plan_sealing(self, number: int, upto: int) -> None:
        """Note how far the next step of sealing goes: a repetition must go exactly as far."""
        self._db.execute("UPDATE hot SET sealing_upto = ? WHERE number = ?", (upto, number))

    def note_sealed(self, number: int, upto: int, run: int, homes: list[HomeEntry]) -> None:
        """Note that the homes have all events before sequence `upto` of a hot file, by `run`."""
        with transaction(self._db):
            self._db.execute("UPDATE hot SET sealed_upto = ? WHERE number = ?", (upto, number))
            self._set_number("run", run)
            for entry in homes:
                self.put_home(entry)

    def mark_hot(self, number: int, state: State) -> None:
        """Note what became of a hot file."""
        self._db.execute("UPDATE hot SET state = ? WHERE number = ?", (state, number))

    def forget_hot(self, number: int) -> None:
        """Forget a hot file that is gone."""
        self._db.execute("DELETE FROM hot WHERE number = ?", (number,))

    def homes(self) -> list[HomeEntry]:
        """Return all homes, oldest month first."""
        rows = self._db.execute(
            "SELECT path, version, merged, n, t0, t1, expires_ms, recv FROM home"
        )
        entries = [HomeEntry(Home.of_path(path), *rest) for path, *rest in rows]
        return sorted(entries, key=lambda entry: (entry.home.month, entry.home))

    def put_home(self, entry: HomeEntry) -> None:
        """Note a home as it is now."""
        self._db.execute(
            "INSERT OR REPLACE INTO home VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.home.path,
                entry.version,
                entry.merged,
                entry.n,
                entry.t0,
                entry.t1,
                entry.expires_ms,
                entry.recv,
            ),
        )

    def forget_home(self, home: Home) -> None:
        """Forget a home that is gone."""
        self._db.execute("DELETE FROM home WHERE path = ?", (home.path,))

    def tombstones(self) -> frozenset[tuple[str, str]]:
        """Return (organization, user) of everybody whose events are invisible, being erased."""
        return frozenset(
            self._db.execute("SELECT organization_id, user_id FROM tombstone").fetchall()
        )

    def bury(self, organization_id: str, user_id: str, at_ms: int) -> None:
        """Make a person's events invisible from now on, restarts included."""
        self._db.execute(
            "INSERT OR REPLACE INTO tombstone VALUES(?, ?, ?)", (organization_id, user_id, at_ms)
        )

    def unbury(self, organization_id: str, user_id: str) -> None:
        """End a tombstone: no file holds the person's events any more."""
        self._db.execute(
            "DELETE FROM tombstone WHERE organization_id = ? AND user_id = ?",
            (organization_id, user_id),
        )
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the id leaves the WAL too

    def holds(self) -> list[Hold]:
        """Return the legal holds."""
        return [hold_of(row) for row in self._db.execute(QUERY).fetchall()]

    def put_hold(self, hold: Hold) -> None:
        """Write a hold down; one on the same person or organization is replaced."""
        at_ms = int(hold.at.timestamp() * 1000)
        self._db.execute(
            "INSERT OR REPLACE INTO hold VALUES(?, ?, ?, ?, ?, ?)",
            (
                hold.organization_id,
                hold.user_id,
                hold.pseudonym,
                hold.reason,
                hold.set_by,
                at_ms,
            ),
        )

    def remove_hold(self, organization_id: str, user_id: str) -> bool:
        """End a hold; False: there was none."""
        delete = "DELETE FROM hold WHERE organization_id = ? AND user_id = ?"
        count = self._db.execute(delete, (organization_id, user_id)).rowcount
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the id leaves the WAL too
        return bool(count)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def _set_number(self, name: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO number VALUES(?, ?)", (name, value))
