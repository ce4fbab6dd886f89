"""Single figures of the running daemon: latency, restart, reading, erasing, memory."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from mlc_broker.cli.bench_load import LoadError, Running, generate
from mlc_broker.cli.bench_pages import ORGANIZATION
from mlc_broker.model.event import rfc3339
from tests.benchmarks.contestants import ROOT, Broker, python
from tests.benchmarks.readers import beside_readers
from tests.benchmarks.results import Budget, Results, Sizes

ROOMS_SECONDS_MAX = 300
QUESTIONS = 40
HOT_FOR_EVER = {"storage": {"hot_bytes_max": 8 * 1024**3}}
OPEN_DOORS = {"websocket": {"connections_max": 20_000, "connections_per_address_max": 20_000}}
_HOLD = """
import resource, socket, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
port, path, bearer, count = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
held = []
for _ in range(count):
    one = socket.create_connection(("127.0.0.1", port), 30)
    one.sendall((f"GET {path} HTTP/1.1\\r\\nHost: bench\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\nSec-WebSocket-Version: 13\\r\\n"
        f"Authorization: {bearer}\\r\\n\\r\\n").encode())
    if b" 101 " not in one.recv(4096):
        break
    held.append(one)
print(len(held), flush=True)
sys.stdin.read()
"""


class Measures:
    """Runs each measure on a daemon of its own; one that fails is told and skipped."""

    def __init__(self, results: Results, sizes: Sizes, budget: Budget, directory: Path) -> None:
        self._results = results
        self._sizes = sizes
        self._budget = budget
        self._directory = directory

    def run(self) -> None:
        """All of them."""
        for name, measure in (
            ("rooms", self._rooms),
            ("latency", self._latency),
            ("memory", self._memory),
            ("restart", self._restart),
        ):
            self._try(name, measure)

    def _try(self, name: str, measure: Callable[[], None]) -> None:
        if not self._budget.left:
            self._results.skipped[name] = "the time was over"
            return
        self._results.skipped.pop(name, None)
        try:
            measure()
        except (
            LoadError,
            AssertionError,
            OSError,
            subprocess.SubprocessError,
            ValueError,
        ) as error:
            self._results.skipped[name] = f"{type(error).__name__}: {error}"[:300]
            print(f"  {name}: {self._results.skipped[name]}", flush=True)

    def _note(self, name: str, value: float) -> None:
        self._results.measures[name] = value
        print(f"  {name:<58}{value:>14,.3f}", flush=True)

    def _rooms(self) -> None:
        done = subprocess.run(
            python("tests.benchmarks.rooms", str(self._sizes.store_events), str(self._directory / "rooms")),
            cwd=ROOT, capture_output=True, text=True, check=False,
            timeout=min(ROOMS_SECONDS_MAX, self._budget.seconds),
        )  # fmt: skip
        if done.returncode != 0:
            raise OSError(done.stderr[-300:])
        for name, value in json.loads(done.stdout.splitlines()[-1]).items():
            self._note(name, value)

    def _latency(self) -> None:
        broker = Broker(self._directory / "latency")
        broker.start()
        try:
            door = broker.doors["websocket"]
            for rate in (10_000, 40_000):
                told = generate(
                    door.plan(
                        100, connections=20, window=4, events_per_second=rate, warm_seconds=4.0,
                        seconds=max(1.0, 2 * self._sizes.seconds),
                    )
                )  # fmt: skip
                self._note(f"ack p50 at {rate} events/s: ms", told.p50_ms)
                self._note(f"ack p99 at {rate} events/s: ms", told.p99_ms)
                self._note(f"ack max at {rate} events/s: ms", told.max_ms)
                self._note(f"reached of {rate} events/s", told.events_per_second)
        finally:
            broker.stop()

    def _memory(self) -> None:
        broker = Broker(self._directory / "memory", settings=OPEN_DOORS)
        broker.start()
        try:
            mib = 1024**2
            self._note("memory idle: MiB", broker.memory_bytes() / mib)
            door = broker.doors["websocket"]
            holder = subprocess.Popen(
                [sys.executable, "-c", _HOLD, str(door.port), door.path, door.bearer,
                 str(self._sizes.idle_connections)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            try:
                assert holder.stdout is not None
                held = int(holder.stdout.readline() or 0)
                self._note("idle connections held", held)
                self._note("memory with idle connections: MiB", broker.memory_bytes() / mib)
            finally:
                holder.communicate("")
            flood = Running(
                door.plan(100, connections=100, window=16, seconds=2 * self._sizes.seconds)
            )
            most = 0
            while flood.running:
                most = max(most, broker.memory_bytes())
                time.sleep(0.1)
            flood.told()
            self._note("memory in a flood: MiB", most / mib)
        finally:
            broker.stop()

    def _restart(self) -> None:
        broker = Broker(self._directory / "restart", settings=HOT_FOR_EVER)
        broker.start()
        try:
            broker.fill(self._sizes.hot_events)
            broker.stop()
            began = time.perf_counter()
            broker.start()
            self._note("restart to ready: s", time.perf_counter() - began)
            self._note("restart: hot events", broker.stored)
            for name, value in ask(broker).items():
                self._note(f"{name}, hot", value)
            for name, value in beside_readers(broker, self._sizes.seconds).items():
                self._note(name, value)
        finally:
            broker.stop()


def ask(broker: Broker) -> dict[str, float]:
    """Ask a running daemon what schools ask; return milliseconds, and lines a second of an export."""
    admin = broker.daemon.token("usr_admin", ORGANIZATION, "subscriber_admin")
    student = broker.daemon.token("usr_00042", ORGANIZATION, "student")
    teacher = broker.daemon.token("tch_3", ORGANIZATION, "teacher")
    month = rfc3339(datetime.now(UTC) - timedelta(days=30))
    class_ = urlencode({"class_id": "cls_6", "from": month, "limit": 1000})
    return {
        "student's last 100, p95: ms": _p95(broker, "/v1/events?limit=100", student),
        "class 30 days, p95: ms": _p95(broker, f"/v1/events?{class_}", teacher),
        "class 30 days, of an admin, p95: ms": _p95(broker, f"/v1/events?{class_}", admin),
        "export: events/s": _export(broker, admin),
    }


def rest(broker: Broker, seconds_max: float = 300.0) -> float:
    """Wait until no closed hot file is left to be sealed; return the seconds."""
    began = time.perf_counter()
    meta = (broker.data / "meta.db").absolute()
    while time.perf_counter() - began < seconds_max:
        connection = sqlite3.connect(f"{meta.as_uri()}?mode=ro", uri=True)
        try:
            (left,) = connection.execute(
                "SELECT count(*) FROM hot WHERE state = 'closed'"
            ).fetchone()
        finally:
            connection.close()
        if not left:
            break
        time.sleep(0.5)
    return time.perf_counter() - began


def erase(broker: Broker, student: int, seconds_max: float = 120.0) -> float:
    """Erase a student at once; return the seconds until the job is done."""
    daemon = broker.daemon
    admin = daemon.token("usr_admin", ORGANIZATION, "subscriber_admin")
    began = time.perf_counter()
    answer = daemon.delete(f"/v1/users/usr_{student:05}?immediately=true", admin)
    assert answer.status == 202, answer
    job = answer.json()["id"]
    while time.perf_counter() - began < seconds_max:
        state = daemon.get(f"/v1/jobs/{job}", admin).json()["state"]
        if state not in ("waiting", "running"):
            assert state == "done", state
            return time.perf_counter() - began
        time.sleep(0.005)
    raise AssertionError(f"not erased after {seconds_max} s")


def _p95(broker: Broker, path: str, token: str) -> float:
    took = []
    for _ in range(QUESTIONS):
        began = time.perf_counter()
        answer = broker.daemon.get(path, token)
        took.append(1000 * (time.perf_counter() - began))
        assert answer.status == 200, answer
    return sorted(took)[int(QUESTIONS * 0.95)]


def _export(broker: Broker, token: str, seconds_max: float = 20.0) -> float:
    """Lines a second of a streamed export, over at most so many seconds."""
    http = urlsplit(broker.daemon.http)
    lines, began = 0, time.perf_counter()
    with socket.create_connection((http.hostname or "", http.port or 0), 30) as connection:
        asked = (
            f"GET /v1/export?format=jsonl HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {token}\r\n"
        )
        connection.sendall(f"{asked}Connection: close\r\n\r\n".encode())
        stop = threading.Timer(seconds_max, partial(_cut, connection))
        stop.start()
        first = connection.recv(1_048_576)
        assert b" 200 " in first[:20], first[:300]
        data: bytes = first
        while data:
            lines += data.count(b'"event_id"')
            try:
                data = connection.recv(1_048_576)
            except OSError:
                break
        stop.cancel()
    return lines / (time.perf_counter() - began)


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def data_bytes(broker: Broker) -> dict[str, Any]:
    """What the data directory takes, by kind."""
    from tests.benchmarks.processes import disk_bytes

    return {
        "hot": disk_bytes(broker.data / "hot"),
        "sealed": disk_bytes(broker.data / "shards"),
        "all": disk_bytes(broker.data),
    }
