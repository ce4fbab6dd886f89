"""Many guests at once: ten thousand idle ones, and more than there are files to open."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Self

import pytest

from tests.fault.doors import HANDSHAKE, frame

SERVER = """
import resource, sys
from functools import partial
import trio
from mlc_broker.edge.sockets import listen, raise_open_files_limit
from mlc_broker.edge.websocket import serve_websocket
files = int(sys.argv[1])
if files:
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
raise_open_files_limit()
async def echo(connection):
    while True:
        await connection.send(await connection.receive())
async def main():
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, echo, await listen("127.0.0.1:0"), stopping=trio.Event())
        print((await nursery.start(serve))[0], flush=True)
trio.run(main)
"""


class Server:
    """A WebSocket door in a process of its own, so that its memory and files are its own."""

    def __init__(self, files: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SERVER), str(files)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rpartition(":")[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def mebibytes(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def join(self, *, seconds: float = 5.0) -> socket.socket:
        guest = socket.create_connection(("127.0.0.1", self.port), timeout=seconds)
        guest.sendall(HANDSHAKE)
        return guest


def is_welcome(guest: socket.socket) -> bool:
    return guest.recv(4096).startswith(b"HTTP/1.1 101")


def test_a_door_without_files_left_neither_ends_nor_spins_and_recovers() -> None:
    with Server(files=40) as server:
        guests = [server.join() for _ in range(60)]
        time.sleep(0.3)
        spent = server.cpu_seconds()
        time.sleep(1.0)
        assert server.cpu_seconds() - spent < 0.2, "it spins"
        assert server.process.poll() is None
        for guest in guests:
            guest.close()
        began = time.monotonic()
        with server.join() as late:
            assert is_welcome(late)
        assert time.monotonic() - began < 2
    assert server.process.returncode == -9, "it was alive until killed"


@pytest.mark.long
def test_ten_thousand_idle_guests_fit_into_400_mebibytes_and_all_are_served() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < 12_000:
        pytest.skip(f"the machine gives {hard} open files to a process")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Server() as server:
        before, guests = server.mebibytes(), []
        for _ in range(10_000):
            guests.append(server.join(seconds=20))
            assert is_welcome(guests[-1])
        held = server.mebibytes()
        waits = []
        for guest in guests[::50]:
            began = time.perf_counter()
            guest.sendall(frame(1, b"still there?"))
            assert guest.recv(100).endswith(b"still there?")
            waits.append(time.perf_counter() - began)
        for guest in guests:
            guest.close()
    p99 = sorted(waits)[int(len(waits) * 0.99)]
    print(f"10,000 guests: {before:.0f} -> {held:.0f} MiB, echo p99 {p99 * 1000:.1f} ms")
    assert held < 400
    assert p99 < 0.020
