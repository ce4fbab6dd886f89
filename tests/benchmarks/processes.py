"""What processes cost, from /proc: CPU time, memory, bytes written; and holding them still."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS_MAX = 60.0


class Cost(Struct, frozen=True):
    """What a tree of processes has used since it began (its living members)."""

    cpu_seconds: float = 0.0
    written_bytes: int = 0

    def since(self, before: Cost) -> Cost:
        return Cost(
            self.cpu_seconds - before.cpu_seconds, self.written_bytes - before.written_bytes
        )


def tree(root: int) -> list[int]:
    """The process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                stat = (entry / "stat").read_text()
                parent = int(stat.rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, to_see = [], [root]
    while to_see:
        pid = to_see.pop()
        found.append(pid)
        to_see += children.get(pid, [])
    return found


def cost(root: int) -> Cost:
    cpu = written = 0.0
    for pid in tree(root):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            cpu += (int(fields[11]) + int(fields[12])) / TICKS
            for line in Path(f"/proc/{pid}/io").read_text().splitlines():
                if line.startswith("write_bytes:"):
                    written += int(line.split()[1])
    return Cost(cpu, int(written))


def memory_bytes(root: int) -> int:
    """Proportional set size: shared pages count once."""
    total = 0
    for pid in tree(root):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def disk_bytes(directory: Path) -> int:
    """Bytes that a directory takes on the disk."""
    total = 0
    for file in directory.rglob("*"):
        with suppress(OSError):
            total += file.stat().st_blocks * 512 if file.is_file() else 0
    return total


@contextmanager
def held_still(roots: list[int]) -> Iterator[None]:
    """Stop the others while one is measured: no background work of theirs is in its figures."""
    pids = [pid for root in roots for pid in tree(root)]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until something listens; a process that ended before is an error with its last words."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode}: {log.read_text()[-800:]}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens after {START_SECONDS_MAX:.0f} s: {log.read_text()[-800:]}")


def end(process: subprocess.Popen[bytes] | None, sign: signal.Signals = signal.SIGTERM) -> None:
    """End a process that we started, and wait for it."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(sign)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
