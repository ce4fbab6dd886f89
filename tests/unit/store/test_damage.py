"""What is found damaged while running is set aside and told; everything else goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from mlc_broker.store.hot import HotFile
from mlc_broker.store.schema import sqlite3
from mlc_broker.store.store import Store
from tests.fakes_store import BrokenDisk, SetClock, event, ids, outcomes, read, running


async def test_a_hot_file_that_lost_commits_is_set_aside_at_once(tmp_path: Path) -> None:
    disk = BrokenDisk()
    async with running(tmp_path, in_thread=disk) as store:
        await outcomes(store, event(1))
        lose_everything(store.writer.hot)
        disk.failures = ["SQLITE_IOERR_FSYNC"]
        assert await outcomes(store, event(2)) == ["retry"]
        assert await outcomes(store, event(2)) == ["retry"]  # it is reopened and counted
        await trio.testing.wait_all_tasks_blocked()
        assert "lost" in store.troubles[0]
        assert store.not_ready() == []
        assert await outcomes(store, event(2), event(3)) == ["stored", "stored"]
        assert ids(read(store)) == ["evt_00000002", "evt_00000003"]
    async with running(tmp_path) as store:
        assert ids(read(store)) == ["evt_00000002", "evt_00000003"]
    assert list(tmp_path.glob("hot/*.corrupt-1"))


def lose_everything(hot: HotFile) -> None:
    hot._db.execute("DELETE FROM pack")


async def damaged_while_closed(store: Store) -> HotFile:
    """Store three commits, close the hot file, and spoil the second."""
    for number in (1, 2, 3):
        await outcomes(store, event(number))
    hot = store.writer.hot
    await store.rotate()
    second = int(hot.index.entries["key"][1])
    hot._db.execute("UPDATE pack SET crc = ? WHERE seq = ?", (bytes(16), second))
    return hot


async def test_sealing_leaves_out_a_damaged_commit_and_keeps_its_file(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await damaged_while_closed(store)
        await outcomes(store, event(4))
        await store.tidy()
        assert ids(read(store)) == ["evt_00000001", "evt_00000003", "evt_00000004"]
        assert "the 1 events of commit" in store.troubles[0]
    assert list(tmp_path.glob("hot/*.corrupt-1"))
    async with running(tmp_path) as store:
        assert ids(read(store)) == ["evt_00000001", "evt_00000003", "evt_00000004"]


async def test_a_home_that_takes_nothing_is_set_aside_and_begun_anew(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await outcomes(store, event(1))
        await store.seal_now()
        await outcomes(store, event(2))
        home = next(tmp_path.glob("shards/*/*/0.db"))
        home.write_bytes(b"no database at all" * 1000)
        await store.seal_now()
        assert ids(read(store)) == ["evt_00000002"]
        assert "set aside" in store.troubles[0]
    assert home.with_name("0.db.corrupt-1").exists()


async def test_a_home_that_cannot_be_merged_is_served_as_it_is(tmp_path: Path) -> None:
    clock = SetClock()
    async with running(tmp_path, clock) as store:
        for number in (1, 2):
            await outcomes(store, event(number))
            await store.seal_now()
        home = next(tmp_path.glob("shards/*/*/0.db"))
        with sqlite3.connect(str(home)) as visitor:
            visitor.execute("UPDATE pack SET crc = ? WHERE id = 2", (bytes(16),))
        visitor.close()
        clock.move(days=20)
        await store.tidy()
        await store.tidy()
        assert [trouble for trouble in store.troubles if "cannot be merged" in trouble] == [
            store.troubles[0]
        ]


async def test_upkeep_that_fails_is_told_until_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, hot_bytes_max=1) as store:
        await outcomes(store, event(1))

        def broken(_: int) -> HotFile:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(store.files, "begin_hot", broken)
            await store.tidy()
            assert "disk I/O error" in store.troubles[0]
            assert await outcomes(store, event(2)) == ["stored"]
        await store.tidy()
        assert store.troubles == []
        assert ids(read(store)) == ["evt_00000001", "evt_00000002"]
