"""A person who is erased is in no file, in no page of one, and does not come back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from mlc_broker.model.errors import StoreError
from mlc_broker.model.event import Facts
from mlc_broker.model.filter import Filter
from mlc_broker.model.person import User
from mlc_broker.model.principal import EVERYTHING, Role
from mlc_broker.store.care.erased import ErasedList, Record
from mlc_broker.store.care.erasure import Erasure
from mlc_broker.store.care.jobs import Jobs
from mlc_broker.store.roster import Roster
from mlc_broker.store.store import Store
from mlc_broker.testing import inline
from tests.fakes_store import LESSON, SetClock, event, outcomes, read, running
from tests.fault.test_canary import places_of

KEY = b"k" * 32
CANARY = "usr_canary_7f31"
FACTS = Facts(received_at=LESSON, retention_days=400, class_ids=("c1",))


@asynccontextmanager
async def caring(directory: Path, clock: SetClock) -> AsyncIterator[tuple[Store, Roster, Erasure]]:
    async with running(directory, clock=clock) as store:
        roster = Roster(directory / "roster.db", clock=clock)
        roster.open()
        if roster.organization("org") is None:
            roster.put("organizations", "org", {})
            roster.put("users", CANARY, User(organization_id="org", role=Role.STUDENT))
        erased = ErasedList(directory / "erased.jsonl", KEY)
        roster.erased_at = erased.erased_at
        jobs = Jobs(directory / "jobs.db")
        erasure = Erasure(
            store,
            roster,
            jobs,
            erased,
            clock=clock,
            grace_days=30,
            pseudonym=lambda user_id: f"anon_{hash(user_id)}",
            in_thread=inline,
        )
        try:
            yield store, roster, erasure
        finally:
            roster.close()
            jobs.close()


async def lessons(store: Store, n: int = 300) -> None:
    """Events of four people in two months, one of them with the session of the canary."""
    await outcomes(
        store,
        *(
            event(
                i,
                user_id=CANARY if i % 4 == 0 else f"usr_{i % 4}",
                session_id="sess_canary_7f31" if i % 4 == 0 else f"sess_{i % 4}",
                timestamp=LESSON - (i % 2) * timedelta(days=30) + timedelta(seconds=i),
                facts=FACTS,
            )
            for i in range(n)
        ),
    )


@pytest.mark.parametrize("sealed", [False, True], ids=["hot", "sealed"])
async def test_nothing_of_an_erased_person_is_left_in_any_file(
    tmp_path: Path, sealed: bool
) -> None:
    clock = SetClock(LESSON)
    async with caring(tmp_path, clock) as (store, roster, erasure):
        await lessons(store)
        if sealed:
            await store.seal_now()
            await store.release(grace_seconds=0)
        job = await erasure.erase("org", CANARY, requested_by="usr_admin", immediately=True)
        assert not await erasure.do_due()
        done = erasure.jobs.find(job.id)
        assert done is not None
        assert (done.state, done.user_id) == ("done", "")
        assert done.report["deleted"]["events"] == 75
        assert roster.user("org", CANARY) is None
        assert len(read(store)) == 225
        assert list(places_of([CANARY, "sess_canary_7f31"], tmp_path)) == []
        assert store.files.hidden == frozenset()
    assert list(places_of([CANARY, "sess_canary_7f31"], tmp_path)) == []


async def test_an_erasure_waits_for_its_days_of_grace_and_can_be_cancelled(tmp_path: Path) -> None:
    clock = SetClock(LESSON)
    async with caring(tmp_path, clock) as (store, _, erasure):
        await lessons(store)
        job = await erasure.erase("org", CANARY, requested_by="usr_admin", immediately=False)
        assert job.due == LESSON + timedelta(days=30)
        await erasure.do_due()
        assert len(read(store)) == 300
        cancelled = erasure.jobs.cancel(job.id)
        assert cancelled is not None
        assert cancelled.state == "cancelled"
        clock.move(days=31)
        await erasure.do_due()
        assert len(read(store)) == 300
        again = await erasure.erase("org", CANARY, requested_by="usr_admin", immediately=False)
        clock.move(days=31)
        await erasure.do_due()
        found = erasure.jobs.find(again.id)
        assert found is not None
        assert found.state == "done"
        assert read(store, EVERYTHING, Filter(user_id=frozenset({CANARY}))) == []


async def test_an_erasure_that_was_cut_off_is_done_after_the_restart(tmp_path: Path) -> None:
    clock = SetClock(LESSON)
    async with caring(tmp_path, clock) as (store, _, erasure):
        await lessons(store)
        job = await erasure.erase("org", CANARY, requested_by="usr_admin", immediately=True)
        erasure.jobs.begin(job.id)
        await store.hide("org", CANARY)  # and here the power went
    async with caring(tmp_path, clock) as (store, _, erasure):
        assert len(read(store)) == 225  # invisible from the first moment on
        await erasure.do_due()
        found = erasure.jobs.find(job.id)
        assert found is not None
        assert found.state == "done"
    assert list(places_of([CANARY], tmp_path)) == []


async def test_what_was_under_way_when_the_erasure_began_is_not_stored(tmp_path: Path) -> None:
    async with caring(tmp_path, SetClock(LESSON)) as (store, _, _):
        await store.hide("org", CANARY)
        (receipt,) = await outcomes(store, event(1, user_id=CANARY, facts=FACTS))
        assert "dropped" in str(receipt)


async def test_who_was_erased_does_not_come_back_but_somebody_new_may(tmp_path: Path) -> None:
    clock = SetClock(LESSON)
    async with caring(tmp_path, clock) as (_, roster, erasure):
        await erasure.erase("org", CANARY, requested_by="usr_admin", immediately=True)
        await erasure.do_due()
        later = LESSON + timedelta(days=1)
        assert roster.erased("org", CANARY, LESSON - timedelta(days=1))
        assert roster.erased("org", CANARY, later)
        assert not roster.erased("org", "usr_1", later)
        clock.move(days=1)
        roster.put("users", CANARY, User(organization_id="org", role=Role.STUDENT))
        assert not roster.erased("org", CANARY, later)
        assert roster.erased("org", CANARY, LESSON - timedelta(days=1))
    again = ErasedList(tmp_path / "erased.jsonl", KEY)
    assert again.erased_at("org", CANARY) == LESSON


def test_a_changed_record_of_deletion_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "erased.jsonl"
    erased = ErasedList(path, KEY)
    for user in ("usr_1", "usr_2", "usr_3"):
        erased.add(
            Record(
                job_id="job_1",
                subject=erased.subject("org", user),
                erased_at=LESSON,
                state="done",
                deleted={"events": 12},
            )
        )
    lines = path.read_bytes().splitlines(keepends=True)
    for forged in (
        b"".join([lines[0].replace(b"12", b"13"), *lines[1:]]),
        b"".join([lines[0], lines[2]]),
        b"".join([lines[1], lines[0], lines[2]]),
    ):
        path.write_bytes(forged)
        with pytest.raises(StoreError, match="signed"):
            ErasedList(path, KEY)
    path.write_bytes(b"".join(lines) + lines[0][:20])  # a crash in the middle of a line
    assert len(ErasedList(path, KEY)) == 3
    assert path.read_bytes() == b"".join(lines)
