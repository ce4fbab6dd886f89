import json
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from mlc_broker.model.errors import Unavailable
from mlc_broker.model.event import Event, Facts
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import EVERYTHING, NOTHING, Grant, Scope
from mlc_broker.store.ids import Hasher
from mlc_broker.store.reader import Deadline, Found, Position, Reader
from mlc_broker.store.schema import sqlite3
from mlc_broker.store.store import Store
from tests.fakes_store import LESSON, SetClock, event, outcomes, running

LONG = 3650


def old(number: int, *, days: int, **fields: Any) -> Event:
    """An event of some days ago, kept for ten years."""
    facts = Facts(received_at=LESSON, retention_days=LONG, class_ids=("c1",), role="student")
    moment = LESSON - timedelta(days=days) + timedelta(seconds=number)
    return event(number, timestamp=moment, facts=facts, **fields)


def page(
    reader: Reader,
    store: Store,
    *,
    limit: int = 50,
    before: Position | None = None,
    scope: Scope = EVERYTHING,
    wanted: Filter | None = None,
    seconds: float = 5.0,
) -> list[Found]:
    selection = store.select(scope, wanted)
    views = store.views(selection)
    return reader.page(views, selection, limit=limit, before=before, deadline=Deadline(seconds))


def ids(found: list[Found]) -> list[str]:
    return [json.loads(item.line)["event_id"] for item in found]


async def sealed_months(store: Store, months: int = 6) -> None:
    for month in range(months):
        await outcomes(store, *(old(100 * month + n, days=31 * month) for n in range(5)))
    await store.seal_now()


async def test_the_first_page_opens_no_more_files_than_it_needs(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await sealed_months(store)
        assert len(store.views(store.select(EVERYTHING))) == 6
        reader = Reader()
        assert ids(page(reader, store, limit=5)) == [f"evt_{n:08d}" for n in (4, 3, 2, 1, 0)]
        assert reader.connections.opened == 1
        assert len(page(reader, store, limit=6)) == 6
        assert reader.connections.opened == 2
        reader.close()


async def test_pages_hold_each_event_once_whatever_happens_between_them(tmp_path: Path) -> None:
    clock = SetClock()
    async with running(tmp_path, clock) as store:
        same_time = [event(n, timestamp=LESSON) for n in range(40)]
        await outcomes(store, *same_time, *(old(100 + n, days=n % 3) for n in range(60)))
        reader, before = Reader(), None
        seen: list[str] = []
        for turn in range(100):
            found = page(reader, store, limit=7, before=before)
            if not found:
                break
            seen += ids(found)
            before = found[-1].position
            if turn == 2:
                await outcomes(store, *(event(500 + n, timestamp=LESSON) for n in range(3)))
            if turn == 4:
                await store.seal_now()
                reader.close()
                reader = Reader()
        original = [i for i in seen if int(i[4:]) < 500]
        assert sorted(original) == [f"evt_{n:08d}" for n in (*range(40), *range(100, 160))]
        reader.close()


async def test_a_page_is_sorted_by_time_and_then_by_the_hash_of_the_id(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await outcomes(store, *(old(n, days=n % 4) for n in range(50)))
        await store.seal_now()
        await outcomes(store, *(old(100 + n, days=n % 4) for n in range(50)))
        reader = Reader()
        positions = [item.position for item in page(reader, store, limit=100)]
        assert positions == sorted(positions, reverse=True)
        assert len(set(positions)) == 100
        reader.close()


async def test_a_page_is_what_sorting_everything_would_give(tmp_path: Path) -> None:
    random = Random(7)
    async with running(tmp_path) as store:
        await outcomes(store, *(old(n, days=n % 5) for n in range(40)))
        await store.seal_now()
        await outcomes(store, *(old(n, days=n % 5) for n in range(40, 80)))
        reader = Reader()
        everything = page(reader, store, limit=1000)
        assert len(everything) == 80
        for _ in range(200):
            limit, at = random.randint(1, 40), random.randrange(80)
            found = page(reader, store, limit=limit, before=everything[at].position)
            assert found == everything[at + 1 : at + 1 + limit]
        reader.close()


async def test_nobody_sees_anything_with_an_empty_scope(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await sealed_months(store, 2)
        reader = Reader()
        assert page(reader, store, scope=NOTHING) == []
        selection = store.select(NOTHING)
        views = store.views(selection)
        assert list(reader.scan(views, selection, deadline=Deadline(5))) == []
        reader.close()


async def test_a_damaged_pack_is_passed_over_and_told_never_served(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await sealed_months(store, 2)
        view = store.views(store.select(EVERYTHING))[0]
        connection = sqlite3.connect(str(view.path))
        connection.execute("UPDATE pack SET cols = zeroblob(length(cols))")
        connection.commit()
        connection.close()
        reader = Reader()
        assert ids(page(reader, store)) == [f"evt_{n:08d}" for n in (104, 103, 102, 101, 100)]
        assert "checksum" in "".join(reader.troubles.values())
        reader.close()


async def test_a_file_that_is_no_database_is_passed_over_and_told(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await sealed_months(store, 2)
        path = store.views(store.select(EVERYTHING))[0].path
        for side in ("-wal", "-shm"):
            path.with_name(path.name + side).unlink(missing_ok=True)
        path.write_bytes(b"no database" * 2000)
        reader = Reader()
        assert len(page(reader, store)) == 5
        assert reader.troubles
        reader.close()


async def test_a_question_ends_when_its_time_is_over(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await sealed_months(store, 2)
        reader = Reader()
        with pytest.raises(Unavailable, match="longer than"):
            page(reader, store, seconds=-1)
        reader.close()


async def test_only_so_many_files_stay_open(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await sealed_months(store)
        reader = Reader(open_files_max=2)
        assert len(page(reader, store, limit=100)) == 30
        assert len(reader.connections._idle) == 2
        reader.close()
        assert len(reader.connections._idle) == 0


async def test_a_readers_connection_cannot_write(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await sealed_months(store, 1)
        reader = Reader()
        path = store.views(store.select(EVERYTHING))[0].path
        with (
            pytest.raises(sqlite3.OperationalError),
            reader.connections.borrow(path, Deadline(5)) as connection,
        ):
            connection.execute("DELETE FROM pack")
        reader.close()


async def test_an_event_is_found_by_its_id_only_by_who_may_see_it(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await sealed_months(store, 3)
        await outcomes(store, event(900, user_id="ben"))
        reader, hasher = Reader(), Hasher(store.files.manifest.secret("ids"))

        def look(number: int, scope: Scope) -> bytes | None:
            digest = hasher.hash("org", f"evt_{number:08d}")
            hashes = np.frombuffer(digest, "<u8").reshape(-1, 2)
            selection = store.select(scope)
            views = store.views(selection)
            return reader.by_hash(views, selection, hashes, deadline=Deadline(5))

        ada = Scope(organization_id="org", grants=(Grant(user_ids=frozenset({"ada"})),))
        ben = Scope(organization_id="org", grants=(Grant(user_ids=frozenset({"ben"})),))
        assert b"evt_00000201" in (look(201, ada) or b"")
        assert b"evt_00000900" in (look(900, ben) or b"")
        assert look(900, ada) is None
        assert look(201, ben) is None
        assert look(201, NOTHING) is None
        assert look(777, EVERYTHING) is None
        reader.close()


async def test_a_scan_yields_all_of_it_in_whole_lines(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await sealed_months(store, 3)
        await outcomes(store, *(event(700 + n, user_id=("ada", "ben")[n % 2]) for n in range(9)))
        reader = Reader()
        for wanted, count in ((Filter(), 24), (Filter(user_id=frozenset({"ben"})), 4)):
            selection = store.select(EVERYTHING, wanted)
            views = store.views(selection)
            pieces = list(reader.scan(views, selection, deadline=Deadline(5)))
            lines = b"".join(piece.body for piece in pieces).split(b"\n")
            assert len(lines) - 1 == count == sum(len(piece.rows) for piece in pieces)
            assert lines[-1] == b""
        reader.close()


async def test_what_was_rewritten_is_never_answered_from_memory(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await outcomes(store, old(1, days=0), old(2, days=0, user_id="ben"))
        await store.seal_now()
        reader = Reader()
        assert len(page(reader, store)) == 2
        await store.hide("org", "ben")
        assert ids(page(reader, store)) == ["evt_00000001"]
        reader.close()


def test_positions_compare_by_time_first() -> None:
    assert Position(1, 9, 9) < Position(2, 0, 0) < Position(2, 0, 1) < Position(2, 1, 0)
