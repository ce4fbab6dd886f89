"""Events in PostgreSQL: COPY for batches, INSERT for one, a unique key for duplicates."""

from __future__ import annotations

from typing import Any, Self

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg_pool import AsyncConnectionPool

from tests.benchmarks.rivals.model import COLUMNS

TABLE = """
CREATE TABLE IF NOT EXISTS events (
    organization_id text NOT NULL,
    event_id text NOT NULL,
    event_type text NOT NULL,
    ts timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    user_id text, session_id text, class_id text, teacher_id text,
    body jsonb NOT NULL
)"""
INDEXES = (
    "CREATE UNIQUE INDEX IF NOT EXISTS events_key ON events (organization_id, event_id)",
    "CREATE INDEX IF NOT EXISTS events_user ON events (organization_id, user_id, ts)",
    "CREATE INDEX IF NOT EXISTS events_class ON events (organization_id, class_id, ts)",
    "CREATE INDEX IF NOT EXISTS events_type ON events (organization_id, event_type, ts)",
)
CONNECTIONS = 8
_ONE = (
    f"INSERT INTO events ({COLUMNS}) VALUES ({', '.join(['%s'] * 10)}) "
    "ON CONFLICT (organization_id, event_id) DO NOTHING"
)
_STAGE = "CREATE TEMP TABLE IF NOT EXISTS stage (LIKE events) ON COMMIT DELETE ROWS"
_UNSTAGE = (
    f"INSERT INTO events ({COLUMNS}) SELECT {COLUMNS} FROM stage "
    "ON CONFLICT (organization_id, event_id) DO NOTHING"
)
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class PostgresStore:
    """Nearly every batch is all new: it is copied straight in, and staged only when it is not."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]]) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, dsn: str) -> Self:
        pool = AsyncConnectionPool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS, open=False)
        await pool.open(wait=True)
        return cls(pool)

    async def add(self, rows: list[tuple[Any, ...]]) -> int:
        async with self._pool.connection() as connection:
            if len(rows) == 1:
                return int((await connection.execute(_ONE, rows[0])).rowcount)
            data = copy_text(rows)
            try:
                async with connection.transaction():
                    await _copy(connection, "events", data)
            except UniqueViolation:
                async with connection.transaction():
                    await connection.execute(_STAGE)
                    await _copy(connection, "stage", data)
                    return int((await connection.execute(_UNSTAGE)).rowcount)
            return len(rows)

    async def close(self) -> None:
        await self._pool.close()


def copy_text(rows: list[tuple[Any, ...]]) -> bytes:
    """Rows in the text format of COPY, in one piece: quicker than row by row."""
    return "".join(
        "\t".join(["\\N" if v is None else str(v).translate(_ESCAPES) for v in row]) + "\n"
        for row in rows
    ).encode()


async def _copy(connection: AsyncConnection[Any], table: str, data: bytes) -> None:
    async with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {table} ({COLUMNS}) FROM STDIN") as copy,
    ):
        await copy.write(data)
