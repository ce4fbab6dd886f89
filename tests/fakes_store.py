"""A store with one thing made easy or one thing wrong, for its tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import trio

from mlc_broker.model.batch import Batch, Origin, Receipt
from mlc_broker.model.event import Event, Facts
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import CATEGORIES, EVERYTHING, Principal, Scope
from mlc_broker.store.lines import decode_line
from mlc_broker.store.schema import open_reader, sqlite3
from mlc_broker.store.select import select
from mlc_broker.store.store import Limits, Store

LESSON = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
TYPES = {
    "game_stage_complete": "learning_progress",
    "page_view": "user_interaction",
    "page_load": "system_performance",
    "seat_added": "business_intelligence",
}
assert set(TYPES.values()) == set(CATEGORIES)


class SetClock:
    """A clock that stands where a test puts it."""

    def __init__(self, moment: datetime = LESSON) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def move(self, **by: float) -> None:
        self.moment += timedelta(**by)


async def inline(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run at once what would run in a thread; a checkpoint, as the thread would be one."""
    await trio.lowlevel.checkpoint()
    return function(*arguments)


class BrokenDisk:
    """An `in_thread` whose next calls of `Group.write` fail as SQLite would."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    async def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if self.failures and getattr(function, "__name__", "") == "write":
            group = function.__self__  # type: ignore[attr-defined]
            group.hot._db = FailingConnection(group.hot._db, self.failures)
            try:
                return function(*arguments)
            finally:
                if isinstance(group.hot._db, FailingConnection):
                    group.hot._db = group.hot._db.real
        return function(*arguments)


class FailingConnection:
    """A connection on which an INSERT fails with the SQLite errors handed in, one after another."""

    def __init__(self, real: Any, failures: list[str]) -> None:
        self.real = real
        self._failures = failures

    def execute(self, statement: str, *arguments: Any) -> Any:
        if statement.startswith("INSERT INTO pack") and self._failures:
            name = self._failures.pop(0)
            if name == "SQLITE_IOERR_FSYNC":  # the row may well be there
                self.real.execute(statement, *arguments)
            error = sqlite3.OperationalError(f"made up: {name}")
            error.sqlite_errorname = name
            error.sqlite_errorcode = {"SQLITE_FULL": 13, "SQLITE_IOERR_FSYNC": 1034}[name]
            raise error
        return self.real.execute(statement, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def event(number: int = 1, **fields: Any) -> Event:
    """Return an event of Ada's; `facts` and fields can be given."""
    values: dict[str, Any] = {
        "event_id": f"evt_{number:08d}",
        "event_type": "game_stage_complete",
        "timestamp": LESSON + timedelta(seconds=number),
        "user_id": "ada",
        "organization_id": "org",
        "facts": Facts(received_at=LESSON, retention_days=365),
    }
    parts = {k: fields.pop(k) for k in ("properties", "context", "device_info") if k in fields}
    return Event(**(values | fields)).but(**parts)


def batch(*events: Event, received_at: datetime = LESSON) -> Batch:
    """Return a batch of these events."""
    principal = Principal(kind="ingest", id="key")
    return Batch(Origin(principal=principal, received_at=received_at), events)


@asynccontextmanager
async def running(
    path: Path, clock: SetClock | None = None, in_thread: Any = inline, **limits: Any
) -> AsyncIterator[Store]:
    """Give an open store whose writer runs; all of it is over afterwards."""
    store = await Store.open(
        path,
        categories=TYPES.get,
        limits=Limits(**limits),
        clock=clock or SetClock(),
        in_thread=in_thread,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        store.stop()
    await store.close()


async def outcomes(store: Store, *events: Event) -> list[str]:
    """Append one batch; return each event's outcome."""
    receipts: Sequence[Receipt] = []
    one = batch(*events)
    await store.append(one)
    receipts = one.answer()
    return [str(receipt.outcome) for receipt in receipts]


def read(
    store: Store, scope: Scope = EVERYTHING, wanted: Filter | None = None
) -> list[dict[str, Any]]:
    """Return what a reader finds, through connections of its own, in no order."""
    selection, found = store.select(scope, wanted), []
    for view in store.views(selection):
        connection = open_reader(view.path)
        try:
            words = view.words(connection)
            for ref in view.find(connection, words, selection):
                pack = view.load(connection, ref)
                chosen = np.flatnonzero(select(pack.rows(), words, selection))
                found += [decode_line(line) for line in pack.lines(chosen.tolist())]
        finally:
            connection.close()
    return found


def ids(found: list[dict[str, Any]]) -> list[str]:
    """Return the ids of events read, sorted."""
    return sorted(item["event_id"] for item in found)
