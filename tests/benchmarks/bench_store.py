"""What the store takes: `python -m tests.benchmarks.bench_store [EVENTS] [DIR]`.

Prints events/s and bytes an event of appending, restarting, sealing and reading, on this machine.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import numpy as np
import trio

from mlc_broker.model.event import Event, Facts
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import EVERYTHING
from mlc_broker.store.schema import open_reader
from mlc_broker.store.select import Selection, select
from mlc_broker.store.store import Limits, Store
from tests.fakes_store import LESSON, TYPES, SetClock, batch

AGENT = "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 Chrome/120.0.0.0 Safari/537.36"
BATCH, SENDERS = 100, 20


def school(count: int, seed: int = 1) -> list[Event]:
    """Stages played by 2,000 students in 70 classes within a day."""
    chance = random.Random(seed)
    return [_played(chance, chance.randrange(2000)) for _ in range(count)]


def _played(chance: random.Random, student: int) -> Event:
    game = f"G-{chance.randrange(300):05d}"
    return Event(
        event_id=str(UUID(int=chance.getrandbits(128), version=4)),
        event_type="game_stage_complete",
        timestamp=LESSON + timedelta(milliseconds=chance.randrange(86_400_000)),
        user_id=f"usr_{student:05d}",
        session_id=f"sess_{student * 7919:016x}",
        organization_id="org_54321",
        facts=Facts(
            received_at=LESSON,
            role="student",
            class_ids=(f"cls_{student // 30}",),
            teacher_ids=(f"tch_{student // 60}",),
            subscription="ensemble",
            retention_days=2555,
        ),
    ).but(
        device_info={"user_agent": AGENT, "platform": "desktop", "browser": "chrome"},
        context={"page_url": "/student/assignment-play", "assignment_id": f"asg_{student // 30}"},
        properties={
            "game_id": game,
            "stage_id": f"{game}-quiz",
            "stage_type": "quiz",
            "score": chance.randrange(7000),
            "max_score": 9000,
            "passed": chance.random() < 0.6,
            "duration_ms": chance.randrange(200_000),
        },
    )


async def append_all(store: Store, events: list[Event]) -> None:
    """Send the events from many senders at once, each waiting for its answer."""
    send, receive = trio.open_memory_channel[list[Event]](0)

    async def sender() -> None:
        async for part in receive:
            await store.append(batch(*part))

    async with trio.open_nursery() as nursery:
        for _ in range(SENDERS):
            nursery.start_soon(sender)
        for at in range(0, len(events), BATCH):
            await send.send(events[at : at + BATCH])
        await send.aclose()


def read_all(store: Store, wanted: Selection) -> int:
    """Read what is wanted, as an export would; return how many lines."""
    found = 0
    for view in store.views(wanted):
        connection = open_reader(view.path)
        words = view.words(connection)
        for ref in view.find(connection, words, wanted):
            pack = view.load(connection, ref)
            found += len(pack.lines(np.flatnonzero(select(pack.rows(), words, wanted)).tolist()))
        connection.close()
    return found


def told(name: str, count: int, began: float, more: str = "") -> None:
    """Print a rate."""
    seconds = time.perf_counter() - began
    print(f"{name:<24}{count / seconds:>12,.0f} events/s {seconds * 1000:>10,.1f} ms {more}")


def size(path: Path, pattern: str) -> int:
    """Return the bytes of all files of that pattern."""
    return sum(file.stat().st_size for file in path.glob(pattern))


async def main(count: int, path: Path) -> None:
    """Append, restart, seal and read `count` events."""
    sys.setswitchinterval(0.0005)
    events, clock = school(count), SetClock(LESSON + timedelta(hours=1))
    for step in ("append", "restart"):
        began = time.perf_counter()
        store = await Store.open(path, categories=TYPES.get, limits=Limits(), clock=clock)
        if step == "restart":
            told("restart", count, began, f"{store.ids.size_bytes / count:.0f} bytes an id")
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            if step == "append":
                began = time.perf_counter()
                await append_all(store, events)
                told("append", count, began, f"{count / store.writer.commits:.0f} a commit")
                store.writer.hot.checkpoint()
                print(f"{'hot':<24}{size(path, 'hot/*.db') / count:>12.1f} bytes an event")
            else:
                await _read_and_seal(store, path, count)
            store.stop()
        await store.close()


async def _read_and_seal(store: Store, path: Path, count: int) -> None:
    student = Filter(user_id=frozenset({"usr_00042"}))
    for state in ("hot", "sealed"):
        for name, wanted in (("all", None), ("student", student)):
            began = time.perf_counter()
            told(f"read {state} {name}", read_all(store, store.select(EVERYTHING, wanted)), began)
        if state == "hot":
            began = time.perf_counter()
            await store.seal_now()
            told("seal", count, began)
            print(f"{'sealed':<24}{size(path, 'shards/*/*/*.db') / count:>12.1f} bytes an event")


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        trio.run(main, number, Path(folder))
