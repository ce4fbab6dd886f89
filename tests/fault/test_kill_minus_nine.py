from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
import trio

from tests.daemon import Daemon
from tests.load import Load

LOAD_SECONDS = (0.06, 0.6)  # from the start of the load to the kill


async def cycles(make_daemon: Callable[..., Daemon], *, number: int, seed: int) -> None:
    random = Random(seed)
    daemon = await trio.to_thread.run_sync(make_daemon)
    load = Load(daemon)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run)
        for _ in range(number):
            answered = load.acks
            with trio.fail_after(30):  # killed under load, not before it
                while load.acks == answered:
                    await trio.sleep(0.005)
            await trio.sleep(random.uniform(*LOAD_SECONDS))
            await trio.to_thread.run_sync(daemon.kill)
            await trio.to_thread.run_sync(daemon.start)
        load.stop.set()
    assert load.acks > number
    assert await load.compare() == {}
    assert await trio.to_thread.run_sync(daemon.stop) == 0


async def test_what_was_acknowledged_survives_kill_minus_nine_and_is_there_once(
    make_daemon: Callable[..., Daemon],
) -> None:
    await cycles(make_daemon, number=5, seed=9)


@pytest.mark.long
async def test_fifty_kills_lose_nothing_acknowledged_and_store_nothing_twice(
    make_daemon: Callable[..., Daemon],
) -> None:
    await cycles(make_daemon, number=50, seed=99)
