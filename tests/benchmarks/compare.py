"""The comparison: every contestant in every scenario, round after round, the others held still."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from mlc_broker.cli.bench_load import LoadError, generate
from tests.benchmarks.contestants import Broker, Contestant, Missing
from tests.benchmarks.processes import held_still
from tests.benchmarks.results import Budget, Contest, Results, Series, Sizes
from tests.benchmarks.rivals.servers import ALL, BareCopy


class Scenario(Struct, frozen=True):
    """How events are sent."""

    door: str
    events_each: int
    connections: int
    window: int


SCENARIOS = {
    "websocket, 100 a message": Scenario("websocket", 100, 8, 4),
    "websocket, 1 a message": Scenario("websocket", 1, 64, 4),
    "HTTP, 100 a request": Scenario("http", 100, 16, 1),
    "HTTP, 1 a request": Scenario("http", 1, 64, 1),
    "NATS, 100 in flight": Scenario("nats", 100, 8, 4),
    "NATS, 1 at a time": Scenario("nats", 1, 64, 1),
}
COPY = "COPY, 1,000 a commit"


class Comparison:
    """Starts all, fills all, then measures in turns until the rounds or the time are over."""

    def __init__(self, results: Results, sizes: Sizes, budget: Budget, directory: Path) -> None:
        self._results = results
        self._sizes = sizes
        self._budget = budget
        self._directory = directory
        self._running: list[Contestant] = []

    def run(self, only: frozenset[str] = frozenset()) -> None:
        """Do it all; what cannot run is in the results as missing."""
        try:
            kinds: list[type[Contestant]] = [Broker, *ALL]
            for kind in kinds:
                if not only or kind.__name__ in only:
                    self._start(kind)
            for number in range(self._sizes.rounds):
                # Another order every round: what came before is not always the same.
                order = self._running[number % len(self._running) :]
                for contestant in order + self._running[: len(self._running) - len(order)]:
                    self._measure(contestant, number)
        finally:
            for contestant in self._running:
                contestant.stop()

    def _start(self, kind: type[Contestant]) -> None:
        contest = self._results.contests[kind.name] = Contest(promise=kind.promise)
        contestant = kind(self._directory)
        print(f"starting {kind.name}", flush=True)
        try:
            contestant.start()
        except Missing as reason:
            contest.missing = " ".join(str(reason).split())[:300]
            print(f"  left out: {contest.missing}", flush=True)
            return
        self._running.append(contestant)
        if self._budget.left:
            with held_still(self._others(contestant)):
                contestant.fill(self._sizes.stored)
        contest.stored = contestant.stored

    def _measure(self, contestant: Contestant, number: int) -> None:
        with held_still(self._others(contestant)):
            if isinstance(contestant, BareCopy):
                self._copy(contestant, number)
            for name, scenario in SCENARIOS.items():
                if scenario.door in contestant.doors:
                    self._send(contestant, name, scenario, number)

    def _send(self, contestant: Contestant, name: str, scenario: Scenario, number: int) -> None:
        series = self._results.contests[contestant.name].series.setdefault(name, Series())
        if not self._budget.left or series.trouble:
            return
        plan = contestant.doors[scenario.door].plan(
            scenario.events_each,
            connections=scenario.connections,
            window=scenario.window,
            seconds=self._sizes.seconds,
            seed=number + 1,
        )
        before = contestant.cost()
        try:
            told = generate(plan)
        except LoadError as error:
            series.trouble = str(error)[-300:]
            print(f"  {contestant.name}, {name}: {series.trouble}", flush=True)
            return
        used = contestant.cost().since(before)
        # The cost covers the warming up too, the count does not.
        whole = max(1.0, told.events * (plan.seconds + plan.warm_seconds) / plan.seconds)
        series.rates.append(told.events_per_second)
        series.p50_ms.append(told.p50_ms)
        series.p99_ms.append(told.p99_ms)
        series.generator.append(told.cpu_share)
        series.cpu_us.append(used.cpu_seconds * 1e6 / whole)
        series.written_bytes.append(used.written_bytes / whole)
        print(
            f"  {number + 1}: {contestant.name:<32}{name:<26}{told.events_per_second:>10,.0f}/s"
            f"  p99 {told.p99_ms:>7.1f} ms  generator {told.cpu_share:.0%}",
            flush=True,
        )

    def _copy(self, contestant: BareCopy, number: int) -> None:
        series = self._results.contests[contestant.name].series.setdefault(COPY, Series())
        if self._budget.left:
            before = contestant.cost()
            told = contestant.copy(self._sizes.seconds)
            used = contestant.cost().since(before)
            series.rates.append(told["events_per_second"])
            series.cpu_us.append(used.cpu_seconds * 1e6 / told["events"])
            print(f"  {number + 1}: {contestant.name:<58}{series.rates[-1]:>10,.0f}/s", flush=True)
            size = contestant.cluster.size_bytes()
            series.written_bytes.append(used.written_bytes / told["events"])
            rows = contestant.cluster.count()
            self._results.measures["PostgreSQL bytes an event"] = size / max(1, rows)

    def _others(self, one: Contestant) -> list[int]:
        return [pid for other in self._running if other is not one for pid in other.pids]


def copy_when_empty(results: Results, sizes: Sizes, directory: Path) -> None:
    """PostgreSQL's COPY into an empty table with its indexes: the anchor for an empty store."""
    empty = BareCopy(directory / "empty")
    try:
        empty.start()
        rates = [empty.copy(sizes.seconds)["events_per_second"]]
        results.measures["PostgreSQL COPY, empty: rows/s"] = max(rates)
    except Missing as reason:
        results.skipped["PostgreSQL COPY, empty: rows/s"] = str(reason)[:300]
    finally:
        empty.stop()
