"""Room by room, without network: `python -m tests.benchmarks.rooms EVENTS DIR` prints JSON.

Rounds of a block each, interleaved, so that a busy moment of the machine falls on all alike.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import trio

from mlc_broker.broker import Broker
from mlc_broker.model.batch import Batch
from mlc_broker.store.hot import Committed
from mlc_broker.store.store import Limits, Store
from tests.benchmarks.bench_store import append_all, school, size
from tests.benchmarks.house import EVENTS, Texts, all_of, indoors, principal, publish, read
from tests.benchmarks.processes import cost
from tests.fakes_store import LESSON, TYPES, SetClock

BLOCK_MESSAGES = 200


async def through_the_house(events: int, directory: Path) -> dict[str, float]:
    """Decoding alone; to the disk without chain and rollups; the whole way, rollups off and on."""
    texts = Texts()
    seconds: dict[str, list[float]] = {}
    async with indoors(directory / "house") as broker:
        told = broker.store.on_commit
        ways: dict[str, Callable[[str], object]] = {
            "decode": read,
            "store": lambda text: _store(broker, text),
            "chain": lambda text: publish(broker, text),
            "rollups": lambda text: publish(broker, text),
        }
        for _ in range(max(2, events // (BLOCK_MESSAGES * EVENTS * len(ways)))):
            for name, work in ways.items():
                broker.store.on_commit = told if name == "rollups" else _nobody
                block = texts.block(BLOCK_MESSAGES)
                began = time.perf_counter()
                await all_of(block, work)
                seconds.setdefault(name, []).append(time.perf_counter() - began)
        broker.store.on_commit = told
    rates = {name: BLOCK_MESSAGES * EVENTS / median(took) for name, took in seconds.items()}
    return {
        "decoding alone: events/s": rates["decode"],
        "decode to durable, no chain, no rollups: events/s": rates["store"],
        "decode to durable, whole chain, no rollups: events/s": rates["chain"],
        "decode to durable, whole chain, rollups: events/s": rates["rollups"],
        "share of decoding, no chain, no rollups": rates["store"] / rates["decode"],
        "share of decoding, whole chain and rollups": rates["rollups"] / rates["decode"],
        "rollups cost": rates["chain"] / rates["rollups"] - 1,
    }


async def the_store_alone(events: int, directory: Path) -> dict[str, float]:
    """Events that are decoded already, from twenty senders of 100 each, then sealing."""
    made, clock = school(events), SetClock(LESSON)
    store = await Store.open(
        directory / "store", categories=TYPES.get, limits=Limits(), clock=clock
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        before, began = cost(os.getpid()), time.perf_counter()
        await append_all(store, made)
        appended = time.perf_counter() - began
        written = cost(os.getpid()).since(before).written_bytes
        store.writer.hot.checkpoint()
        hot = size(directory / "store", "hot/*.db")
        began = time.perf_counter()
        await store.seal_now()
        sealed = time.perf_counter() - began
        commits = store.writer.commits
        store.stop()
    await store.close()
    return {
        "store alone: events/s": events / appended,
        "store alone, with sealing: events/s": events / (appended + sealed),
        "sealing: events/s": events / sealed,
        "events a commit": events / commits,
        "bytes an event, hot": hot / events,
        "bytes an event, sealed": size(directory / "store", "shards/*/*/*.db") / events,
        "bytes written an event, store alone": written / events,
    }


async def _store(broker: Broker, text: str) -> None:
    batch: Batch = broker.admission.admit(read(text).submission, principal(), "websocket")
    appended: Awaitable[None] = broker.store.append(batch)
    await appended


def _nobody(_: Committed) -> None:
    """Nobody hears of a commit."""


async def _main(events: int, directory: Path) -> None:
    told = await through_the_house(events, directory)
    told |= await the_store_alone(events, directory)
    print(json.dumps(told))


if __name__ == "__main__":
    sys.setswitchinterval(0.0005)  # as the daemon does
    trio.run(_main, int(sys.argv[1]), Path(sys.argv[2]))
