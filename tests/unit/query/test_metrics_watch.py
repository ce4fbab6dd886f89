"""Watching: the value at once, and again within seconds of a change."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from mlc_broker.model.errors import Malformed, NotFound
from mlc_broker.model.filter import Filter
from mlc_broker.model.metrics import STANDARD
from mlc_broker.model.person import Organization
from mlc_broker.model.principal import Principal, Role
from mlc_broker.query.metrics import MetricBook
from mlc_broker.query.watch import Watching
from mlc_broker.store.rollups import Rollups
from tests.fakes_rollups import CATEGORIES, ZONE, counted
from tests.fakes_store import SetClock, batch, event, inline

ADMIN = Principal(kind="user", id="adm", organization_id="org", role=Role.SUBSCRIBER_ADMIN)


class Places:
    def organization(self, organization_id: str) -> Organization:
        return Organization(time_zone=ZONE, seats=10)

    def classes_taught_by(
        self, organization_id: str, teacher_ids: frozenset[str]
    ) -> frozenset[str]:
        return frozenset()

    def teachers_managed_by(self, organization_id: str, user_id: str) -> frozenset[str]:
        return frozenset()


def watching(rollups: Rollups, clock: SetClock) -> Watching:
    book = MetricBook(
        STANDARD,
        rollups,
        Places(),
        clock=clock,
        categories=CATEGORIES,
        pseudonym=lambda _, user: user,
        in_thread=inline,
    )
    return Watching(book, rollups, clock=clock)


async def test_a_watcher_hears_at_once_and_within_five_seconds_of_a_change(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    clock = SetClock()
    async with counted(tmp_path, clock) as (store, rollups), trio.open_nursery() as nursery:
        nursery.start_soon(rollups.run)
        await store.append(batch(event(1)))
        values = await watching(rollups, clock).watch(ADMIN, "plays", [], "7d", Filter())
        _, rows = await anext(values)
        assert [row["value"] for row in rows] == [1]
        await trio.sleep(100)  # nothing changes, nothing is told
        changed = trio.current_time()
        await store.append(batch(event(2, user_id="bob")))
        _, rows = await anext(values)
        assert [row["value"] for row in rows] == [2]
        assert trio.current_time() - changed <= 5
        await values.aclose()  # type: ignore[attr-defined]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("metric", "window", "error"), [("nothing", "today", NotFound), ("plays", "soon", Malformed)]
)
async def test_a_wrong_watch_is_refused_when_it_begins(
    tmp_path: Path, metric: str, window: str, error: type[Exception]
) -> None:
    clock = SetClock()
    async with counted(tmp_path, clock) as (_, rollups):
        with pytest.raises(error):
            await watching(rollups, clock).watch(ADMIN, metric, [], window, Filter())
