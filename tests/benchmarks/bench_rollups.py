"""What counting costs: `python -m tests.benchmarks.bench_rollups [EVENTS] [DIR]`.

Appends the same lesson to a store without and with rollups, one after the other, several times, and
prints the cost of folding and flushing an event, its share of the insert, and how old a figure is at
most when it is read under load.
"""

from __future__ import annotations

import gc
import random
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from statistics import median
from uuid import UUID

import trio

from mlc_broker.model.catalog import Catalog
from mlc_broker.model.event import Event, Facts
from mlc_broker.model.metrics import STANDARD
from mlc_broker.store.rollups import Rollups
from mlc_broker.store.store import Limits, Store
from tests.benchmarks.bench_store import AGENT, BATCH, append_all
from tests.fakes_store import LESSON, SetClock

ROUNDS = 3
DURING = ("page_view", "menu_click", "game_launch", "resource_download", "breadcrumb_click")
CATEGORIES = {name: kind.category for name, kind in Catalog.standard().types.items()}


def lesson(count: int, seed: int = 1) -> list[Event]:
    """Batches as browsers send them: a student's play of twelve events, a hundred at a time."""
    chance = random.Random(seed)
    events: list[Event] = []
    while len(events) < count:
        events += _sitting(chance, chance.randrange(1000), len(events) // 40)
    return events[:count]


def _sitting(chance: random.Random, student: int, second: int) -> list[Event]:
    # As `enrich` does it: facts are one object for a person and a type in a submission.
    facts: dict[str, Facts] = {}
    events = []
    for number in range(BATCH):
        step = number % 12
        kind = {0: "game_stage_start", 11: "game_stage_complete"}.get(step, DURING[step % 5])
        if kind not in facts:
            facts[kind] = Facts(
                received_at=LESSON,
                role="student",
                class_ids=(f"cls_{student // 30}",),
                teacher_ids=(f"tch_{student // 60}",),
                retention_days=2555,
            )
        events.append(_event(chance, student, kind, facts[kind], second * 1000 + number * 300))
    return events


def _event(chance: random.Random, student: int, kind: str, facts: Facts, ms: int) -> Event:
    game = f"G-{chance.randrange(300):05d}"
    properties: dict[str, object] = {"game_id": game, "stage_id": f"{game}-quiz"}
    if kind == "game_stage_complete":
        properties |= {"stage_type": "quiz", "score": chance.randrange(7000), "max_score": 9000}
        properties |= {"passed": True, "attempts": 1, "duration_ms": 90_000}
        properties |= {"run_id": f"run_{chance.getrandbits(48):x}"}
    return Event(
        event_id=str(UUID(int=chance.getrandbits(128), version=4)),
        event_type=kind,
        timestamp=LESSON + timedelta(milliseconds=ms),
        user_id=f"usr_{student:05d}",
        session_id=f"sess_{student * 7919:016x}",
        organization_id="org_54321",
        facts=facts,
    ).but(
        device_info={"user_agent": AGENT, "platform": "desktop", "browser": "chrome"},
        context={"page_url": "/student/assignment-play", "assignment_id": f"asg_{student // 30}"},
        properties=properties,
    )


async def insert(events: list[Event], path: Path, *, counted: bool) -> tuple[float, float, float]:
    """Append all; return events/s, and CPU µs an event of folding and flushing, p99 age in ms."""
    clock = SetClock(LESSON + timedelta(hours=3))
    store = await Store.open(path, categories=CATEGORIES.get, limits=Limits(), clock=clock)
    rollups = Rollups(
        path / "rollups.db",
        store,
        STANDARD,
        categories=CATEGORIES.get,
        zone_of=lambda _: "Europe/Berlin",
        clock=clock,
    )
    ages: list[float] = []
    async with trio.open_nursery() as nursery:
        if counted:
            await rollups.open()
            store.on_commit = rollups.note
            nursery.start_soon(rollups.run)
            nursery.start_soon(_read, rollups, ages)
        await nursery.start(store.run)
        began = time.perf_counter()
        await append_all(store, events)
        seconds = time.perf_counter() - began
        store.stop()
        nursery.cancel_scope.cancel()
    if counted:
        await rollups.close()
    await store.close()
    cost = rollups.seconds / max(1, rollups.events) * 1e6
    p99 = sorted(ages)[int(len(ages) * 0.99)] * 1000 if ages else 0.0
    return len(events) / seconds, cost, p99


async def _read(rollups: Rollups, ages: list[float]) -> None:
    """Ask twice a second, as watchers do: how long until all that is committed is readable?"""
    while True:
        await trio.sleep(0.5)
        began = trio.current_time()
        await rollups.settle()
        ages.append(trio.current_time() - began)


async def main(count: int, folder: Path) -> None:
    """Compare."""
    sys.setswitchinterval(0.0005)
    events = lesson(count)
    gc.freeze()
    rates: dict[bool, list[float]] = {False: [], True: []}
    for number in range(ROUNDS):
        for counted in (False, True):
            path = folder / f"{number}-{counted}"
            rate, cost, p99 = await insert(events, path, counted=counted)
            rates[counted].append(rate)
            more = f"  {cost:.2f} µs CPU an event, settled in p99 {p99:.0f} ms" if counted else ""
            print(f"{'with' if counted else 'without'} rollups {rate:>10,.0f} events/s{more}")
    without, with_ = median(rates[False]), median(rates[True])
    print(f"cost of the insert without: {without / with_ - 1:.1%}")


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as name:
        trio.run(main, number, Path(name))
