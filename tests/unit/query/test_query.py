from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mlc_broker.model.errors import Malformed, NotFound, StoreError, Unavailable
from mlc_broker.model.event import Facts
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Principal, Role
from mlc_broker.query.cursor import Cursors
from mlc_broker.query.export.export import Exports
from mlc_broker.query.export.formats import writer_of
from mlc_broker.query.pseudonyms import Pseudonyms
from mlc_broker.query.query import Limits, Queries
from mlc_broker.query.scopes import Asker, asker_for
from mlc_broker.store.audit import AuditLog, Wanted
from mlc_broker.store.audit_entry import Entry
from mlc_broker.store.ids import Hasher
from mlc_broker.store.reader import Position, Reader
from mlc_broker.store.store import Store
from tests.fakes_store import LESSON, SetClock, event, inline, outcomes, running
from tests.oracle_scopes import School

KEY = bytes(range(32))
ROOT = Principal(kind="user", id="root", organization_id="north", role=Role.SYSTEM_ADMIN)
TESS = Principal(kind="user", id="tess", organization_id="north", role=Role.TEACHER)
ADA = Principal(kind="user", id="ada", organization_id="north", role=Role.STUDENT)


@asynccontextmanager
async def house(path: Path, **limits: Any) -> AsyncIterator[Queries]:
    async with running(path) as store:
        log = AuditLog(path / "audit.db", KEY, clock=SetClock(), in_thread=inline)
        reader = Reader()
        yield Queries(
            store,
            reader,
            log,
            hasher=Hasher(store.files.manifest.secret("ids")),
            cursors=Cursors(KEY),
            pseudonyms=Pseudonyms(KEY),
            organization_ids=lambda: ["north", "south"],
            limits=Limits(**limits),
            in_thread=inline,
        )
        reader.close()
        log.close()


async def lesson(store: Store) -> None:
    """Five events of Ada's in Tess's class, two of Ben's elsewhere, one of the south."""
    mine = Facts(received_at=LESSON, retention_days=365, role="student", class_ids=("c1",))
    other = Facts(received_at=LESSON, retention_days=365, role="student", class_ids=("c2",))
    await outcomes(
        store,
        *(event(n, organization_id="north", facts=mine) for n in range(5)),
        *(event(n, user_id="ben", organization_id="north", facts=other) for n in (10, 11)),
        event(20, organization_id="south", facts=other, context={"teacher_id": "tom"}),
    )


def asker(principal: Principal, wanted: Filter | None = None) -> Asker:
    return asker_for(principal, School(), wanted or Filter())


async def noted(queries: Queries) -> list[Entry]:
    return [entry for _, entry in await queries.audit.entries(Wanted(limit=100))]


async def test_a_read_of_others_is_noted_before_it_is_answered(tmp_path: Path) -> None:
    async with house(tmp_path) as queries:
        await lesson(queries.store)
        page = await queries.events(asker(TESS), Filter(), limit=3)
        assert len(page.lines) == 3
        (entry,) = await noted(queries)
        assert (entry.who, entry.role, entry.action) == ("tess", "teacher", "events.list")
        assert entry.subjects == {"north": ["ada"]}
        assert (entry.count, entry.ferpa_class) == (3, "exempt:school_official")


async def test_reading_oneself_leaves_no_entry(tmp_path: Path) -> None:
    async with house(tmp_path) as queries:
        await lesson(queries.store)
        assert len((await queries.events(asker(ADA), Filter())).lines) == 5
        assert await noted(queries) == []


async def test_where_the_access_log_cannot_be_written_nothing_is_read(tmp_path: Path) -> None:
    async with house(tmp_path) as queries:
        await lesson(queries.store)

        async def broken(*_: Entry) -> None:
            raise StoreError("full")

        queries.audit.record = broken  # type: ignore[method-assign]
        with pytest.raises(Unavailable, match="access log"):
            await queries.events(asker(TESS), Filter())
        with pytest.raises(Unavailable, match="access log"):
            await queries.event(asker(TESS), "evt_00000001", Filter())
        exports = Exports(queries)
        with pytest.raises(Unavailable, match="access log"):
            await exports.open(asker(TESS), Filter(), writer_of("jsonl"), "x")
        assert exports.running == 0
        assert len((await queries.events(asker(ADA), Filter())).lines) == 5


async def test_pages_go_on_where_they_ended(tmp_path: Path) -> None:
    async with house(tmp_path) as queries:
        await lesson(queries.store)
        first = await queries.events(asker(ROOT), Filter(), limit=6)
        assert first.next is not None
        await outcomes(queries.store, event(900, organization_id="north"))
        second = await queries.events(asker(ROOT), Filter(), limit=6, cursor=first.next)
        ids = [json.loads(line)["event_id"] for line in [*first.lines, *second.lines]]
        assert len(ids) == len(set(ids)) == 8
        assert second.next is None


@pytest.mark.parametrize("cursor", ["", "x", "💥", "A" * 60, "====", "Z" * 54])
def test_a_cursor_that_is_not_ours_is_malformed(cursor: str) -> None:
    with pytest.raises(Malformed, match="cursor"):
        Cursors(KEY).position(cursor)


def test_a_changed_cursor_and_one_of_another_kind_are_malformed() -> None:
    cursors = Cursors(KEY)
    good = cursors.of_position(Position(5, 2**64 - 1, 0))
    assert cursors.position(good) == Position(5, 2**64 - 1, 0)
    changed = good[:10] + ("A" if good[10] != "A" else "B") + good[11:]
    for bad in (changed, cursors.of_entry(5), Cursors(b"y" * 32).of_position(Position(5, 1, 1))):
        with pytest.raises(Malformed):
            cursors.position(bad)


async def test_an_event_out_of_scope_does_not_exist(tmp_path: Path) -> None:
    async with house(tmp_path) as queries:
        await lesson(queries.store)
        assert await queries.event(asker(TESS), "evt_00000001", Filter())
        for who, event_id in ((TESS, "evt_00000010"), (ADA, "evt_00000020"), (ADA, "evt_00000777")):
            with pytest.raises(NotFound):
                await queries.event(asker(who), event_id, Filter())


async def test_across_organizations_no_real_id_stands_anywhere(tmp_path: Path) -> None:
    async with house(tmp_path) as queries:
        facts = Facts(received_at=LESSON, retention_days=9, role="student", teacher_ids=("tess",))
        await outcomes(
            queries.store,
            event(
                1,
                user_id="pupil-17",
                organization_id="north",
                facts=facts,
                context={
                    "teacher_id": "tess-01",
                    "actor_id": "root-09",
                    "page_url": "/students/pupil-17/scores?by=tess-01",
                },
                properties={"studentId": "pupil-17", "shared": {"recipient_ids": ["friend-3"]}},
            ),
        )
        line = (await queries.events(asker(ROOT), Filter())).lines[0]
        for real in (b"pupil-17", b"tess", b"root-09", b"friend-3"):
            assert real not in line
        told = json.loads(line)
        assert told["user_id"] == told["properties"]["studentId"]
        assert told["organization_id"] == "north"
        one = Filter(organization_id=frozenset({"north"}))
        assert b"pupil-17" in (await queries.events(asker(ROOT, one), one)).lines[0]


def test_the_same_person_has_another_pseudonym_in_another_organization() -> None:
    pseudonyms = Pseudonyms(KEY)
    assert pseudonyms.of("north", "ada") == pseudonyms.of("north", "ada")
    assert pseudonyms.of("north", "ada") != pseudonyms.of("south", "ada")
    assert pseudonyms.of("north", "ada") != Pseudonyms(b"z" * 32).of("north", "ada")


async def gather(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def test_an_export_is_noted_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    async with house(tmp_path) as queries:
        await lesson(queries.store)
        exports = Exports(queries)
        export = await exports.open(asker(TESS), Filter(), writer_of("jsonl"), "x.jsonl")
        (begin,) = await noted(queries)
        assert (begin.action, begin.more_subjects) == ("export.begin", True)
        assert len((await gather(export)).splitlines()) == 5
        await export.aclose()
        end, _ = await noted(queries)
        assert (end.action, end.count, end.subjects) == ("export.end", 5, {"north": ["ada"]})
        assert exports.running == 0


async def test_a_client_that_vanishes_gives_its_place_back_and_is_noted(tmp_path: Path) -> None:
    async with house(tmp_path, exports_max=1) as queries:
        await lesson(queries.store)
        exports = Exports(queries)
        export = await exports.open(asker(TESS), Filter(), writer_of("jsonl"), "x")
        with pytest.raises(Unavailable, match="exports are running") as refused:
            await exports.open(asker(TESS), Filter(), writer_of("jsonl"), "y")
        assert refused.value.retry_after_ms
        with trio.CancelScope() as scope:
            await anext(export)
            await anext(export)
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            finally:
                await export.aclose()
        assert exports.running == 0
        assert "cut off" in (await noted(queries))[0].detail
        unused = await exports.open(asker(TESS), Filter(), writer_of("jsonl"), "z")
        del unused
        assert exports.running == 0


async def test_what_was_read_ahead_and_never_left_is_not_in_the_access_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlc_broker.query.export.export.CHUNK_BYTES", 1)
    async with house(tmp_path) as queries:
        for user in ("ada", "ben", "cyd"):  # a commit each, so a pack and a chunk each
            number = ord(user[0])
            await outcomes(queries.store, event(number, user_id=user, organization_id="north"))
        wanted = Filter(organization_id=frozenset({"north"}))
        export = await Exports(queries).open(asker(ROOT, wanted), wanted, writer_of("jsonl"), "x")
        assert await anext(export) == b""  # what stands before the first event
        assert json.loads(await anext(export))["user_id"] == "ada"
        await trio.testing.wait_all_tasks_blocked()  # Ben's has been read by now
        await export.aclose()
        end = (await noted(queries))[0]
        assert (end.action, end.count, end.subjects) == ("export.end", 1, {"north": ["ada"]})


async def test_a_students_export_is_their_own_and_needs_no_entry(tmp_path: Path) -> None:
    async with house(tmp_path) as queries:
        await lesson(queries.store)
        export = await Exports(queries).open(asker(ADA), Filter(), writer_of("json"), "x")
        assert len(json.loads(await gather(export))) == 5
        assert await noted(queries) == []


async def test_an_export_across_organizations_has_pseudonyms(tmp_path: Path) -> None:
    async with house(tmp_path) as queries:
        await lesson(queries.store)
        for form in ("jsonl", "csv", "json", "xapi", "sqlite"):
            export = await Exports(queries).open(asker(ROOT), Filter(), writer_of(form), "x")
            body = await gather(export)
            await export.aclose()
            assert b"pseudo_" in body
            assert b'"ada"' not in body


async def test_too_many_questions_wait_and_then_are_told(
    tmp_path: Path, autojump_clock: Callable[[], None]
) -> None:
    async with house(tmp_path, queries_max=1) as queries:
        queries._seats.acquire_on_behalf_of_nowait("somebody else")
        with pytest.raises(Unavailable, match="Too many"):
            await queries.find(asker(ROOT).scope, "evt_00000001")
