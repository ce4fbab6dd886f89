from __future__ import annotations

import time
from collections.abc import Callable

import trio

from tests.daemon import Daemon
from tests.load import Load

STOP_SECONDS_MAX = 10.0


async def test_a_stop_under_load_ends_in_time_with_nothing_acknowledged_lost(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = await trio.to_thread.run_sync(make_daemon)
    load = Load(daemon)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run)
        with trio.fail_after(20):
            while load.acks < 20:
                await trio.sleep(0.01)
        began = time.monotonic()
        status = await trio.to_thread.run_sync(daemon.stop)
        took = time.monotonic() - began
        await trio.to_thread.run_sync(daemon.start)
        load.stop.set()
    assert status == 0, daemon.lines[-20:]
    assert took < STOP_SECONDS_MAX
    assert await load.compare() == {}


def test_a_stop_without_any_load_is_quick_and_clean(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 5.0
    assert not [line for line in daemon.lines if "Traceback" in line]
