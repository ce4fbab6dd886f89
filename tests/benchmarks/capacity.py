"""docs/capacity.md: what one small server carries, worked out from the results."""

from __future__ import annotations

from tests.benchmarks.goals import HTTP_100, OURS, WS_1, WS_100
from tests.benchmarks.results import Results

STUDENTS = 1_000  # of a school
SCHOOL_PEAK = 200  # events/s of such a school in its busiest minute
EVENTS_A_DAY = 200  # of a student on a school day
SCHOOL_DAYS = 180
HEADROOM = 0.5  # of the measured rate: the rest is for bursts, sealing and questions
ASSUMED = f"""A school: {STUDENTS:,} students, {EVENTS_A_DAY} events a student and school day, {SCHOOL_DAYS} school days a
year, {SCHOOL_PEAK} events/s in its busiest minute. Half of what was measured is planned with: the rest is for
bursts after a network failure, sealing, and questions."""


def page(results: Results) -> str:
    """Return the page."""
    ws = results.rate(OURS, WS_100)
    sealed = results.measures.get("bytes an event, sealed")
    lines = [
        "# Capacity: what one server carries",
        "",
        "Made by `make bench` from docs/benchmarks/results.json; do not edit by hand.",
        "",
    ]
    if ws is None or sealed is None:
        return "\n".join([*lines, "Nothing has been measured yet: `make bench`.", ""])
    machine = results.machine
    lines += [
        (
            f"Measured on {machine.get('processor')}, {machine.get('memory')}, "
            f"{machine.get('python')}, with {results.sizes.stored:,} events stored "
            "(see [benchmarks](benchmarks/README.md))."
        ),
        "",
        ASSUMED,
        "",
        "## One server like that",
        "",
        "| | |",
        "|---|---|",
        *_server(results, ws, sealed),
        "",
        "## What others need",
        "",
        "| | schools | events/s at the peak | share of this server | events a year | disk a year, sealed |",
        "|---|---|---|---|---|---|",
        *(_need(name, count, ws, sealed) for name, count in _SIZES),
        "",
        *_ADVICE,
        "",
    ]
    return "\n".join(lines)


_SIZES = (("a school", 1), ("a small district", 10), ("a district", 100), ("a large district", 500))
_ADVICE = (
    "Where the share is over 100 %, split by organization: one daemon a group of districts, each with its",
    "own directory. Nothing is shared between daemons, so they add up.",
    "",
    "Send batches: a message of one event costs many times its share of a message of a hundred, and",
    "clients that follow the SDKs batch by themselves. Plain HTTP is for those who cannot hold a socket.",
    "The memory of ids grows with the events of the last day (`dedup_bytes_max`): 32 to 64 bytes each.",
)


def _server(results: Results, ws: float, sealed: float) -> list[str]:
    schools = int(HEADROOM * ws / SCHOOL_PEAK)
    lines = [
        f"| events/s, WebSocket, 100 a message | {ws:,.0f} measured, {HEADROOM * ws:,.0f} planned |",
        f"| schools | {schools:,} |",
        f"| students | {schools * STUDENTS:,} |",
        f"| events on a school day | {schools * STUDENTS * EVENTS_A_DAY:,} |",
        f"| years on 1 TB, sealed | {1e12 / _year_bytes(schools, sealed):,.1f} |"
        if schools
        else "| years on 1 TB, sealed | – |",
    ]
    for name, scenario in (("one event a message", WS_1), ("HTTP, 100 a request", HTTP_100)):
        rate = results.rate(OURS, scenario)
        if rate is not None:
            lines.append(f"| events/s, {name} | {rate:,.0f} measured |")
    figures = results.measures
    names = ("memory idle", "memory with idle connections", "memory in a flood")
    found = [(name, figures[f"{name}: MiB"]) for name in names if f"{name}: MiB" in figures]
    return lines + [f"| {name} | {value:,.0f} MiB |" for name, value in found]


def _need(name: str, schools: int, ws: float, sealed: float) -> str:
    peak = schools * SCHOOL_PEAK
    events = schools * STUDENTS * EVENTS_A_DAY * SCHOOL_DAYS
    share = peak / (HEADROOM * ws)
    return (
        f"| {name} | {schools} | {peak:,} | {share:.0%} | {events / 1e6:,.0f} million "
        f"| {_year_bytes(schools, sealed) / 1e9:,.1f} GB |"
    )


def _year_bytes(schools: int, sealed: float) -> float:
    return schools * STUDENTS * EVENTS_A_DAY * SCHOOL_DAYS * sealed
