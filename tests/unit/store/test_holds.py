"""What is under a legal hold outlives its retention and its person's erasure; then it goes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from mlc_broker.model.batch import Batch, Origin, Outcome, Receipt
from mlc_broker.model.principal import Principal
from mlc_broker.runtime.clock import Clock
from mlc_broker.store.holds import Hold, holds_in
from mlc_broker.store.quarantine import Quarantine, QuarantineFile
from mlc_broker.store.rollups_file import read as read_cells
from mlc_broker.store.store import Store
from mlc_broker.testing import inline
from tests.fakes_rollups import counted
from tests.fakes_store import LESSON, SetClock, batch, event, read, running
from tests.fault.test_canary import places_of
from tests.unit.store.test_care_erasure import CANARY, caring
from tests.unit.store.test_care_erasure import lessons as lessons_of_the_canary
from tests.unit.store.test_care_purge import CANARY as EXPIRED
from tests.unit.store.test_care_purge import Time, lessons, purging


def hold(organization_id: str = "org", user_id: str = "", clock: Clock | None = None) -> Hold:
    at: datetime = clock.now() if clock else LESSON
    return Hold(
        organization_id=organization_id, user_id=user_id, reason="case 7", set_by="counsel", at=at
    )


async def test_what_is_held_of_an_organization_is_not_purged_until_the_hold_ends(
    tmp_path: Path,
) -> None:
    time = Time()
    async with purging(tmp_path, time) as (store, purge):
        await lessons(store)
        await store.hold(hold())
        await store.seal_now()
        time.goes_by(days=11)
        assert len(read(store)) == 90  # a hold shows nobody what has expired
        assert (await purge.would_purge()).events == 0
        assert (await purge.purge()).events == 0
        assert list(places_of([EXPIRED], tmp_path))
        assert await store.end_hold("org")
        assert (await purge.purge()).events == 30
        assert list(places_of([EXPIRED], tmp_path)) == []
        assert not await store.end_hold("org")


async def test_a_hold_on_one_person_keeps_nobody_elses_events(tmp_path: Path) -> None:
    time = Time()
    async with purging(tmp_path, time) as (store, purge):
        await lessons(store)
        await store.seal_now()
        await store.hold(hold(user_id="usr_1"))
        await store.hold(hold("another_org"))
        time.goes_by(days=11)
        mine = len([i for i in range(120) if i % 4 == 0 and i % 7 == 1])
        assert (await purge.purge()).events == 30 - mine


async def test_a_file_of_which_everything_has_expired_stays_while_any_of_it_is_held(
    tmp_path: Path,
) -> None:
    time = Time()
    async with purging(tmp_path, time) as (store, _):
        await lessons(store)
        await store.seal_now()
        await store.hold(hold(user_id="usr_1"))
        time.goes_by(days=370)
        assert await store.unlink_expired() == 0
        assert list(tmp_path.glob("shards/*/*/*.db"))
        await store.end_hold("org", "usr_1")
        assert await store.unlink_expired() == 1
        assert list(tmp_path.glob("shards/*/*/*.db")) == []


async def test_sealing_and_merging_leave_nothing_behind_that_is_held(tmp_path: Path) -> None:
    time = Time()
    async with purging(tmp_path, time) as (store, purge):
        await lessons(store)
        await store.hold(hold())
        time.goes_by(days=60)  # expired before it was sealed
        await store.seal_now()
        assert await store.merge() == 1
        await store.release(grace_seconds=0)
        assert stored(store) == 120
        await store.end_hold("org")
        assert (await purge.purge()).events == 30


async def test_a_hold_outlives_the_daemon_and_is_read_beside_it(tmp_path: Path) -> None:
    time = Time()
    async with purging(tmp_path, time) as (store, _):
        await store.hold(hold(user_id="usr_1"))
        assert [(one.user_id, one.reason) for one in holds_in(tmp_path)] == [("usr_1", "case 7")]
    async with running(tmp_path, clock=time.clock) as store:
        assert store.files.held == {("org", "usr_1")}


def test_a_directory_without_a_broker_holds_nothing(tmp_path: Path) -> None:
    assert holds_in(tmp_path) == []


async def test_an_erasure_waits_while_its_person_is_held_and_says_why(tmp_path: Path) -> None:
    clock = SetClock(LESSON)
    async with caring(tmp_path, clock) as (store, _, erasure):
        await lessons_of_the_canary(store)
        await store.hold(hold(user_id=CANARY))
        job = await erasure.erase("org", CANARY, requested_by="usr_admin", immediately=True)
        assert "legal hold" in job.detail
        assert not await erasure.do_due()
        waiting = erasure.jobs.find(job.id)
        assert waiting is not None
        assert (waiting.state, "legal hold" in waiting.detail) == ("waiting", True)
        assert len(read(store)) == 300
        await store.end_hold("org", CANARY)
        await erasure.do_due()
        done = erasure.jobs.find(job.id)
        assert done is not None
        assert (done.state, done.detail) == ("done", "")
        assert list(places_of([CANARY], tmp_path)) == []


async def test_a_hold_on_the_organization_stops_the_erasure_of_each_of_its_people(
    tmp_path: Path,
) -> None:
    clock = SetClock(LESSON)
    async with caring(tmp_path, clock) as (store, _, erasure):
        await lessons_of_the_canary(store)
        await store.hold(hold())
        await erasure.erase("org", CANARY, requested_by="usr_admin", immediately=True)
        await erasure.do_due()
        assert len(read(store)) == 300


async def test_the_quarantine_keeps_what_is_held_beyond_its_week(tmp_path: Path) -> None:
    clock = SetClock(LESSON)
    file = QuarantineFile(tmp_path / "q.db", b"k" * 32, build="1", bytes_max=1 << 20)
    try:
        quarantine = Quarantine(file, clock=clock, in_thread=inline)
        refused = Receipt(Outcome.REJECTED, "schema")
        events = [event(i, user_id=f"usr_{i}", organization_id="org") for i in range(3)]
        origin = Origin(
            principal=Principal(kind="ingest", id="key", organization_id="org"),
            received_at=LESSON,
            transport="http",
        )
        await quarantine.keep(Batch(origin, []), [(one, refused) for one in events])
        await quarantine.flush()
        file.held = lambda: frozenset({("org", "usr_1")})
        clock.move(days=8)
        assert file.expire(clock.now()) == 2
        assert [one.event.user_id for one in file.read() if one.event] == ["usr_1"]
        file.held = frozenset
        assert file.expire(clock.now()) == 1
    finally:
        file.close()


async def test_metrics_lose_the_cells_and_the_name_of_whoever_has_expired(tmp_path: Path) -> None:
    clock = SetClock(LESSON)
    async with counted(tmp_path, clock) as (store, rollups):
        held = store.files.held
        rollups._held = lambda: held
        await store.append(batch(event(1, user_id="usr_ada"), event(2, user_id="usr_bob")))
        await rollups.settle()
        assert names(rollups.path) == {"usr_ada", "usr_bob"}
        clock.move(days=4000)
        held = frozenset({("org", "usr_ada")})
        assert await rollups.expire(rollups.now_minute()) > 0
        assert names(rollups.path) == {"usr_ada"}
        held = frozenset()
        await rollups.expire(rollups.now_minute())
        assert names(rollups.path) == set()
        for path in tmp_path.glob("rollups.db*"):
            assert b"usr_" not in path.read_bytes(), path


async def test_who_comes_back_after_expiring_from_the_metrics_has_a_name_again(
    tmp_path: Path,
) -> None:
    clock = SetClock(LESSON)
    async with counted(tmp_path, clock) as (store, rollups):
        await store.append(batch(event(1, user_id="usr_ada", timestamp=clock.now())))
        await rollups.settle()
        clock.move(days=4000)
        await rollups.expire(rollups.now_minute())
        await store.append(batch(event(2, user_id="usr_ada", timestamp=clock.now())))
        await rollups.settle()
        assert names(rollups.path) == {"usr_ada"}
        standings = read_cells(rollups.path, "SELECT count(*) FROM standing", {})
        assert standings[0][0] == 1


def names(path: Path) -> set[str]:
    query = "SELECT text FROM word WHERE text LIKE 'usr%'"
    return {text for (text,) in read_cells(path, query, {})}


def stored(store: Store) -> int:
    return sum(entry.n for entry in store.files.homes.values())
