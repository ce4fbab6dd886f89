"""The load generator: one process, plain sockets, messages encoded beforehand, every answer counted.

`python -m mlc_broker.cli.bench_load` reads a Plan as JSON from stdin and prints what it Told.
`generate` does the same from another program, in a process of its own, so that what is measured and
what measures do not share an interpreter. Its own share of a core is part of the result: near 1.0
it was the bottleneck, and the figures are a floor.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from random import Random
from typing import Literal

import msgspec
from msgspec import Struct

from mlc_broker.cli.bench_pages import Protocol, pages

READ_BYTES = 262_144
HANDSHAKE_SECONDS_MAX = 10.0
SILENCE_SECONDS_MAX = 30.0  # without any answer: whatever is measured hangs
GRACE_SECONDS = 60.0
_STORED = re.compile(rb'"stored": ?(\d+)')
_LENGTH = re.compile(rb"\r\ncontent-length: ?(\d+)", re.IGNORECASE)


class Plan(Struct, frozen=True, kw_only=True):
    """What to send, where, for how long."""

    protocol: Protocol
    address: tuple[str, int]
    path: str = "/v1/events"
    bearer: str = ""  # the Authorization header's value
    events_each: int = 100  # events of one message
    connections: int = 4
    window: int = 8  # messages of one connection without an answer; HTTP: always 1
    seconds: float = 5.0
    warm_seconds: float = 0.5  # before counting begins
    events_per_second: float = 0.0  # offered, at random moments; 0: as fast as answers come
    events_max: int = 0  # then it stops, and all of it was answered; 0: time alone
    shape: Literal["event", "xapi"] = "event"
    says_counts: bool = True  # its answers tell how many events were stored
    pages: int = 48
    spread_seconds: float = 3_600.0  # how old the oldest events are
    seed: int = 1


class Told(Struct, kw_only=True):
    """What came of it. Latencies are from when a message was due to its answer."""

    seconds: float = 0.0
    events: int = 0  # answered as stored
    others: int = 0  # answered otherwise
    messages: int = 0
    events_per_second: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    cpu_share: float = 0.0  # of one core, of the generator itself
    trouble: str = ""


class LoadError(Exception):
    """The generator could not do what it was asked."""


def generate(plan: Plan) -> Told:
    """Run a plan in a process of its own; raises LoadError."""
    return Running(plan).told()


class Running:
    """A generator at work in its own process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlc_broker.cli.bench_load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(plan))
        self._process.stdin.close()
        self._process.stdin = None  # or communicate() would flush it

    @property
    def running(self) -> bool:
        """Whether it is still at it."""
        return self._process.poll() is None

    def told(self) -> Told:
        """Wait for its end and return the result; raises LoadError."""
        plan = self._plan
        patience = None if plan.events_max else plan.seconds + plan.warm_seconds + GRACE_SECONDS
        try:
            said, complaint = self._process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise LoadError("the load generator did not end in time") from None
        if self._process.returncode != 0:
            raise LoadError(f"the load generator broke: {complaint.decode()[-2000:]}")
        told = msgspec.json.decode(said, type=Told)
        if told.trouble:
            raise LoadError(told.trouble)
        return told


class Generator:
    """Sends what the plan says over its lines, and counts."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lines: list[Line] = []
        self._selector = selectors.DefaultSelector()
        self._made = pages(
            plan.protocol,
            plan.events_each,
            max(1, plan.pages * 100 // (plan.events_each * 64 if plan.events_each == 1 else 100)),
            path=plan.path,
            bearer=_inbox() if plan.protocol == "nats" else plan.bearer,
            shape=plan.shape,
            spread_seconds=plan.spread_seconds,
            seed=plan.seed,
        )
        self._page, self._next = self._made[0], 0
        self._sent_events = 0
        self._begun = 0.0  # when counting begins
        self._latencies: list[float] = []
        self._told = Told()
        self._heard = 0.0

    def run(self) -> Told:
        """Do it all; return the result."""
        plan = self._plan
        self._page.renew()
        # NATS puts the place of the answers into each message: one connection carries them all.
        connections = 1 if plan.protocol == "nats" else plan.connections
        self._lines = [Line(plan) for _ in range(connections)]
        for line in self._lines:
            self._selector.register(line.socket, selectors.EVENT_READ, line)
        self._begun = time.perf_counter() + plan.warm_seconds
        self._heard = time.perf_counter()
        cpu = self._talk()
        told = self._told
        ended = min(time.perf_counter(), self._begun + plan.seconds)
        told.seconds = (self._heard if plan.events_max else ended) - self._begun
        told.events_per_second = told.events / told.seconds if told.seconds > 0 else 0.0
        told.cpu_share = cpu
        late = sorted(self._latencies)
        if late:
            told.p50_ms = 1000 * late[len(late) // 2]
            told.p99_ms = 1000 * late[int(len(late) * 0.99)]
            told.max_ms = 1000 * late[-1]
        return told

    def _talk(self) -> float:
        """Send and hear until it is over; return the share of a core that this took."""
        cpu, began = time.process_time(), time.perf_counter()
        due, wait = self._due(), 0.05
        if not self._plan.events_per_second:
            for line in self._lines:
                self._fill(line)
        while not self._over():
            if self._plan.events_per_second:
                due = self._send_due(due)
                wait = min(0.05, max(0.0, due - time.perf_counter()))
            for key, mask in self._selector.select(wait):
                self._serve(key.data, mask)
            self._watch()
        return (time.process_time() - cpu) / max(1e-9, time.perf_counter() - began)

    def _serve(self, line: Line, mask: int) -> None:
        if mask & selectors.EVENT_WRITE and line.flush():
            self._selector.modify(line.socket, selectors.EVENT_READ, line)
        if mask & selectors.EVENT_READ:
            for stored in line.hear():
                self._count(line, stored)
        if not self._plan.events_per_second:
            self._fill(line)

    def _count(self, line: Line, stored: int) -> None:
        now = self._heard = time.perf_counter()
        since, events = line.open.popleft()
        if self._begun <= now and (
            self._plan.events_max or now <= self._begun + self._plan.seconds
        ):
            told = self._told
            told.messages += 1
            told.events += stored
            told.others += events - stored
            self._latencies.append(now - since)

    def _fill(self, line: Line) -> None:
        now = time.perf_counter()
        while len(line.open) < line.window and not line.backlog and not self._enough():
            self._send(line, now)

    def _send(self, line: Line, since: float) -> None:
        page = self._page
        began, ended = page.parts[self._next]
        self._sent_events += page.events
        line.open.append((since, page.events))
        line.used_at = since
        if not line.send(memoryview(page.buffer)[began:ended]):
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(line.socket, both, line)
        self._next += 1
        if self._next == len(page.parts):
            self._turn()

    def _turn(self) -> None:
        self._made.append(self._made.pop(0))
        self._page, self._next = self._made[0], 0
        self._page.renew()

    def _due(self) -> float:
        self._random = Random(self._plan.seed)  # noqa: S311 (moments, no secrets)
        self._queue: deque[float] = deque()  # moments at which a message was due and not yet sent
        return time.perf_counter()

    def _send_due(self, due: float) -> float:
        """Send what is due. A line that is not free makes it late, and that counts."""
        now, plan = time.perf_counter(), self._plan
        while due <= now:
            self._queue.append(due)
            due += self._random.expovariate(plan.events_per_second / plan.events_each)
        while self._queue:
            line = min(self._lines, key=_load)
            if len(line.open) >= line.window or line.backlog:
                break
            self._send(line, self._queue.popleft())
        return due

    def _enough(self) -> bool:
        return bool(self._plan.events_max) and self._sent_events >= self._plan.events_max

    def _over(self) -> bool:
        if self._plan.events_max:
            return self._enough() and not any(line.open for line in self._lines)
        return time.perf_counter() >= self._begun + self._plan.seconds

    def _watch(self) -> None:
        waiting = any(line.open for line in self._lines)
        if waiting and time.perf_counter() - self._heard > SILENCE_SECONDS_MAX:
            raise LoadError(f"no answer for {SILENCE_SECONDS_MAX:.0f} s")


class Line:
    """One connection. `hear` returns how many events each answer said were stored."""

    def __init__(self, plan: Plan) -> None:
        self.open: deque[tuple[float, int]] = deque()
        self.backlog = b""
        self.used_at = 0.0  # when it got its last message
        self.window = {"http": 1, "nats": plan.window * plan.connections}.get(
            plan.protocol, plan.window
        )
        self.socket = socket.create_connection(plan.address, HANDSHAKE_SECONDS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._plan = plan
        self._heard = b""
        self._partly = 0  # acknowledgements of NATS towards a whole message
        answers = {"http": self._responses, "nats": self._acknowledgements}
        self._parse = answers.get(plan.protocol, self._frames)
        if plan.protocol == "websocket":
            self._upgrade()
        elif plan.protocol == "nats":
            self.socket.sendall(
                f'CONNECT {{"verbose":false,"headers":true}}\r\nSUB {_inbox()} 1\r\n'.encode()
            )
        self.socket.setblocking(False)

    def send(self, data: memoryview) -> bool:
        """Send; False: a part of it waits in `backlog` until the socket takes more."""
        try:
            done = self.socket.send(data)
        except BlockingIOError:
            done = 0
        self.backlog = bytes(data[done:])
        return not self.backlog

    def flush(self) -> bool:
        """Send what waits; True: nothing waits any more."""
        return self.send(memoryview(self.backlog))

    def hear(self) -> list[int]:
        """Read what is there; return the events stored, one number for each whole answer."""
        try:
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return []
        if not data:
            raise LoadError("the connection was closed")
        self._heard += data
        return self._parse()

    def _upgrade(self) -> None:
        plan = self._plan
        words = (
            f"GET {plan.path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Version: 13\r\nAuthorization: {plan.bearer}\r\n\r\n"
        )
        self.socket.sendall(words.encode())
        said = b""
        while b"\r\n\r\n" not in said:
            more = self.socket.recv(4096)
            if not more:
                break
            said += more
        if b" 101 " not in said[:20]:
            raise LoadError(f"no WebSocket: {said[:200]!r}")
        self._heard = said.partition(b"\r\n\r\n")[2]

    def _frames(self) -> list[int]:
        data, at, stored = self._heard, 0, []
        while len(data) - at >= 2:
            kind, size, head = data[at] & 0x0F, data[at + 1], 2
            if size == 126:
                size, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            elif size == 127:
                size, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
            if len(data) - at < head + size:
                break
            payload = data[at + head : at + head + size]
            at += head + size
            if kind == 0x8:
                raise LoadError(f"closed: {payload[:200]!r}")
            if kind == 0x9:  # a ping: an empty mask makes the pong the same
                self.socket.send(bytes((0x8A, 0x80 | size)) + bytes(4) + payload)
            elif found := _STORED.search(payload):
                stored.append(int(found.group(1)))
            elif b'"error"' in payload:
                raise LoadError(f"refused: {payload[:300]!r}")
        self._heard = data[at:]
        return stored

    def _responses(self) -> list[int]:
        stored = []
        while (end := self._heard.find(b"\r\n\r\n")) >= 0:
            head = self._heard[: end + 2]
            found = _LENGTH.search(head)
            size = int(found.group(1)) if found else 0
            if len(self._heard) < end + 4 + size:
                break
            body = self._heard[end + 4 : end + 4 + size]
            self._heard = self._heard[end + 4 + size :]
            if not head.startswith((b"HTTP/1.1 20", b"HTTP/1.0 20")):
                raise LoadError(f"refused: {head[:40]!r} {body[:300]!r}")
            counted = _STORED.search(body) if self._plan.says_counts else None
            stored.append(int(counted.group(1)) if counted else self._plan.events_each)
        return stored

    def _acknowledgements(self) -> list[int]:
        *lines, self._heard = self._heard.split(b"\r\n")
        each, whole = self._plan.events_each, []
        for line in lines:
            if line.startswith(b'{"stream"'):
                self._partly += 1
                if self._partly == each:
                    self._partly = 0
                    whole.append(each)
            elif line.startswith((b"-ERR", b'{"error"', b'{"type"')):
                raise LoadError(f"refused: {line[:300]!r}")
            elif line == b"PING":
                self.socket.send(b"PONG\r\n")
        return whole


def _inbox() -> str:
    """Return where NATS answers this process, and no earlier one."""
    return f"_INBOX.{os.getpid()}"


def _load(line: Line) -> tuple[int, float]:
    # Of those with as much to do, the one that was quiet for longest: nobody is quiet for too long.
    return len(line.open) + (1000 if line.backlog else 0), line.used_at


def _main() -> None:
    try:
        told = Generator(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)).run()
    except (LoadError, OSError) as error:
        told = Told(trouble=str(error) or repr(error))
    sys.stdout.buffer.write(msgspec.json.encode(told))


if __name__ == "__main__":
    _main()
