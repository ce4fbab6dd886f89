"""Histories of crashes, for the rollups: `python -m tests.fault.rollups_school DIR FIRST COUNT`.

A history is a few lives in one directory, each a process that ends by force at a random point; then
the cells are compared with a recount. Prints a line for each history: its seed, how many lives
crashed, and the differences.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from random import Random

import trio

from mlc_broker.runtime import crashpoint
from tests.fakes_rollups import counted, drift, some_event
from tests.fakes_store import SetClock, batch

POINTS = (
    "rollups.before_commit",
    "rollups.after_commit",
    "append.before_commit",
    "append.after_commit",
    "append.before_ack",
    "append.after_ack",
    "seal.after_plan",
    "seal.after_home_commit",
    "seal.after_manifest",
    "release.before_unlink",
)
LIVES = 4


async def live(directory: Path, chance: Random) -> None:
    """Send, flush, seal, erase and expire as chance has it."""
    events = [some_event(Random(7), n) for n in range(80)]
    clock = SetClock()
    async with counted(directory, clock) as (store, rollups):
        for _ in range(12):
            await store.append(batch(*chance.sample(events, chance.randrange(1, 12))))
            match chance.randrange(6):
                case 0 | 1:
                    await rollups.settle()
                case 2:
                    await store.seal_now()
                    await store.release(grace_seconds=0)
                case 3:
                    clock.move(days=chance.choice((1, 3)))
                    await rollups.expire(rollups.now_minute())


async def compare(directory: Path) -> list[str]:
    """Return what differs after the last crash."""
    async with counted(directory) as (store, rollups):
        return await drift(store, rollups)


def history(directory: Path, seed: int) -> tuple[int, list[str]]:
    """Live several times; return how many lives crashed, and the differences at the end."""
    chance, crashed = Random(seed), 0
    for _ in range(LIVES):
        point, passing = chance.choice(POINTS), chance.randrange(1, 8)
        child = os.fork()
        if child == 0:
            crashpoint._NAME, crashpoint._left = point, passing
            trio.run(live, directory, Random(chance.random()))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        ended = os.waitstatus_to_exitcode(status)
        if ended not in (0, 137):
            return crashed, [f"a life ended with {ended}"]
        crashed += ended == 137
    return crashed, trio.run(compare, directory)


if __name__ == "__main__":
    first, many = int(sys.argv[2]), int(sys.argv[3])
    for number in range(first, first + many):
        times, differences = history(Path(sys.argv[1]) / str(number), number)
        print(number, times, differences, flush=True)
