"""What was measured: a JSON file that the tables, plots and the capacity page are made from."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from msgspec import Struct

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "benchmarks"


class Sizes(Struct, kw_only=True, frozen=True):
    """How much is done."""

    stored: int = 2_000_000  # events in each store before the comparison
    rounds: int = 5
    seconds: float = 4.0  # of one measurement
    store_events: int = 500_000  # for the store alone
    hot_events: int = 5_000_000  # for the restart
    idle_connections: int = 10_000
    growth: tuple[int, ...] = (0, 1_000_000, 5_000_000, 10_000_000, 20_000_000)

    @classmethod
    def quick(cls) -> Sizes:
        """Enough to see that everything works."""
        return cls(
            stored=20_000,
            rounds=2,
            seconds=1.0,
            store_events=20_000,
            hot_events=50_000,
            idle_connections=200,
            growth=(0, 10_000, 30_000),
        )


class Series(Struct, kw_only=True):
    """One contestant in one scenario, a value a round."""

    rates: list[float] = []  # events/s
    p50_ms: list[float] = []
    p99_ms: list[float] = []
    generator: list[float] = []  # the load generator's share of a core
    cpu_us: list[float] = []  # of the contestant's processes, an event
    written_bytes: list[float] = []  # an event
    trouble: str = ""

    @property
    def rate(self) -> float:
        return median(self.rates) if self.rates else 0.0


class Contest(Struct, kw_only=True):
    """One contestant."""

    promise: str = ""
    missing: str = ""
    stored: int = 0
    series: dict[str, Series] = {}


class Results(Struct, kw_only=True):
    """Everything. `measures` are single figures by name; `skipped` says why one is missing."""

    machine: dict[str, str] = {}
    sizes: Sizes = Sizes()
    contests: dict[str, Contest] = {}
    measures: dict[str, float] = {}
    skipped: dict[str, str] = {}
    growth: list[dict[str, float]] = []

    def rate(self, contestant: str, scenario: str) -> float | None:
        """The median rate, or None."""
        contest = self.contests.get(contestant)
        series = contest.series.get(scenario) if contest else None
        return series.rate if series and series.rates else None

    def ratios(self, one: str, other: str, scenario: str, scenario2: str = "") -> list[float]:
        """One to the other, round by round."""
        try:
            a = self.contests[one].series[scenario].rates
            b = self.contests[other].series[scenario2 or scenario].rates
        except KeyError:
            return []
        return [x / y for x, y in zip(a, b, strict=False) if y]


class Budget:
    """A total time; `left` tells whether there is some, `seconds` how much."""

    def __init__(self, seconds_max: float) -> None:
        self._until = time.monotonic() + seconds_max

    @property
    def seconds(self) -> float:
        return max(0.0, self._until - time.monotonic())

    @property
    def left(self) -> bool:
        return self.seconds > 0


def load(folder: Path = FOLDER) -> Results:
    file = folder / "results.json"
    return msgspec.json.decode(file.read_bytes(), type=Results) if file.exists() else Results()


def save(results: Results, folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(_rounded(results)), indent=1)
    (folder / "results.json").write_bytes(text + b"\n")


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    from sqlite_utils.utils import sqlite3

    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "taken": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": head.stdout.strip(),
        "processor": f"{cpu}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "sqlite": sqlite3.sqlite_version,
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _rounded(value: Any) -> Any:
    plain = msgspec.to_builtins(value)

    def walk(item: Any) -> Any:
        if isinstance(item, float):
            return float(f"{item:.5g}")
        if isinstance(item, list):
            return [walk(x) for x in item]
        return {k: walk(v) for k, v in item.items()} if isinstance(item, dict) else item

    return walk(plain)
