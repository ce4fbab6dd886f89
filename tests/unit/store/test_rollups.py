"""Cells equal a recount, whatever comes in whatever order."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc_broker.model.principal import EVERYTHING
from mlc_broker.store.rollups_file import read
from tests.fakes_rollups import check, counted, drift, some_event
from tests.fakes_store import LESSON, SetClock, batch, event


def number_of(rollups: object, table: str) -> int:
    rows = read(rollups.path, f"SELECT count(*) FROM {table}", {})  # type: ignore[attr-defined]
    return int(rows[0][0])


async def test_what_was_committed_is_counted_once(tmp_path: Path) -> None:
    chance = Random(1)
    events = [some_event(chance, n) for n in range(200)]
    async with counted(tmp_path) as (store, rollups):
        for at in range(0, 200, 20):
            await store.append(batch(*events[at : at + 20]))
        await store.append(batch(*events[:50]))  # duplicates
        await rollups.settle()
        found = await check(store, rollups)
        assert found.differences == []
        assert (found.events, found.cells > 200) == (200, True)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_any_order_of_batches_duplicates_erasures_and_restarts_gives_a_recount(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    trio.run(history, tmp_path_factory.mktemp("history"), Random(seed))


async def history(path: Path, chance: Random) -> None:
    events = [some_event(chance, n) for n in range(60)]
    chance.shuffle(events)
    clock = SetClock()
    while True:
        async with counted(path, clock) as (store, rollups):
            for _ in range(chance.randrange(1, 8)):
                some = [chance.choice(events) for _ in range(chance.randrange(1, 12))]
                await store.append(batch(*{e.event_id: e for e in some}.values()))
                match chance.randrange(7):
                    case 0:
                        await rollups.settle()
                    case 1:
                        await store.seal_now()
                        await store.release(grace_seconds=0)
                    case 2:
                        await store.hide("org", "stu_1")
                        await rollups.forget_person("org", "stu_1")
                    case 3:
                        clock.move(days=chance.choice((1, 3, 100)))
                        await rollups.expire(rollups.now_minute())
            assert await drift(store, rollups) == []
        if chance.random() < 0.4:
            return


async def test_late_events_land_in_their_day_by_the_organizations_clock(tmp_path: Path) -> None:
    late = event(1, timestamp=LESSON.replace(day=3, hour=23, minute=30))  # already the 4th, Berlin
    async with counted(tmp_path) as (store, rollups):
        await store.append(batch(late))
        await rollups.settle()
        (day,) = read(rollups.path, "SELECT at / 1440 FROM activity", {})[0]
        assert day == (LESSON.replace(day=4) - LESSON.replace(year=1970, month=1, day=1)).days


async def test_a_person_who_is_forgotten_leaves_nothing(tmp_path: Path) -> None:
    async with counted(tmp_path) as (store, rollups):
        await store.append(batch(event(1, user_id="ada", session_id="s"), event(2, user_id="bob")))
        await store.hide("org", "ada")
        await rollups.forget_person("org", "ada")
        assert number_of(rollups, "activity") == 1
        assert read(rollups.path, "SELECT 1 FROM word WHERE text = 'ada'", {}) == []
        assert await drift(store, rollups) == []


async def test_cells_go_when_their_events_expire(tmp_path: Path) -> None:
    clock = SetClock()
    async with counted(tmp_path, clock) as (store, rollups):
        await store.append(batch(event(1)))
        await rollups.settle()
        clock.move(days=366)
        assert await drift(store, rollups) == []
        await rollups.expire(rollups.now_minute())
        assert [number_of(rollups, t) for t in ("activity", "play", "session")] == [0, 0, 0]


async def test_old_minutes_and_hours_become_coarser_and_the_sums_stay(tmp_path: Path) -> None:
    clock = SetClock()
    some = [event(n, timestamp=LESSON + timedelta(minutes=n)) for n in range(120)]
    async with counted(tmp_path, clock) as (store, rollups):
        await store.append(batch(*some))
        await rollups.settle()
        sizes = []
        for days in (0, 4, 96):
            clock.move(days=days)
            await rollups.expire(rollups.now_minute())
            sizes.append(number_of(rollups, "activity"))
            assert read(rollups.path, "SELECT sum(n) FROM activity", {}) == [(120_000,)]
        assert sizes == [120, 3, 1]


async def test_what_is_not_flushed_when_it_ends_is_folded_again_from_the_packs(
    tmp_path: Path,
) -> None:
    async with counted(tmp_path) as (store, rollups):
        await store.append(batch(event(1), event(2)))
        rollups._queue.clear()  # as if the process had died before it folded
        rollups._lose()
        rollups._behind = False
        watermark = rollups.watermark
    async with counted(tmp_path) as (store, rollups):
        assert rollups.watermark > watermark
        assert await drift(store, rollups) == []


async def test_a_flood_beyond_the_queue_is_counted_from_the_packs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlc_broker.store.rollups.QUEUE_EVENTS_MAX", 5)
    async with counted(tmp_path) as (store, rollups):
        for n in range(30):
            await store.append(batch(event(n)))
        await rollups.settle()
        assert await drift(store, rollups) == []
        assert number_of(rollups, "play") > 0


async def test_a_wrong_cell_is_found_and_mended_by_a_rebuild(tmp_path: Path) -> None:
    async with counted(tmp_path) as (store, rollups):
        await store.append(batch(*(event(n) for n in range(10))))
        await rollups.settle()
        rollups._counter.file._db.execute("UPDATE activity SET n = n + 1")
        rollups._counter.file._db.execute("DELETE FROM play")
        assert len(await drift(store, rollups)) >= 2

        def views() -> object:
            wanted = store.select(EVERYTHING)
            return store.views(wanted), wanted

        await rollups.rebuild(views, lambda _: None)  # type: ignore[arg-type]
        assert await drift(store, rollups) == []
        await store.append(batch(event(11)))
        assert await drift(store, rollups) == []


async def test_hot_files_stay_until_they_are_counted(tmp_path: Path) -> None:
    async with counted(tmp_path) as (store, rollups):
        await store.append(batch(event(1)))
        await store.seal_now()
        await store.release(grace_seconds=0)
        assert rollups.keep_from() == 0
        assert len(store.files.hot) == 2
        await rollups.settle()
        await store.release(grace_seconds=0)
        assert len(store.files.hot) == 1


async def test_who_settles_while_nothing_happens_does_not_put_the_rollups_to_sleep(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with counted(tmp_path) as (store, rollups), trio.open_nursery() as nursery:
        nursery.start_soon(rollups.run)
        await trio.testing.wait_all_tasks_blocked()
        await rollups.settle()  # as a question does
        changed, before = rollups.changed, rollups.watermark
        await store.append(batch(event()))
        with trio.fail_after(5):
            await changed.wait()
        assert rollups.watermark > before
        nursery.cancel_scope.cancel()
