"""Other processes at our files, and clocks that jump: nothing acknowledged is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import trio

from mlc_broker.runtime.clock import SystemClock
from mlc_broker.store.store import Limits, Store
from tests.fakes_store import LESSON, TYPES, SetClock, event, ids, outcomes, read, running

MIB = 1024 * 1024
VISIT = """
import glob, sqlite3, sys, time
hold = float(sys.argv[2])
while True:
    for name in glob.glob(sys.argv[1] + "/hot/*.db"):
        db = sqlite3.connect(name, isolation_level=None)
        try:
            if hold:
                db.execute("BEGIN")
            db.execute("SELECT count(*) FROM pack").fetchone()
            print("here", flush=True)
            time.sleep(hold or 0.005)
        except sqlite3.OperationalError:
            pass
        db.close()
"""


async def test_a_visiting_shell_costs_no_acknowledged_event(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, categories=TYPES.get, clock=SystemClock())
    acked = await written_beside_a_visitor(store, tmp_path, hold_seconds=0, events=300)
    await store.close()
    async with running(tmp_path) as again:
        assert ids(read(again)) == acked
        assert again.troubles == []


async def test_a_reader_who_holds_a_file_for_long_costs_two_logs_at_most(tmp_path: Path) -> None:
    limits = Limits(wal_bytes_max=MIB)
    store = await Store.open(tmp_path, categories=TYPES.get, limits=limits, clock=SystemClock())
    acked = await written_beside_a_visitor(store, tmp_path, hold_seconds=600, events=600)
    logs = [hot.wal_bytes for hot in store.files.hot.values()]
    assert len(logs) > 1, "a new hot file was begun"
    # Between two looks at the log a little comes in: here well under another 3 MiB.
    assert max(logs) < 5 * MIB
    await store.close()
    async with running(tmp_path) as again:
        assert ids(read(again)) == acked


async def written_beside_a_visitor(
    store: Store, place: Path, *, hold_seconds: float, events: int
) -> list[str]:
    """Store events while another process reads; return the ids that were acknowledged."""
    acked = []
    command = [sys.executable, "-c", VISIT, str(place), str(hold_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as visitor:
        assert visitor.stdout is not None
        await trio.to_thread.run_sync(visitor.stdout.readline)
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            for number in range(events):
                one = event(number, properties={"text": os.urandom(4000).hex()})
                if await outcomes(store, one) == ["stored"]:
                    acked.append(one.event_id)
                await trio.sleep(0.01)
            store.stop()
        visitor.kill()
    assert len(acked) == events
    return acked


async def test_a_clock_that_jumps_loses_nothing_and_forgets_no_id(tmp_path: Path) -> None:
    clock = SetClock()
    async with running(tmp_path, clock) as store:
        for number, jump in enumerate([{}, {"hours": 1}, {"days": -1}, {"days": -30}], 1):
            clock.move(**jump)
            assert await outcomes(store, event(number)) == ["stored"]
            await store.tidy()
        clock.moment = LESSON
        everything = [event(number) for number in range(1, 5)]
        assert set(await outcomes(store, *everything)) == {"duplicate"}
        assert len(read(store)) == 4
    clock.moment = LESSON - timedelta(days=2)
    async with running(tmp_path, clock) as store:
        assert set(await outcomes(store, *everything)) == {"duplicate"}
        assert len(read(store)) == 4
