"""Events in SQLite through aiosqlite: WAL, FULL, one connection, batches that wait commit together."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import aiosqlite

from tests.benchmarks.rivals.model import COLUMNS

TABLE = """
CREATE TABLE IF NOT EXISTS events (
    organization_id TEXT NOT NULL, event_id TEXT NOT NULL, event_type TEXT NOT NULL,
    ts INTEGER NOT NULL, received_at INTEGER NOT NULL,
    user_id TEXT, session_id TEXT, class_id TEXT, teacher_id TEXT, body TEXT NOT NULL,
    UNIQUE (organization_id, event_id)
)"""
INDEXES = (
    "CREATE INDEX IF NOT EXISTS events_user ON events (organization_id, user_id, ts)",
    "CREATE INDEX IF NOT EXISTS events_class ON events (organization_id, class_id, ts)",
    "CREATE INDEX IF NOT EXISTS events_type ON events (organization_id, event_type, ts)",
)
SETTINGS = ("journal_mode = WAL", "synchronous = FULL", "cache_size = -65536", "temp_store = 2")
EVENTS_MAX = 2000  # of one commit
_INSERT = f"INSERT OR IGNORE INTO events ({COLUMNS}) VALUES ({', '.join('?' * 10)})"


class SqliteStore:
    """One connection; a task that commits whatever waits, in one transaction."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db
        self._queue: asyncio.Queue[tuple[list[Any], asyncio.Future[int]]] = asyncio.Queue()
        self._task = asyncio.create_task(self._run())

    @classmethod
    async def open(cls, file: str) -> Self:
        db = await aiosqlite.connect(file, isolation_level=None)
        for setting in SETTINGS:
            await db.execute(f"PRAGMA {setting}")
        for statement in (TABLE, *INDEXES):
            await db.execute(statement)
        return cls(db)

    async def add(self, rows: list[tuple[Any, ...]]) -> int:
        ready = [
            (*r[:3], int(r[3].timestamp() * 1000), int(r[4].timestamp() * 1000), *r[5:])
            for r in rows
        ]
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        await self._queue.put((ready, answer))
        return await answer

    async def close(self) -> None:
        self._task.cancel()
        await self._db.close()

    async def _run(self) -> None:
        while True:
            waiting = [await self._queue.get()]
            while not self._queue.empty() and sum(len(rows) for rows, _ in waiting) < EVENTS_MAX:
                waiting.append(self._queue.get_nowait())
            news = []
            await self._db.execute("BEGIN IMMEDIATE")
            for rows, _ in waiting:
                before = self._db.total_changes
                await self._db.executemany(_INSERT, rows)
                news.append(self._db.total_changes - before)
            await self._db.execute("COMMIT")
            for (_, answer), new in zip(waiting, news, strict=True):
                if not answer.cancelled():
                    answer.set_result(new)
