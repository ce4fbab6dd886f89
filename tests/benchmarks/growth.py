"""Growth: events by the million through the real daemon; at each mark everything is measured."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mlc_broker.cli.bench_load import LoadError, Told, generate
from tests.benchmarks import measures
from tests.benchmarks.contestants import Broker
from tests.benchmarks.results import Budget, Results, Sizes

FILL = {"connections": 8, "window": 8, "spread_seconds": 72_000.0}


class Growth:
    """One daemon that is filled from mark to mark."""

    def __init__(self, results: Results, sizes: Sizes, budget: Budget, directory: Path) -> None:
        self._results = results
        self._sizes = sizes
        self._budget = budget
        self._broker = Broker(directory)
        self._events = 0

    def run(self) -> None:
        """Measure at every mark while there is time."""
        self._results.growth = []
        self._broker.start()
        try:
            for mark in self._sizes.growth:
                if not self._budget.left:
                    self._results.skipped["growth"] = f"the time was over before {mark} events"
                    break
                self._results.growth.append(self._at(mark))
                told = self._results.growth[-1]
                print("  " + ", ".join(f"{k}: {v:,.1f}" for k, v in told.items()), flush=True)
        finally:
            self._broker.stop()

    def _at(self, mark: int) -> dict[str, float]:
        broker = self._broker
        point: dict[str, float] = {}
        if mark > self._events:
            began = time.perf_counter()
            door = broker.doors["websocket"]
            more = mark - self._events
            told = generate(door.plan(100, events_max=more, warm_seconds=0, **_fill(mark)))
            self._events += told.events
            point["filled: events/s"] = told.events / (time.perf_counter() - began)
            point["ingest, sealing behind: events/s"] = self._pour()[0].events_per_second
            point["sealing done after: s"] = measures.rest(broker)
        told, cpu_us = self._pour()
        point |= {"events": float(self._events), "memory: MiB": broker.memory_bytes() / 1024**2}
        if told.events:  # else all were refused, for now: that is no rate
            point |= {
                "ingest: events/s": told.events_per_second,
                "ack p99: ms": told.p99_ms,
                "cpu an event: us": cpu_us,
            }
        for kind, size in measures.data_bytes(broker).items():
            point[f"disk, {kind}: MB"] = size / 1e6
        began = time.perf_counter()
        broker.stop()
        point["stop: s"] = time.perf_counter() - began
        began = time.perf_counter()
        broker.start()
        point["restart: s"] = time.perf_counter() - began
        point |= self._asked()
        return point

    def _pour(self) -> tuple[Told, float]:
        """Send at full speed for a while; return what came of it, and CPU microseconds an event."""
        door, before = self._broker.doors["websocket"], self._broker.cost()
        told = generate(door.plan(100, connections=8, window=4, seconds=2 * self._sizes.seconds))
        used = self._broker.cost().since(before)
        self._events += told.events
        return told, used.cpu_seconds * 1e6 / max(1, told.events)

    def _asked(self) -> dict[str, float]:
        try:
            told = measures.ask(self._broker)
        except (AssertionError, OSError, LoadError) as error:
            self._results.skipped["growth: questions"] = str(error)[:300]
            return {}
        try:
            # The first one has what is still hot sealed before; the next finds all of it sealed.
            first, second = 1000 * measures.erase(self._broker, 77), 0.0
            second = 1000 * measures.erase(self._broker, 78)
            told |= {"erase one user, some of it hot: ms": first, "erase one user: ms": second}
        except (AssertionError, OSError, KeyError, ValueError) as error:
            self._results.skipped["growth: erasure"] = str(error)[:300]
        return told


def _fill(seed: int) -> dict[str, Any]:
    return {**FILL, "seed": seed}
