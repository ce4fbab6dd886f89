"""The goals: what is compared with what, and whether it is reached."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from msgspec import Struct

from tests.benchmarks.compare import COPY
from tests.benchmarks.results import Results

OURS, FASTAPI, BARE = "mlc-broker", "FastAPI + PostgreSQL", "PostgreSQL COPY"
FASTAPIS = (FASTAPI, "FastAPI + PostgreSQL, 2 workers")
WS_100, WS_1 = "websocket, 100 a message", "websocket, 1 a message"
HTTP_100, HTTP_1 = "HTTP, 100 a request", "HTTP, 1 a request"


class Row(Struct, frozen=True):
    """A line of the table. `reached` is None where nothing was measured."""

    measure: str
    goal: str
    measured: str
    reached: bool | None


class Goal(Struct, frozen=True):
    """`value` finds the figure; it is to be at least `least`, or at most `most`."""

    measure: str
    unit: str
    value: Callable[[Results], float | None]
    least: float | None = None
    most: float | None = None
    enough: Callable[[Results], bool] = lambda _: True  # else the size was too small for a verdict

    def row(self, results: Results) -> Row:
        bound = self.least if self.least is not None else self.most
        assert bound is not None
        word = "at least" if self.least is not None else "at most"
        value = self.value(results)
        goal = f"{word} {bound:,g} {self.unit}".strip()
        if value is None:
            return Row(self.measure, goal, "not measured", None)
        shown = f"{_shown(value)} {self.unit}".strip()
        if not self.enough(results):
            return Row(self.measure, goal, f"{shown} (small size)", None)
        reached = value >= bound if self.least is not None else value <= bound
        return Row(self.measure, goal, shown, reached)


def rows(results: Results) -> list[Row]:
    """Every goal, against the results."""
    return [goal.row(results) for goal in GOALS]


def _filled(results: Results) -> bool:
    contest = results.contests.get(OURS)
    return contest is not None and contest.stored >= 2_000_000


def _grown(results: Results) -> bool:
    return bool(results.growth) and results.growth[-1]["events"] >= 20_000_000


def _counted(name: str, least: float) -> Callable[[Results], bool]:
    return lambda results: results.measures.get(name, 0) >= least


def measure(name: str) -> Callable[[Results], float | None]:
    return lambda results: results.measures.get(name)


def over_copy(name: str, anchor: str = "") -> Callable[[Results], float | None]:
    """A rate of ours to that of COPY in the same run."""

    def value(results: Results) -> float | None:
        ours = results.measures.get(name)
        copy = results.measures.get(anchor) if anchor else results.rate(BARE, COPY)
        return ours / copy if ours and copy else None

    return value


def _copy_loaded(results: Results) -> float | None:
    ratios = results.ratios(OURS, BARE, WS_100, COPY)
    return median(ratios) if ratios else None


def _copy_empty(results: Results) -> float | None:
    ours = results.rate(OURS, WS_100)
    copy = results.measures.get("PostgreSQL COPY, empty: rows/s")
    return ours / copy if ours and copy else None


def over_fastapi(*scenarios: str) -> Callable[[Results], float | None]:
    """The first scenario of ours to the best of FastAPI + PostgreSQL in any of them."""

    def value(results: Results) -> float | None:
        ours = results.rate(OURS, scenarios[0])
        theirs = [results.rate(name, s) or 0.0 for name in FASTAPIS for s in scenarios]
        return ours / max(theirs) if ours and max(theirs) else None

    return value


def _growth(results: Results) -> float | None:
    rates = [rate for point in results.growth if (rate := point.get("ingest: events/s"))]
    return 100 * rates[-1] / rates[0] if len(rates) > 1 else None


def _last(name: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        found = results.growth[-1].get(name) if results.growth else None
        return results.measures.get(f"{name}, hot") if found is None else found

    return value


def _percent(name: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        found = results.measures.get(name)
        return None if found is None else 100 * found

    return value


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


COPY_EMPTY = "PostgreSQL COPY, empty: rows/s"
GOALS = (
    Goal("WebSocket, 100 a message, store filled / PostgreSQL COPY, filled as much", "times",
         _copy_loaded, least=2.5, enough=_filled),
    Goal("the same / PostgreSQL COPY into an empty table", "times", _copy_empty,
         least=1, enough=_filled),
    Goal("the same / FastAPI + PostgreSQL, its best (1 or 2 workers)", "times",
         over_fastapi(WS_100), least=5, enough=_filled),
    Goal("store alone / PostgreSQL COPY, empty", "times",
         over_copy("store alone: events/s", COPY_EMPTY), least=5),
    Goal("store alone with sealing / PostgreSQL COPY, empty", "times",
         over_copy("store alone, with sealing: events/s", COPY_EMPTY), least=2.5),
    Goal("decode to durable / decoding alone: no chain, no rollups", "%",
         _percent("share of decoding, no chain, no rollups"), least=80),
    Goal("decode to durable / decoding alone: whole chain and rollups", "%",
         _percent("share of decoding, whole chain and rollups"), least=65),
    Goal("1-event messages / FastAPI + PostgreSQL, its best of WebSocket and HTTP", "times",
         over_fastapi(WS_1, HTTP_1), least=5),
    Goal("HTTP, 100 a request / FastAPI + PostgreSQL, its best", "times",
         over_fastapi(HTTP_100), least=2),
    Goal("acknowledgement p99 at 10,000 events/s", "ms",
         measure("ack p99 at 10000 events/s: ms"), most=15),
    Goal("acknowledgement p99 at 40,000 events/s", "ms",
         measure("ack p99 at 40000 events/s: ms"), most=25),
    Goal("ingest at the last mark of growth against an empty store", "%", _growth, least=95,
         enough=_grown),
    Goal("bytes an event on disk, hot", "bytes", measure("bytes an event, hot"), most=130),
    Goal("bytes an event on disk, sealed", "bytes", measure("bytes an event, sealed"), most=110),
    Goal("bytes written to disk an event", "bytes",
         measure("bytes written an event, store alone"), most=400),
    Goal("rollups' cost", "%", _percent("rollups cost"), most=30),
    Goal("restart with hot events to `ready`", "s", measure("restart to ready: s"), most=3,
         enough=_counted("restart: hot events", 5_000_000)),
    Goal("a student's last 100, p95", "ms", _last("student's last 100, p95: ms"), most=20,
         enough=_grown),
    Goal("a class, 30 days, p95", "ms", _last("class 30 days, p95: ms"), most=150,
         enough=_grown),
    Goal("export", "events/s", _last("export: events/s"), least=400_000, enough=_grown),
    Goal("ingest beside 20 readers against alone", "%",
         _percent("ingest beside 20 readers: share"), least=90),
    Goal("erase one user", "ms", _last("erase one user: ms"), most=100, enough=_grown),
    Goal("memory, idle", "MiB", measure("memory idle: MiB"), most=80),
    Goal("memory, idle connections", "MiB", measure("memory with idle connections: MiB"), most=400,
         enough=_counted("idle connections held", 10_000)),
    Goal("memory, in a flood", "MiB", measure("memory in a flood: MiB"), most=512),
)  # fmt: skip
