"""Counting in a process of its own gives the same cells, and its death costs none of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from random import Random

import pytest

from mlc_broker.model.errors import ShardUnavailable
from mlc_broker.model.event import Event
from mlc_broker.runtime.child import FRAME_BYTES_MAX, Child, ChildEnded, framed
from mlc_broker.store import rollups_far
from mlc_broker.store.rollups import QUIET_FLUSHES, Rollups
from mlc_broker.store.rollups_far import Clerk, ClerkFailed
from tests.fakes_rollups import check, counted, drift, some_event
from tests.fakes_store import SetClock, batch


def some(chance: Random, begin: int, end: int) -> list[Event]:
    return [some_event(chance, number) for number in range(begin, end)]


def process_of(rollups: Rollups) -> int:
    clerk = rollups._clerk
    assert clerk is not None
    return clerk._child._process.pid


async def test_a_clerk_counts_what_is_committed_before_and_after_it_comes(tmp_path: Path) -> None:
    chance = Random(1)
    async with counted(tmp_path) as (store, rollups):
        await store.append(batch(*some(chance, 0, 40)))
        await rollups._hire()
        assert rollups.watermark  # what was folded before it came is written
        for begin in range(40, 160, 20):
            await store.append(batch(*some(chance, begin, begin + 20)))
            if begin == 80:
                await store.seal_now()
        assert rollups.waiting
        changed = rollups.changed
        await rollups.settle()
        assert changed.is_set()
        assert not rollups.waiting
        assert rollups.events == 160
        assert rollups.seconds > 0
        found = await check(store, rollups)  # sends it home
        assert rollups._clerk is None
        assert (found.differences, found.events) == ([], 160)
        await store.append(batch(*some(chance, 160, 180)))
        await rollups.settle()
        assert await drift(store, rollups) == []


async def test_any_coming_and_going_of_clerks_gives_a_recount(tmp_path: Path) -> None:
    seed = Random().randrange(2**32)
    print("seed", seed)
    chance, clock, at = Random(seed), SetClock(), 0
    for _ in range(3):
        async with counted(tmp_path, clock) as (store, rollups):
            for _ in range(6):
                await store.append(batch(*some(chance, at, at + 15)))
                at += 15
                match chance.randrange(6):
                    case 0 | 1:
                        if rollups._clerk is None:
                            await rollups._hire()
                    case 2:
                        await rollups.settle()
                    case 3:
                        await store.hide("org", "stu_1")
                        await rollups.forget_person("org", "stu_1")
                    case 4:
                        clock.move(days=1)
                        await rollups.expire(rollups.now_minute())
                    case 5:
                        if rollups._clerk is not None:
                            os.kill(process_of(rollups), signal.SIGKILL)
            assert await drift(store, rollups) == []


async def test_a_clerk_that_is_killed_is_done_without(tmp_path: Path) -> None:
    chance = Random(2)
    async with counted(tmp_path) as (store, rollups):
        await rollups._hire()
        await store.append(batch(*some(chance, 0, 50)))
        os.kill(process_of(rollups), signal.SIGKILL)
        await rollups.settle()
        assert rollups._clerk is None
        assert await drift(store, rollups) == []
        await rollups._choose(1e9)  # whatever killed it would again
        assert rollups._clerk is None


async def test_a_clerk_comes_with_many_events_and_goes_with_few(tmp_path: Path) -> None:
    async with counted(tmp_path, clerk_events_per_second=1000) as (_, rollups):
        await rollups._choose(999)
        nobody = rollups._clerk
        await rollups._choose(1000)
        clerk = rollups._clerk
        assert nobody is None
        assert clerk is not None
        for _ in range(QUIET_FLUSHES - 1):
            await rollups._choose(249)
        await rollups._choose(250)  # not quiet enough: it begins anew
        for _ in range(QUIET_FLUSHES - 1):
            await rollups._choose(0)
        lives = [clerk._child.lives]
        await rollups._choose(0)
        assert [*lives, clerk._child.lives] == [True, False]


async def test_a_clerk_that_does_not_start_is_told_and_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups_far, "_MODULE", "mlc_broker.store.no_such_module")
    async with counted(tmp_path, clerk_events_per_second=1) as (store, rollups):
        await store.append(batch(*some(Random(3), 0, 10)))
        await rollups._choose(2)
        assert rollups._clerk is None
        await rollups.settle()
        assert await drift(store, rollups) == []


async def test_a_clerk_says_why_it_cannot_open_the_file(tmp_path: Path) -> None:
    (tmp_path / "rollups.db").write_bytes(b"no database, but more than nothing" * 99)
    clerk = await Clerk.hire(categories=lambda _: None, zone_of=lambda _: "UTC")
    try:
        with pytest.raises(ClerkFailed, match="not a database"):
            await clerk.begin(tmp_path / "rollups.db", [])
    finally:
        await clerk.dismiss()


async def test_nothing_is_counted_twice_when_a_clerk_outlives_its_daemon(tmp_path: Path) -> None:
    async with counted(tmp_path) as (store, rollups):
        await store.append(batch(*some(Random(4), 0, 30)))
        file, before = rollups._counter.file, rollups.watermark
        async with rollups._lock:
            await rollups._fold()
        # As the clerk of a daemon that was killed, in its last moment:
        file._db.execute("INSERT OR REPLACE INTO watermark VALUES(0, ?)", (before + 7,))
        with pytest.raises(ShardUnavailable, match="another process"):
            await rollups.settle()
        file._db.execute("DELETE FROM watermark")
        await rollups.settle()
        assert await drift(store, rollups) == []


async def test_a_process_that_does_not_speak_has_ended() -> None:
    child = await Child.start("mlc_broker.no_such_module")
    with pytest.raises(ChildEnded, match="ended with status 1"):
        await child.take()
    await child.kill()
    with pytest.raises(ChildEnded):
        await child.give(b"")
    assert not child.lives
    with pytest.raises(ValueError, match="is the most"):
        framed(bytes(FRAME_BYTES_MAX + 1))
