from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from mlc_broker.model.event import Event, Facts
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import EVERYTHING, Grant, Scope
from mlc_broker.store.columns import Rows
from mlc_broker.store.schema import open_reader, sqlite3
from mlc_broker.store.select import Mask, Words
from mlc_broker.store.shard import Shard
from tests.fakes_store import LESSON, SetClock, event, ids, outcomes, read, running

DAY = timedelta(days=1)


def school_day(n: int = 600) -> list[Event]:
    """Events of twenty people in three classes, in two months and two retention classes."""
    return [
        event(
            i,
            user_id=f"user{i % 20}",
            timestamp=LESSON - (i % 2) * 30 * DAY + timedelta(seconds=i),
            properties={"n": i},
            facts=Facts(
                received_at=LESSON,
                class_ids=(f"c{i % 3}",),
                retention="sensitive" if i % 5 == 0 else "standard",
                retention_days=400,
            ),
        )
        for i in range(n)
    ]


async def test_sealing_moves_every_event_and_shows_each_once(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        many = school_day()
        await outcomes(store, *many)
        before = sorted(read(store), key=lambda line: line["event_id"])
        assert await store.seal_now() == 1
        assert sorted(read(store), key=lambda line: line["event_id"]) == before
        homes = {home.path for home in store.files.homes}
        assert homes == {
            f"shards/{retention}/{month}/0.db"
            for retention in ("standard", "sensitive")
            for month in ("2026-10", "2026-11")
        }
        await outcomes(store, event(9999))
        assert len(read(store)) == 601
    async with running(tmp_path) as store:
        assert len(read(store)) == 601


async def test_a_sealed_pack_holds_one_class_user_by_user(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await outcomes(store, *school_day(3000))
        await store.seal_now()
    connection = open_reader(tmp_path / "shards/standard/2026-11/0.db")
    refs = connection.execute("SELECT n FROM pack ORDER BY id").fetchall()
    assert [n for (n,) in refs][:-1] == [256] * (len(refs) - 1)
    mentions = connection.execute("SELECT count(*) FROM mention").fetchone()[0]
    assert mentions < 20 * len(refs)
    connection.close()


async def test_a_student_and_a_class_are_found_in_hot_and_sealed_files_alike(
    tmp_path: Path,
) -> None:
    many = school_day()
    student = Scope(organization_id="org", grants=(Grant(user_ids=frozenset({"user7"})),))
    one_class = Filter(class_id=frozenset({"c1"}))
    async with running(tmp_path) as store:
        await outcomes(store, *many)
        hot = [ids(read(store, student)), ids(read(store, EVERYTHING, one_class))]
        await store.seal_now()
        assert [ids(read(store, student)), ids(read(store, EVERYTHING, one_class))] == hot
        assert [len(found) for found in hot] == [30, 200]


async def test_sealed_ids_stay_known_within_the_window_and_after_it(tmp_path: Path) -> None:
    clock = SetClock()
    old, new = event(1, timestamp=LESSON - 20 * DAY), event(2)
    async with running(tmp_path, clock) as store:
        await outcomes(store, old, new)
        await store.seal_now()
        await store.release(grace_seconds=0)
        assert await outcomes(store, old, new) == ["duplicate", "duplicate"]
    clock.move(days=3)
    async with running(tmp_path, clock) as store:
        assert len(store.ids) == 0
        assert await outcomes(store, old, new, event(3)) == ["duplicate", "duplicate", "stored"]


async def test_a_hot_file_is_unlinked_when_nobody_needs_it(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await outcomes(store, event(1))
        needed = store.writer.hot.first_sequence
        await store.seal_now()
        store.keep_from = lambda: needed
        await store.release(grace_seconds=0)
        assert len(store.views_after(needed)) == 1
        store.keep_from = lambda: needed + 1
        await store.release(grace_seconds=0)
        assert store.views_after(needed) == []
        assert [path.name for path in (tmp_path / "hot").glob("*.db")] == ["00000002.db"]
        assert len(read(store)) == 1


async def test_a_view_taken_before_sealing_can_still_be_read_after_it(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await outcomes(store, *school_day(50))
        selection = store.select(EVERYTHING)
        views = store.views(selection)
        await store.seal_now()
        await store.release()
        found = 0
        for view in views:
            connection = open_reader(view.path)
            words = view.words(connection)
            for ref in view.find(connection, words, selection):
                found += view.load(connection, ref).n
            connection.close()
        assert found == 50


async def test_what_has_expired_or_is_being_erased_is_left_behind(tmp_path: Path) -> None:
    clock = SetClock()
    async with running(tmp_path, clock) as store:
        short = Facts(received_at=LESSON, retention_days=1)
        await outcomes(store, event(1, facts=short), event(2), event(3, user_id="ben"))
        await store.hide("org", "ben")
        clock.move(days=2)
        await store.seal_now()
        assert [entry.n for entry in store.files.homes.values()] == [1]


async def test_a_home_is_unlinked_when_all_of_it_has_expired(tmp_path: Path) -> None:
    clock = SetClock()
    async with running(tmp_path, clock) as store:
        await outcomes(store, event(1), event(2, facts=Facts(retention_days=10)))
        await store.seal_now()
        clock.move(days=100)
        assert await store.unlink_expired() == 0
        assert ids(read(store)) == ["evt_00000001"]
        clock.move(days=300)
        assert await store.unlink_expired() == 1
        assert not list(tmp_path.glob("shards/*/*/*.db*"))


async def test_a_month_that_is_over_becomes_one_run_that_opens_read_only(tmp_path: Path) -> None:
    clock = SetClock()
    async with running(tmp_path, clock) as store:
        for part in range(4):
            await outcomes(store, *school_day()[part * 150 : part * 150 + 150])
            await store.seal_now()
        before = sorted(read(store), key=lambda line: line["event_id"])
        assert await store.merge() == 2  # October
        clock.move(days=20)
        assert await store.merge() == 2  # November; October did not change
        assert sorted(read(store), key=lambda line: line["event_id"]) == before
        await store.release(grace_seconds=0)
        files = sorted(path.name for path in tmp_path.glob("shards/*/*/*"))
        assert files == ["0.1.db"] * 4
        file = next(tmp_path.glob("shards/standard/2026-10/*"))
        frozen = sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)
        runs = frozen.execute("SELECT count(DISTINCT run), sum(n) FROM pack").fetchone()
        assert runs == (1, 240)
        frozen.close()
        late = event(5000, timestamp=LESSON - 30 * DAY)
        assert await outcomes(store, late, school_day()[1]) == ["stored", "duplicate"]
        await store.seal_now()
        assert len(read(store)) == 601
    async with running(tmp_path, clock) as store:
        assert len(read(store)) == 601


async def test_one_persons_events_leave_a_sealed_file_and_the_others_stay(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        secret = "a-word-of-bens"
        await outcomes(store, *school_day(300), event(7000, user_id="ben", session_id=secret))
        await store.seal_now()
        path = tmp_path / "shards/standard/2026-11/0.db"
        shard = Shard(path)
        words = shard._db.execute("SELECT code FROM word WHERE word = 'ben'").fetchone()

        def of_ben(rows: Rows, _: Words) -> Mask:
            return np.asarray(rows["user"] == words[0])

        assert shard.drop(of_ben, words[0]) == 1
        shard.close()
        assert len(read(store)) == 300
        assert "evt_00007000" not in ids(read(store))


async def test_large_and_old_hot_files_are_sealed_by_themselves(tmp_path: Path) -> None:
    clock = SetClock()
    async with running(tmp_path, clock) as store:
        await outcomes(store, event(1))
        await store.tidy()
        assert store.writer.hot.number == 1
        clock.move(hours=25)
        await store.tidy()
        assert store.writer.hot.number == 2
        assert store.files.entries[1].state == "sealed"


async def test_verify_walks_all_files_and_finds_a_flipped_bit(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await outcomes(store, *school_day())
        await store.seal_now()
        await store.release(grace_seconds=0)
        told: list[int] = []
        report = await store.verify(lambda r: told.append(r.files))
        assert (report.events, report.damaged, told) == (600, [], [1, 2, 3, 4, 5])
    path = tmp_path / "shards/standard/2026-11/0.db"
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"\x28\xb5\x2f\xfd") + 30] ^= 1
    path.write_bytes(raw)
    async with running(tmp_path) as store:
        report = await store.verify()
        assert len(report.damaged) == 1
        assert "checksum" in report.damaged[0]


async def test_organizations_live_in_the_file_of_their_slot(tmp_path: Path) -> None:
    async with running(tmp_path, slots=4) as store:
        await outcomes(store, *(event(n, organization_id=f"org{n}") for n in range(40)))
        await store.seal_now()
        assert {home.slot for home in store.files.homes} == {0, 1, 2, 3}
        old = event(0, organization_id="org0")
        assert await outcomes(store, old) == ["duplicate"]
        assert len(read(store)) == 40


@pytest.mark.parametrize("step", [1, 100, 10_000])
async def test_sealing_in_steps_of_any_size_loses_nothing(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlc_broker.store.sealer.STEP_EVENTS", step)
    async with running(tmp_path) as store:
        for at in range(0, 300, 60):
            await outcomes(store, *school_day(300)[at : at + 60])
        await store.seal_now()
        assert len(read(store)) == 300
        assert sorted(np.unique(ids(read(store)))) == ids(read(store))


async def test_a_clock_that_jumped_expires_nothing_by_itself(tmp_path: Path) -> None:
    clock = SetClock()
    async with running(tmp_path, clock) as store:
        await outcomes(store, event(1))
        await store.seal_now()
        await outcomes(store, event(2))
        store.trusts_clock = lambda: False
        clock.move(days=3650)
        await store.tidy()
        clock.move(days=-3650)
        assert sorted(ids(read(store))) == ["evt_00000001", "evt_00000002"]
        store.trusts_clock = lambda: True
        clock.move(days=3650)
        await store.tidy()
        assert not list(tmp_path.glob("shards/*/*/*.db"))
