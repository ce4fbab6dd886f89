"""A SQLite file of one plain table, made beside and then sent: any tool opens it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlc_broker.query.export.flat import COLUMNS_MAX, CORE, REST, _encode, rows_of
from mlc_broker.query.export.writer import Writer
from mlc_broker.store.schema import sqlite3

PIECE_BYTES = 512 * 1024


class SqliteFile(Writer):
    """Table `events`: the core fields and `properties.score`-like columns as they turn up."""

    media = "application/vnd.sqlite3"
    extension = "sqlite"

    def __init__(self) -> None:
        self._directory: Any = None
        self._db: Any = None
        self._path = Path()
        self._columns: dict[str, str] = {}  # name as in the event → name in the table

    def begin(self) -> bytes:
        """Make the file; nothing leaves yet."""
        self._directory = tempfile.TemporaryDirectory(prefix="mlc-export-")
        self._path = Path(self._directory.name) / "events.sqlite"
        self._db = sqlite3.connect(str(self._path), isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("PRAGMA journal_mode=OFF")
        self._columns = {name: name for name in CORE}
        names = ", ".join(f"{_quoted(name)}" for name in CORE)
        self._db.execute(f"CREATE TABLE events({names}, {_quoted(REST)})")
        self._db.execute("BEGIN")
        return b""

    def add(self, body: bytes) -> bytes:
        """Insert these events."""
        for row in rows_of(body):
            rest: dict[str, Any] = {}
            values: dict[str, Any] = {}
            for name, value in row.items():
                column = self._columns.get(name) or self._new_column(name)
                if column is None:
                    rest[name] = value
                else:
                    values[column] = _storable(value)
            if rest:
                values[REST] = _encode(rest).decode()
            names = ", ".join(map(_quoted, values))
            marks = ", ".join("?" * len(values))
            self._db.execute(f"INSERT INTO events({names}) VALUES({marks})", list(values.values()))
        return b""

    def end(self) -> Iterator[bytes]:
        """Finish the file, and yield it in pieces."""
        self._db.execute("COMMIT")
        self._db.execute('CREATE INDEX events_by_time ON events("timestamp")')
        self._db.execute('CREATE INDEX events_by_user ON events("user_id", "timestamp")')
        self._db.close()
        self._db = None
        with self._path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    def close(self) -> None:
        """Remove the file."""
        if self._db is not None:
            self._db.close()
        if self._directory is not None:
            self._directory.cleanup()

    def _new_column(self, name: str) -> str | None:
        if len(self._columns) >= COLUMNS_MAX:
            return None
        # SQLite does not tell upper from lower case in names, and knows no NUL in them.
        column, taken = name.replace("\0", ""), {known.lower() for known in self._columns.values()}
        if column.lower() in {*taken, REST} or not column:
            column = f"{column}#{len(self._columns)}"
        self._db.execute(f"ALTER TABLE events ADD COLUMN {_quoted(column)}")
        self._columns[name] = column
        return column


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _storable(value: Any) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    return value
