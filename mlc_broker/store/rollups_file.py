"""rollups.db: cells and the watermark that they cover, changed together or not at all.

Sync, one thread at a time. Rows go in by statements of many rows: one statement a row would give up
the interpreter lock at every row. Their sizes are few, so that SQLite has read each one before: a
statement of 200 rows that it meets for the first time costs more to read than to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mlc_broker.model.errors import ShardUnavailable
from mlc_broker.runtime.crashpoint import crash_point
from mlc_broker.store.holds import Held
from mlc_broker.store.rollups_fold import Delta, Folder
from mlc_broker.store.rollups_schema import (
    CLASS,
    EXPERIMENT,
    OF_CONTEXT,
    PERSONAL,
    TABLES,
    TEACHER,
    WEIGHT,
    merge_of,
    rollups_file,
)
from mlc_broker.store.rollups_words import word_id
from mlc_broker.store.schema import open_reader, open_writer, transaction

ROWS_A_STATEMENT = (256, 64, 16, 4, 1)
MINUTES_DAY = 1440
MINUTE_DAYS, HOUR_DAYS = 2, 90  # how long minutes and hours are kept
MARGIN_MINUTES = 14 * 60  # no wall clock is further from UTC
_CHECKPOINT_PAGES = 4096
# A day in two parts: streaks bear with what comes before six in the morning.
_NOT_HELD = (
    "NOT EXISTS(SELECT 1 FROM temp.held AS h WHERE h.org = {table}.org"
    " AND h.user IN (0, {table}.user))"
)
_DAY = f"at - at % {MINUTES_DAY} + iif(at % {MINUTES_DAY} < 360, 0, 360)"


class RollupsFile:
    """The one connection that writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: Any = open_writer(path, rollups_file)
        self._db.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        self._db.execute("PRAGMA cache_size=-65536")

    @property
    def watermark(self) -> int:
        """The sequence behind the last event that is counted; 0: none is."""
        row = self._db.execute("SELECT sequence FROM watermark").fetchone()
        return row[0] if row else 0

    def zones(self) -> dict[str, str]:
        """Return the time zones that organizations' cells were made in."""
        query = "SELECT coalesce(text, ''), name FROM zone LEFT JOIN word ON id = org"
        return dict(self._db.execute(query).fetchall())

    def add(
        self, folder: Folder, delta: Delta, watermark: int, *, since: int | None = None
    ) -> None:
        """Add cells and move the watermark, in one transaction.

        With `since`: only if it stands there still. Else another has counted meanwhile (the clerk
        of a daemon that was killed), and this would count twice: ShardUnavailable.
        """
        words = folder.words
        with transaction(self._db):
            if since is not None and self.watermark != since:
                raise ShardUnavailable("the rollups were counted on by another process")
            for table in PERSONAL:
                self._merge(table, _rows(getattr(delta, table)))
            self._merge("word", words.new.items())
            self._merge("standing", ((key, *rest) for key, rest in words.standings.items()))
            self._merge("member", words.members)
            self._merge("kind", ((kind, category, 0) for kind, category in folder.types.items()))
            for name, zone in folder.zones.items():
                insert = "INSERT INTO zone VALUES(?, ?) ON CONFLICT DO NOTHING"
                self._db.execute(insert, (word_id(name), zone))
            self._db.execute("INSERT OR REPLACE INTO watermark VALUES(0, ?)", (watermark,))
            crash_point("rollups.before_commit")
        crash_point("rollups.after_commit")
        words.written()
        folder.types.clear()

    def add_receipts(self, counts: dict[tuple[int, int, str, str], int]) -> None:
        """Add to what became of what was sent: by organization, minute, outcome and reason."""
        texts = {text for _, _, outcome, reason in counts for text in (outcome, reason) if text}
        rows = (
            (org, at, word_id(outcome), word_id(reason), n * WEIGHT)
            for (org, at, outcome, reason), n in counts.items()
        )
        with transaction(self._db):
            self._merge("receipt", rows)
            self._merge("word", ((word_id(text), text) for text in texts))

    def note_kinds(self, kinds: Iterable[tuple[str, str, bool]]) -> None:
        """Note event types: name, category, and whether it is an error."""
        known = list(kinds)
        with transaction(self._db):
            self._merge("kind", ((word_id(n), word_id(c), int(e)) for n, c, e in known))
            texts = {text for name, category, _ in known for text in (name, category)}
            self._merge("word", ((word_id(text), text) for text in texts if text))

    def note_declared(self, declared: dict[str, str]) -> list[str]:
        """Note what is declared now; return the metrics that have stored events to be counted.

        Those are not noted: they are told again at every start, until a rebuild has counted them.
        """
        known = dict(self._db.execute("SELECT name, declaration FROM declared").fetchall())
        fresh = [name for name, text in declared.items() if known.get(name) != text]
        if self.watermark:
            return fresh
        self.note_counted({name: declared[name] for name in fresh})
        return []

    def note_counted(self, declared: dict[str, str]) -> None:
        """Note declarations by which all stored events are counted."""
        with transaction(self._db):
            for pair in declared.items():
                self._db.execute("INSERT OR REPLACE INTO declared VALUES(?, ?)", pair)

    def forget_person(self, organization_id: str, user_id: str) -> None:
        """Remove every cell of a person, and their name where no other organization has them."""
        org, user = word_id(organization_id), word_id(user_id)
        with transaction(self._db):
            for table in PERSONAL:
                self._db.execute(f"DELETE FROM {table} WHERE org = ? AND user = ?", (org, user))
            self._db.execute(
                "DELETE FROM word WHERE id = ?"
                " AND NOT EXISTS(SELECT 1 FROM activity WHERE user = ?)",
                (user, user),
            )
        self.empty_log()

    def expire(self, now_minute: int, held: Held = frozenset()) -> int:
        """Remove cells of which an event may have expired, and make old minutes and hours coarser.

        Names of people of whom no cell is left go too; what is held stays. Return how many cells.
        Nobody may have words in memory then: they may be gone.
        """
        count, now = 0, {"now": now_minute}
        with transaction(self._db):
            self._db.execute("CREATE TEMP TABLE held(org, user, PRIMARY KEY(org, user))")
            self._db.execute("CREATE TEMP TABLE gone(user PRIMARY KEY)")
            pairs = {(word_id(org), word_id(user)) for org, user in held}
            self._db.executemany("INSERT INTO held VALUES(?, ?)", pairs)
            for table in PERSONAL:
                dead = f"NOT {alive('')} AND {_NOT_HELD.format(table=table)}"
                users = f"SELECT user FROM {table} WHERE {dead}"
                self._db.execute(f"INSERT OR IGNORE INTO gone {users}", now)
                count += self._db.execute(f"DELETE FROM {table} WHERE {dead}", now).rowcount
            if count:
                self._forget_names()
            self._db.execute("DROP TABLE held")
            self._db.execute("DROP TABLE gone")
            for table in ("activity", "sample"):
                self._coarsen(table, now_minute - MINUTE_DAYS * MINUTES_DAY, "at - at % 60")
                self._coarsen(table, now_minute - HOUR_DAYS * MINUTES_DAY, _DAY)
        if count:
            self.empty_log()
        return count

    def _forget_names(self) -> None:
        """Remove who somebody was at a time of which no cell is left, then names of `gone` users."""
        used = " UNION ".join(f"SELECT standing FROM {table}" for table in PERSONAL)
        self._db.execute(f"DELETE FROM standing WHERE id NOT IN ({used})")
        axes = f"({CLASS}, {TEACHER}, {OF_CONTEXT}, {EXPERIMENT})"
        self._db.execute(
            f"DELETE FROM member WHERE axis IN {axes} AND id NOT IN (SELECT id FROM standing)"
        )
        for table in PERSONAL:
            self._db.execute(f"DELETE FROM gone WHERE user IN (SELECT user FROM {table})")
        self._db.execute("DELETE FROM gone WHERE user IN (SELECT word FROM member)")
        self._db.execute("DELETE FROM word WHERE id IN (SELECT user FROM gone)")

    def clear(self) -> None:
        """Remove everything that a recount makes anew."""
        with transaction(self._db):
            for table in (*PERSONAL, "standing", "member", "watermark", "zone"):
                self._db.execute(f"DELETE FROM {table}")

    def rows(self, query: str, values: dict[str, Any]) -> Any:
        """Return what a query finds, row by row."""
        return self._db.execute(query, values)

    def empty_log(self) -> None:
        """Write the log into the file and cut it: nothing that was removed is left in it."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _coarsen(self, table: str, before: int, bucket: str) -> None:
        """Merge the cells before a minute into larger buckets; `bucket`: SQL of where one begins."""
        key, values, _ = TABLES[table]
        chosen = f"at < :before AND at != {bucket}"
        limits = {"before": before - before % MINUTES_DAY}
        fields = [bucket if name == "at" else name for name in key]
        sums = [f"max({name})" if name == "top" else f"sum({name})" for name in values]
        self._db.execute(
            f"INSERT INTO {table} SELECT {', '.join([*fields, *sums])} FROM {table}"
            f" WHERE {chosen} GROUP BY {', '.join(fields)} {merge_of(table)}",
            limits,
        )
        self._db.execute(f"DELETE FROM {table} WHERE {chosen}", limits)

    def _merge(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        width = sum(map(len, TABLES[table][:2]))
        one = f"({','.join('?' * width)})"
        ready, at = list(rows), 0
        for size in ROWS_A_STATEMENT:
            values = ",".join([one] * size)
            statement = f"INSERT INTO {table} VALUES {values} {merge_of(table)}"
            while len(ready) - at >= size:
                part = ready[at : at + size]
                self._db.execute(statement, list(chain.from_iterable(part)))
                at += size


def alive(prefix: str) -> str:
    """Return the SQL that holds for cells of which no event can have expired at minute `:now`.

    A cell goes as a whole when the first moment of its day has: so it equals a recount at any time.
    """
    at = f"{prefix}at"
    return f"({at} - {at} % {MINUTES_DAY} + {prefix}days * {MINUTES_DAY} > :now + {MARGIN_MINUTES})"


def read(path: Path, query: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Ask the file by a connection of its own that can only read; thread-side."""
    connection = open_reader(path)
    try:
        found: list[tuple[Any, ...]] = connection.execute(query, values).fetchall()
        return found
    finally:
        connection.close()


def _rows(cells: dict[tuple[int, ...], Any]) -> Iterable[tuple[int, ...]]:
    # sorted: neighbours in the file are written one after another
    return (
        (*key, *value) if isinstance(value, tuple) else (*key, value)
        for key, value in sorted(cells.items())
    )
