import os
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlc_broker.model.errors import DirectoryInUse
from mlc_broker.model.event import Facts
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import EVERYTHING
from mlc_broker.store.hot import Committed
from tests.fakes_store import (
    LESSON,
    BrokenDisk,
    SetClock,
    batch,
    event,
    ids,
    inline,
    outcomes,
    read,
    running,
)


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        assert await outcomes(store, event(1), event(2)) == ["stored", "stored"]
    async with running(tmp_path) as store:
        found = read(store)
        assert ids(found) == ["evt_00000001", "evt_00000002"]
        assert found[0]["meta"]["stored_at"] == "2026-11-20T09:30:00.000Z"


async def test_a_resent_event_is_a_duplicate_across_restarts(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await outcomes(store, event(1))
        assert await outcomes(store, event(1), event(2)) == ["duplicate", "stored"]
    async with running(tmp_path) as store:
        assert await outcomes(store, event(2), event(1)) == ["duplicate", "duplicate"]
        assert len(read(store)) == 2


async def test_one_id_twice_in_a_batch_is_stored_once(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        assert await outcomes(store, event(1), event(1)) == ["stored", "duplicate"]
        assert len(read(store)) == 1


async def test_the_same_id_in_another_organization_is_another_event(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        both = await outcomes(store, event(1), event(1, organization_id="other"))
        assert both == ["stored", "stored"]


async def test_a_duplicate_of_an_event_in_flight_waits_for_that_commit(tmp_path: Path) -> None:
    gate = trio.Event()

    async def slow(function: Callable[..., Any], *arguments: Any) -> Any:
        if getattr(function, "__name__", "") == "write":
            await gate.wait()
        return await inline(function, *arguments)

    async with running(tmp_path, in_thread=slow) as store:
        first, second = batch(event(1)), batch(event(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.append, first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(store.append, second)
            await trio.testing.wait_all_tasks_blocked()
            assert second.receipts == [None]
            gate.set()
        assert [first.answer()[0].outcome, second.answer()[0].outcome] == ["stored", "duplicate"]


async def test_batches_that_come_together_share_a_commit(tmp_path: Path) -> None:
    async with running(tmp_path) as store, trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(store.append, batch(event(number)))
    assert store.writer.commits <= 3


async def test_a_batch_larger_than_a_commit_is_stored_whole(tmp_path: Path) -> None:
    async with running(tmp_path, commit_events_max=10) as store:
        many = [event(number) for number in range(300)]
        assert set(await outcomes(store, *many)) == {"stored"}
        assert len(read(store)) == 300


@pytest.mark.parametrize("fault", ["SQLITE_FULL", "SQLITE_IOERR_FSYNC"])
async def test_after_a_failed_commit_the_event_is_new_again(tmp_path: Path, fault: str) -> None:
    disk = BrokenDisk()
    async with running(tmp_path, in_thread=disk) as store:
        await outcomes(store, event(1))
        disk.failures = [fault]
        assert await outcomes(store, event(2), event(2)) == ["retry", "retry"]
        assert ids(read(store)) == ["evt_00000001"]
        assert await outcomes(store, event(2, user_id="ben"), event(1)) == ["stored", "duplicate"]
    async with running(tmp_path) as store:
        found = read(store, wanted=Filter(user_id=frozenset({"ben"})))
        assert ids(found) == ["evt_00000002"]
        assert len(read(store)) == 2


async def test_a_stopped_store_says_retry(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        store.stop()
        assert await outcomes(store, event(1)) == ["retry"]


async def test_a_writer_that_is_cancelled_leaves_no_batch_waiting(tmp_path: Path) -> None:
    gate = trio.Event()

    async def slow(function: Callable[..., Any], *arguments: Any) -> Any:
        if getattr(function, "__name__", "") == "write":
            await gate.wait()
        return await inline(function, *arguments)

    async with running(tmp_path, in_thread=slow) as store:
        pass
    from mlc_broker.store.store import Store

    store = await Store.open(tmp_path, categories=lambda _: None, in_thread=slow)
    flying, waiting = batch(event(1)), batch(event(2))
    async with trio.open_nursery() as outer, trio.open_nursery() as nursery:
        await nursery.start(store.run)
        outer.start_soon(store.append, flying)
        await trio.testing.wait_all_tasks_blocked()
        outer.start_soon(store.append, waiting)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        gate.set()
    assert [flying.answer()[0].outcome, waiting.answer()[0].outcome] == ["stored", "retry"]
    await store.close()


async def test_commits_are_told_in_order_with_their_sequence(tmp_path: Path) -> None:
    told: list[Committed] = []
    async with running(tmp_path) as store:
        store.on_commit = told.append
        await outcomes(store, event(1), event(2))
        await outcomes(store, event(3), event(1))
    assert [[e.event_id[-1] for e in c.events] for c in told] == [["1", "2"], ["3"]]
    assert told[1].sequence == told[0].sequence + 2
    assert told[0].pack.n == len(told[0].rows) == 2


async def test_a_cursor_finds_what_was_committed_after_it(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        told: list[Committed] = []
        store.on_commit = told.append
        for number in range(4):
            await outcomes(store, event(number))
        views = store.views_after(told[2].sequence)
        assert [int(n) for view in views for n in view.entries["key"]] == [
            told[2].sequence,
            told[3].sequence,
        ]


async def test_two_daemons_cannot_share_a_directory(tmp_path: Path) -> None:
    async with running(tmp_path):
        with pytest.raises(DirectoryInUse, match="another daemon"):
            async with running(tmp_path):
                pass


async def test_only_the_owner_can_look_into_the_data_directory(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as store:
        await outcomes(store, event(1))
        await store.seal_now()
        for folder, _, files in os.walk(tmp_path / "data"):
            assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
            for name in files:
                assert stat.S_IMODE(Path(folder, name).stat().st_mode) == 0o600, name


async def test_a_damaged_hot_file_is_set_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await outcomes(store, event(1))
    file = next((tmp_path / "hot").glob("*.db"))
    file.write_bytes(b"no database at all" * 1000)
    async with running(tmp_path) as store:
        assert "set aside" in store.files.troubles[0]
        assert await outcomes(store, event(2)) == ["stored"]
        assert ids(read(store)) == ["evt_00000002"]
    assert (tmp_path / "hot" / f"{file.name}.corrupt-1").exists()


async def test_a_flipped_bit_in_a_hot_file_is_found_at_start(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await outcomes(store, *[event(n, user_id=f"user{n}") for n in range(200)])
    file = next((tmp_path / "hot").glob("*.db"))
    raw = bytearray(file.read_bytes())
    at = raw.rindex(b"\x28\xb5\x2f\xfd") + 20  # in a zstd frame
    raw[at] ^= 4
    file.write_bytes(raw)
    async with running(tmp_path) as store:
        assert store.files.troubles


async def test_expired_events_and_those_being_erased_are_invisible_at_once(tmp_path: Path) -> None:
    clock = SetClock()
    async with running(tmp_path, clock) as store:
        short = Facts(received_at=LESSON, retention_days=1)
        await outcomes(store, event(1, facts=short), event(2), event(3, user_id="ben"))
        clock.move(days=1, seconds=2)
        assert ids(read(store)) == ["evt_00000002", "evt_00000003"]
        await store.hide("org", "ben")
        assert ids(read(store)) == ["evt_00000002"]
    async with running(tmp_path, clock) as store:
        assert ids(read(store)) == ["evt_00000002"]


async def test_a_reader_finds_by_time_to_the_millisecond(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        at = LESSON + timedelta(microseconds=1500)
        await outcomes(store, event(1, timestamp=at))
        assert read(store)[0]["timestamp"] == "2026-11-20T09:30:00.001Z"
        one, two = LESSON + timedelta(milliseconds=1), LESSON + timedelta(milliseconds=2)
        assert len(read(store, EVERYTHING, Filter(begin=one, end=two))) == 1
        assert read(store, EVERYTHING, Filter(begin=two)) == []
        assert read(store, EVERYTHING, Filter(end=one)) == []


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.integers(1, 12), max_size=6), max_size=8), st.integers(0, 7))
def test_any_order_of_batches_and_duplicates_stores_each_id_once(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], restart_at: int
) -> None:
    path = tmp_path_factory.mktemp("store")

    async def scenario() -> None:
        seen: set[int] = set()
        for half in (batches[:restart_at], batches[restart_at:]):
            async with running(path) as store:
                for numbers in half:
                    answers = await outcomes(store, *map(event, numbers))
                    for number, answer in zip(numbers, answers, strict=True):
                        assert answer == ("duplicate" if number in seen else "stored")
                        seen.add(number)
                assert ids(read(store)) == sorted(f"evt_{n:08d}" for n in seen)

    trio.run(scenario)
