"""What has expired leaves the files, its bytes too; a clock that jumped deletes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mlc_broker.model.event import Facts
from mlc_broker.store.care.jobs import Jobs
from mlc_broker.store.care.purge import ClockJumped, Purge
from mlc_broker.store.store import Store
from mlc_broker.testing import inline
from tests.fakes_store import LESSON, SetClock, event, outcomes, read, running
from tests.fault.test_canary import places_of

CANARY = "sess_expired_7f31"


class Time:
    """Wall time and elapsed time, which go together unless a test says otherwise."""

    def __init__(self) -> None:
        self.clock = SetClock(LESSON)
        self.elapsed = 0.0

    def goes_by(self, **by: float) -> None:
        before = self.clock.now()
        self.clock.move(**by)
        self.elapsed += (self.clock.now() - before).total_seconds()


@asynccontextmanager
async def purging(directory: Path, time: Time) -> AsyncIterator[tuple[Store, Purge]]:
    async with running(directory, clock=time.clock) as store:
        jobs = Jobs(directory / "jobs.db")
        try:
            yield (
                store,
                Purge(
                    store,
                    jobs,
                    clock=time.clock,
                    monotonic=lambda: time.elapsed,
                    in_thread=inline,
                ),
            )
        finally:
            jobs.close()


async def lessons(store: Store) -> None:
    """Thirty events kept for ten days with the canary's session, ninety kept for a year."""
    await outcomes(
        store,
        *(
            event(
                i,
                user_id=f"usr_{i % 7}",
                session_id=CANARY if i % 4 == 0 else "sess_other",
                timestamp=LESSON,
                facts=Facts(received_at=LESSON, retention_days=10 if i % 4 == 0 else 365),
            )
            for i in range(120)
        ),
    )


async def test_what_has_expired_is_gone_from_every_page(tmp_path: Path) -> None:
    time = Time()
    async with purging(tmp_path, time) as (store, purge):
        await lessons(store)
        await store.seal_now()
        time.goes_by(days=9)
        assert (await purge.purge()).events == 0
        assert list(places_of([CANARY], tmp_path))
        time.goes_by(days=2)
        assert len(read(store)) == 90  # invisible at once
        assert (await purge.would_purge()).by_class == {"standard": 30}
        assert (await purge.purge()).events == 30
        assert list(places_of([CANARY], tmp_path)) == []
        assert len(read(store)) == 90
        assert (await purge.would_purge()).events == 0


async def test_a_file_of_which_everything_has_expired_is_unlinked(tmp_path: Path) -> None:
    time = Time()
    async with purging(tmp_path, time) as (store, purge):
        await lessons(store)
        await store.seal_now()
        assert list(tmp_path.glob("shards/*/*/*.db"))
        time.goes_by(days=100)
        await purge.purge()
        time.goes_by(days=100)
        await purge.look()
        time.goes_by(days=100)
        await purge.look()
        time.goes_by(days=70)
        assert (await purge.purge()).events == 90
        assert list(tmp_path.glob("shards/*/*/*.db")) == []


@pytest.mark.parametrize("days", [400, -2])
async def test_a_clock_that_jumped_purges_nothing_until_somebody_says_so(
    tmp_path: Path, days: int
) -> None:
    time = Time()
    async with purging(tmp_path, time) as (store, purge):
        await lessons(store)
        await store.seal_now()
        await purge.look()
        time.clock.move(days=days)  # and no time went by
        with pytest.raises(ClockJumped) as refused:
            await purge.purge()
        assert "--confirm" in refused.value.hint
        assert list(places_of([CANARY], tmp_path))
        assert (await purge.purge(confirmed=True)).events == (120 if days > 0 else 0)


async def test_a_machine_that_wakes_up_in_another_age_purges_nothing(tmp_path: Path) -> None:
    time = Time()
    async with purging(tmp_path, time) as (store, purge):
        await lessons(store)
        await purge.look()
    time.goes_by(days=3000)
    async with purging(tmp_path, time) as (_, purge):
        with pytest.raises(ClockJumped):
            await purge.purge()


async def test_the_purge_comes_once_a_night(tmp_path: Path) -> None:
    time = Time()
    async with purging(tmp_path, time) as (store, purge):
        await lessons(store)
        done = []
        for _ in range(48):
            time.goes_by(hours=1)
            done.append(await purge.look())
        assert sum(each is not None for each in done) in (2, 3)
