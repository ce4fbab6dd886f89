"""What live subscribers get: in scope, after the commit, in order, bounded, counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from mlc_broker.model.errors import Forbidden, StoreError, TooMany, Unavailable
from mlc_broker.model.event import Facts
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Principal, Role
from mlc_broker.query.live import Live
from mlc_broker.query.live_flow import Flow
from mlc_broker.query.live_follow import Follower
from mlc_broker.query.live_subscription import LiveLimits, Subscription
from mlc_broker.query.pseudonyms import Pseudonyms
from mlc_broker.store.audit_entry import Entry
from mlc_broker.store.store import Store
from tests.fakes_store import LESSON, event, inline, outcomes, running

ALL = Filter()
ADMIN = Principal(kind="user", id="boss", organization_id="org", role=Role.SUBSCRIBER_ADMIN)
SYSTEM = Principal(kind="user", id="root", organization_id="hq", role=Role.SYSTEM_ADMIN)
TEACHER = Principal(kind="user", id="tess", organization_id="org", role=Role.TEACHER)


def student(user_id: str) -> Principal:
    return Principal(kind="user", id=user_id, organization_id="org", role=Role.STUDENT)


class School:
    """Who teaches what: tests change it."""

    def __init__(self) -> None:
        self.classes = {"tess": frozenset({"cls_1"})}

    def classes_taught_by(
        self, organization_id: str, teacher_ids: frozenset[str]
    ) -> frozenset[str]:
        return frozenset().union(*(self.classes.get(who, frozenset()) for who in teacher_ids))

    def teachers_managed_by(self, organization_id: str, user_id: str) -> frozenset[str]:
        return frozenset()


class Log:
    """An access log in a list, which can be full."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.full = False

    async def record(self, *entries: Entry) -> None:
        if self.full:
            raise StoreError("the disk is full")
        self.entries.extend(entries)


class House:
    def __init__(self, store: Store, live: Live, school: School, log: Log) -> None:
        self.store, self.live, self.school, self.log = store, live, school, log

    async def stores(self, *numbers: int, **fields: Any) -> None:
        done = await outcomes(self.store, *(event(number, **fields) for number in numbers))
        assert set(done) == {"stored"}

    async def read(self, subscription: Subscription) -> tuple[list[str], int]:
        """Deliver, and return what waits then: the last digits of ids, and what was missed."""
        await self.live.deliver()
        if not subscription._waiting:
            return [], 0
        lines, missed = await subscription.__anext__()
        return [msgspec.json.decode(line)["event_id"][-4:].lstrip("0") for line in lines], missed


@asynccontextmanager
async def house(path: Path, **limits: Any) -> AsyncIterator[House]:
    async with running(path, commit_events_max=10) as store:
        school, log = School(), Log()
        live = Live(
            store,
            school,
            rename=Pseudonyms(b"k" * 32).line,
            access_log=log,
            limits=LiveLimits(**limits),
        )
        store.on_commit = live.committed
        yield House(store, live, school, log)


async def test_a_subscriber_gets_what_is_committed_after_it_joined(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        await it.stores(1)
        reader = await it.live.subscribe(ADMIN, ALL)
        assert await it.read(reader) == ([], 0)
        await it.stores(2, 3)
        await it.stores(4)
        assert await it.read(reader) == (["2", "3", "4"], 0)


async def test_the_lines_are_the_stored_lines(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        reader = await it.live.subscribe(ADMIN, ALL)
        await it.stores(1, properties={"score": 7})
        await it.live.deliver()
        lines, _ = await reader.__anext__()
        told = msgspec.json.decode(lines[0])
        assert told["properties"] == {"score": 7}
        assert told["meta"]["stored_at"] == "2026-11-20T09:30:00.000Z"


async def test_everybody_sees_only_what_is_theirs(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        ada = await it.live.subscribe(student("ada"), ALL)
        ben = await it.live.subscribe(student("ben"), ALL)
        tess = await it.live.subscribe(TEACHER, ALL)
        boss = await it.live.subscribe(ADMIN, ALL)
        in_class = Facts(received_at=LESSON, class_ids=("cls_1",), role="student")
        await it.stores(1, user_id="ada", facts=in_class)
        await it.stores(2, user_id="ben")
        await it.stores(3, user_id="ada", event_type="page_load")
        await it.stores(4, user_id="ada", organization_id="other")
        assert await it.read(ada) == (["1"], 0)
        assert await it.read(ben) == (["2"], 0)
        assert await it.read(tess) == (["1"], 0)
        assert await it.read(boss) == (["1", "2", "3"], 0)


async def test_a_change_of_the_roster_counts_at_once(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        reader = await it.live.subscribe(TEACHER, ALL)
        in_class = Facts(received_at=LESSON, class_ids=("cls_1",), role="student")
        await it.stores(1, facts=in_class)
        assert await it.read(reader) == (["1"], 0)
        it.school.classes["tess"] = frozenset()
        await it.stores(2, facts=in_class)
        assert await it.read(reader) == ([], 0)


async def test_a_filter_narrows(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        reader = await it.live.subscribe(ADMIN, Filter(event_type=frozenset({"page_view"})))
        await it.stores(1)
        await it.stores(2, event_type="page_view")
        assert await it.read(reader) == (["2"], 0)


async def test_across_organizations_people_have_pseudonyms(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        everywhere = await it.live.subscribe(SYSTEM, ALL)
        named = await it.live.subscribe(SYSTEM, Filter(organization_id=frozenset({"org"})))
        await it.stores(1, user_id="ada_lovelace")
        await it.stores(2, user_id="ada_lovelace", organization_id="other")
        await it.live.deliver()
        lines, _ = await everywhere.__anext__()
        people = [msgspec.json.decode(line)["user_id"] for line in lines]
        assert all(person.startswith("pseudo_") for person in people)
        assert people[0] != people[1]
        lines, _ = await named.__anext__()
        assert [msgspec.json.decode(line)["user_id"] for line in lines] == ["ada_lovelace"]


async def test_a_slow_reader_keeps_the_newest_and_is_told_how_many_it_missed(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, subscriber_events_max=3) as it:
        reader = await it.live.subscribe(ADMIN, ALL)
        await it.stores(*range(1, 9))
        assert await it.read(reader) == (["6", "7", "8"], 5)
        await it.stores(9)
        assert await it.read(reader) == (["9"], 0)


async def test_a_slow_reader_holds_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    async with house(tmp_path, subscriber_bytes_max=20_000) as it:
        reader = await it.live.subscribe(ADMIN, ALL)
        for number in range(1, 30):
            await it.stores(number, properties={"text": "x" * 5000})
        await it.live.deliver()
        assert sum(len(line) for _, line in reader._waiting) <= 20_000
        _, missed = await reader.__anext__()
        assert missed == 29 - 3


async def test_without_subscribers_nothing_is_noted(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        await it.stores(1)
        assert it.live._noted == []
        reader = await it.live.subscribe(ADMIN, ALL)
        await reader.aclose()
        assert len(it.live) == 0
        await it.stores(2)
        assert it.live._noted == []


async def test_keys_read_nothing_and_readers_are_not_too_many(tmp_path: Path) -> None:
    async with house(tmp_path, subscribers_max=1) as it:
        with pytest.raises(Forbidden):
            await it.live.subscribe(Principal(kind="ingest", id="key", organization_id="org"), ALL)
        await it.live.subscribe(ADMIN, ALL)
        with pytest.raises(TooMany):
            await it.live.subscribe(ADMIN, ALL)


async def test_reading_others_is_written_down_before_and_own_events_are_not(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as it:
        await it.live.subscribe(student("ada"), ALL)
        await it.live.subscribe(TEACHER, Filter(user_id=frozenset({"tess"})))
        assert it.log.entries == []
        await it.live.subscribe(TEACHER, Filter(class_id=frozenset({"cls_1"})))
        (entry,) = it.log.entries
        assert (entry.who, entry.role, entry.action) == ("tess", "teacher", "live")
        assert entry.filters == {"class_id": ["cls_1"]}
        assert entry.more_subjects
        it.log.full = True
        with pytest.raises(Unavailable, match="unlogged"):
            await it.live.subscribe(TEACHER, ALL)


async def test_the_end_of_the_feed_ends_every_iteration(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        reader = await it.live.subscribe(ADMIN, ALL)
        it.live.end()
        assert [page async for page in reader] == []


async def test_what_is_committed_is_delivered_by_the_task(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async with house(tmp_path) as it:
        nursery.start_soon(it.live.run)
        reader = await it.live.subscribe(ADMIN, ALL)
        for number in (1, 2, 3):
            began = trio.current_time()
            await it.stores(number)
            lines, _ = await reader.__anext__()
            assert len(lines) == 1
            assert trio.current_time() - began <= 0.2
        nursery.cancel_scope.cancel()


def follower(it: House, after: int | None, who: Principal = ADMIN) -> Follower:
    return Follower(it.live, who, ALL, after=after, in_thread=inline)


async def pages(it: House, reader: Follower, events: int) -> list[str]:
    """Read so many events."""
    found: list[str] = []
    while len(found) < events:
        await it.live.deliver()
        page = await reader.page()
        assert page is not None
        found += [msgspec.json.decode(line)["event_id"][-4:].lstrip("0") for line in page.lines]
    return found


async def test_a_reader_that_comes_back_misses_nothing_and_sees_nothing_twice(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as it:
        await it.stores(1)
        first = follower(it, None)
        await first.open()
        await it.stores(2)
        assert await pages(it, first, 1) == ["2"]
        first.close()
        await it.stores(3, 4)
        await it.store.rotate()
        await it.stores(5)
        again = follower(it, first.cursor)
        await again.open()
        assert await pages(it, again, 3) == ["3", "4", "5"]
        await it.stores(6)
        assert await pages(it, again, 1) == ["6"]
        assert not again.gap


async def test_a_follower_too_slow_for_the_queue_goes_on_from_the_store(tmp_path: Path) -> None:
    async with house(tmp_path, subscriber_events_max=3) as it:
        reader = follower(it, None)
        await reader.open()
        await it.stores(*range(1, 9))
        await it.live.deliver()
        await it.stores(9)
        assert await pages(it, reader, 9) == [str(number) for number in range(1, 10)]


async def test_a_follower_sees_its_scope_in_what_was_stored_before(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        await it.stores(1, user_id="ada")
        await it.stores(2, user_id="ben")
        await it.stores(3, user_id="ada")
        reader = follower(it, 0, student("ada"))
        await reader.open()
        assert await pages(it, reader, 2) == ["1", "3"]


async def test_a_follower_of_what_was_let_go_says_so(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        await it.stores(1)
        cursor = it.live.last
        await it.stores(2)
        await it.store.seal_now()
        await it.store.release(grace_seconds=0)
        await it.stores(3)
        reader = follower(it, cursor)
        await reader.open()
        assert reader.gap
        assert await pages(it, reader, 1) == ["3"]


async def test_a_cursor_survives_a_restart(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        await it.stores(1, 2)
        cursor = it.live.last - 1
    async with house(tmp_path) as it:
        reader = follower(it, cursor)
        await reader.open()
        assert await pages(it, reader, 1) == ["2"]


async def test_flow_counts_types_and_organizations(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        flow = Flow(it.store.files)
        it.store.on_commit = flow.committed
        for number in range(70):
            await it.stores(number + 1)
        await it.stores(99, event_type="page_view", organization_id="other")
        assert flow.types == {"game_stage_complete": 70, "page_view": 1}
        assert flow.organizations == {"org": 70, "other": 1}
