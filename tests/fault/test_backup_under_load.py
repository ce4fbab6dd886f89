"""A backup taken while events come in holds all that was acknowledged before; half of one is none."""

from __future__ import annotations

import signal
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from sqlite_utils.utils import sqlite3

from mlc_broker.model.errors import StoreError
from mlc_broker.store.care.backup import MANIFEST, back_up, restore
from mlc_broker.store.store import Store
from tests.fakes_store import SetClock, event, outcomes, read, running

BACKUPS = 5
NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
DIES = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from mlc_broker.store.care.backup import back_up

left = int(sys.argv[3])

def progress(_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

back_up(Path(sys.argv[1]), Path(sys.argv[2]), now=datetime.now(UTC), broker="1", progress=progress)
"""


async def test_five_backups_under_load_each_hold_what_was_acknowledged_before(
    tmp_path: Path,
) -> None:
    data, clock = tmp_path / "data", SetClock()
    acknowledged: set[str] = set()
    stop = trio.Event()

    async def load(store: Store, sender: int) -> None:
        number = 0
        while not stop.is_set():
            some = [event(sender * 1_000_000 + number + i) for i in range(20)]
            assert set(await outcomes(store, *some)) == {"stored"}
            acknowledged.update(one.event_id for one in some)
            number += 20
            await trio.sleep(0)

    before: list[set[str]] = []
    async with running(data, clock=clock) as store, trio.open_nursery() as nursery:
        for sender in range(3):
            nursery.start_soon(load, store, sender)
        for number in range(BACKUPS):
            target = tmp_path / f"backup{number}"
            with trio.fail_after(30):
                while len(acknowledged) < 200 * (number + 1):
                    await trio.sleep(0.005)
            if number == 2:
                await store.seal_now()
            before.append(set(acknowledged))
            async with store.upkeep.standing_still():
                await trio.to_thread.run_sync(
                    lambda to: back_up(data, to, now=NOW, broker="1"), target
                )
        stop.set()
    assert len(acknowledged) > len(before[-1])  # there was load until the end
    for number, known in enumerate(before):
        again = tmp_path / f"again{number}"
        restore(tmp_path / f"backup{number}", again)
        for path in again.rglob("*.db"):
            with closing(sqlite3.connect(str(path))) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        async with running(again, clock=clock) as store:
            assert (await store.verify()).damaged == []
            found = [line["event_id"] for line in read(store)]
        assert known <= set(found)
        assert len(found) == len(set(found))


@pytest.mark.parametrize("after_files", [0, 1, 2])
async def test_a_backup_that_was_killed_is_none(tmp_path: Path, after_files: int) -> None:
    data, target = tmp_path / "data", tmp_path / "backup"
    async with running(data) as store:
        await outcomes(store, *(event(i) for i in range(50)))
        await store.seal_now()
    words = [sys.executable, "-c", DIES, str(data), str(target), str(after_files)]
    died = await trio.run_process(words, check=False)
    assert died.returncode == -signal.SIGKILL
    assert not (target / MANIFEST).exists()
    with pytest.raises(StoreError):
        restore(target, tmp_path / "again")
    assert not (tmp_path / "again").exists()


async def test_a_backup_of_which_a_file_is_missing_or_cut_is_refused(tmp_path: Path) -> None:
    data, target = tmp_path / "data", tmp_path / "backup"
    async with running(data) as store:
        await outcomes(store, *(event(i) for i in range(50)))
        back_up(data, target, now=NOW, broker="1")
    hot = next(target.glob("hot/*.db"))
    whole = hot.read_bytes()
    for damage in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), None):
        if damage is None:
            hot.unlink()
        else:
            hot.write_bytes(damage)
        with pytest.raises(StoreError):
            restore(target, tmp_path / "again")
        assert not (tmp_path / "again").exists()
