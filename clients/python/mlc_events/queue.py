"""Unsent events in one SQLite file: they outlive the process."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

Row = tuple[str, str]  # id, the event as JSON


class Queue:
    """Keeps events until they are acknowledged, in the order of their coming. Sync; quick."""

    def __init__(self, path: str | Path = ":memory:", *, events_max: int = 100_000) -> None:
        """`path`: a file of this client alone. Beyond `events_max` the oldest not critical goes."""
        self._events_max = events_max
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = wal")
        self._db.execute("PRAGMA synchronous = full")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS event (at INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL,"
            " critical INTEGER NOT NULL, body TEXT NOT NULL)"
        )
        self._count: int = self._db.execute("SELECT count(*) FROM event").fetchone()[0]

    def __len__(self) -> int:
        """Return how many events wait."""
        return self._count

    def put(self, event_id: str, body: str, *, critical: bool) -> list[str]:
        """Keep an event; the ids that had to go for it."""
        added = self._db.execute(
            "INSERT OR IGNORE INTO event (id, critical, body) VALUES (?, ?, ?)",
            (event_id, critical, body),
        )
        self._count += added.rowcount
        over = max(0, self._count - self._events_max)
        if not over:
            return []
        oldest = "SELECT id FROM event ORDER BY critical, at LIMIT ?"
        lost = [row[0] for row in self._db.execute(oldest, (over,))]
        self.remove(lost)
        return lost

    def take(self, events_max: int) -> list[Row]:
        """Return the oldest events, at most so many; they stay until removed."""
        return list(
            self._db.execute("SELECT id, body FROM event ORDER BY at LIMIT ?", (events_max,))
        )

    def remove(self, ids: Iterable[str]) -> None:
        """Forget events that need no more sending."""
        self._db.execute("BEGIN")
        gone = self._db.executemany("DELETE FROM event WHERE id = ?", [(id_,) for id_ in ids])
        self._db.execute("COMMIT")
        self._count -= max(0, gone.rowcount)

    def close(self) -> None:
        """Close the file."""
        self._db.close()
