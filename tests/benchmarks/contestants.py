"""The daemon and its alternatives: each started, filled, loaded and ended in the same way."""

from __future__ import annotations

import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from msgspec import Struct

from mlc_broker.cli.bench_load import Plan, generate
from mlc_broker.cli.bench_pages import ORGANIZATION, Protocol, school_roster
from tests.benchmarks import processes
from tests.daemon import Daemon

ROOT = Path(__file__).resolve().parents[2]
NO_RATE_LIMIT = {
    "events_per_second_per_key": 10_000_000,
    "events_per_second_per_organization": 10_000_000,
}


class Missing(Exception):
    """This alternative cannot run here: the message says why."""


class Door(Struct, frozen=True, kw_only=True):
    """Where events are taken."""

    protocol: Protocol
    port: int
    path: str = "/"
    path_one: str = "/"  # for a single event
    bearer: str = ""
    shape: str = "event"
    says_counts: bool = True

    def plan(self, events_each: int, **more: Any) -> Plan:
        return Plan(
            protocol=self.protocol,
            address=("127.0.0.1", self.port),
            path=self.path_one if events_each == 1 else self.path,
            bearer=self.bearer,
            events_each=events_each,
            shape=self.shape,  # type: ignore[arg-type]
            says_counts=self.says_counts,
            **more,
        )


class Contestant(ABC):
    """Start it in a directory, send events to its doors, end it."""

    name: ClassVar[str]
    promise: ClassVar[str]  # what an acknowledged event survives

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.doors: dict[str, Door] = {}
        self.stored = 0  # filled in before the measurement

    @abstractmethod
    def start(self) -> None:
        """Start; raises Missing where it cannot run here."""

    @abstractmethod
    def stop(self) -> None:
        """End all processes."""

    @property
    @abstractmethod
    def pids(self) -> list[int]:
        """The roots of its processes."""

    def fill(self, events: int) -> None:
        """Store so many events before the measurement."""
        door = next((d for d in self.doors.values() if d.protocol == "websocket"), None)
        if door is not None and events:
            generate(door.plan(100, connections=8, window=8, events_max=events, warm_seconds=0))
            self.stored = events

    def cost(self) -> processes.Cost:
        costs = [processes.cost(pid) for pid in self.pids]
        return processes.Cost(
            sum(c.cpu_seconds for c in costs), sum(c.written_bytes for c in costs)
        )

    def memory_bytes(self) -> int:
        return sum(map(processes.memory_bytes, self.pids))


class Broker(Contestant):
    """The daemon as it is shipped: its default chain and durability."""

    name = "mlc-broker"
    promise = "power cut"

    def __init__(
        self, directory: Path, *, settings: dict[str, dict[str, Any]] | None = None
    ) -> None:
        super().__init__(directory)
        self.daemon = Daemon(
            directory / "mlc-broker", settings={"limits": NO_RATE_LIMIT} | (settings or {})
        )
        self.key = ""

    def start(self) -> None:
        if not self.daemon.config.exists():
            self.prepare()
        self.daemon.start()
        ws, http = urlsplit(self.daemon.ws), urlsplit(self.daemon.http)
        bearer = f"Bearer {self.key}"
        self.doors = {
            "websocket": Door(
                protocol="websocket", port=ws.port or 0, path=ws.path, path_one=ws.path, bearer=bearer
            ),
            "http": Door(
                protocol="http", port=http.port or 0, path="/v1/events", path_one="/v1/events",
                bearer=bearer,
            ),
        }  # fmt: skip

    def prepare(self) -> None:
        """Make its directory, its school and its key."""
        self.daemon._init()
        self.daemon.roster(school_roster())
        self.daemon._organizations.add(ORGANIZATION)
        self.key = self.daemon.key(ORGANIZATION)

    def stop(self) -> None:
        if self.daemon.running:
            self.daemon.stop()

    @property
    def pids(self) -> list[int]:
        return [self.daemon.pid]

    @property
    def data(self) -> Path:
        return self.daemon.directory / "data"


class Program(Contestant):
    """An alternative that is one program with a port."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.folder = directory / self.name.replace(" ", "-").replace("/", "-")
        self.process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        processes.end(self.process)
        self.process = None

    @property
    def pids(self) -> list[int]:
        return [self.process.pid] if self.process else []

    def run(self, command: list[str], port: int, environment: dict[str, str] | None = None) -> None:
        """Start the program in its folder and wait until it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "log.txt"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, cwd=ROOT, env=environment
            )
        try:
            processes.wait_for_port(port, self.process, log)
        except RuntimeError as error:
            self.stop()
            raise Missing(str(error)) from error


def python(*words: str) -> list[str]:
    """A command of this interpreter."""
    return [sys.executable, "-m", *words]
