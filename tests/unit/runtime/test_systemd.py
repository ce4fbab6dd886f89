"""What is told to systemd, and read from it."""

from __future__ import annotations

import socket
from pathlib import Path

import trio

from mlc_broker.runtime.systemd import Notifier, feed_watchdog, handed_sockets, watchdog_seconds


def test_without_systemd_nothing_happens() -> None:
    Notifier({}).ready()
    assert watchdog_seconds({}) is None
    assert handed_sockets({}) == {}


def test_systemd_hears_each_word_as_one_datagram(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        notifier.ready()
        notifier.status("two\nlines")
        notifier.stopping()
        said = [ear.recv(300).decode() for _ in range(3)]
    assert said == ["READY=1", "STATUS=two lines", "STOPPING=1"]


def test_a_missing_socket_of_systemd_costs_nothing(tmp_path: Path) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


def test_the_watchdog_is_ours_only_when_it_names_us() -> None:
    assert watchdog_seconds({"WATCHDOG_USEC": "30000000"}) == 30
    assert watchdog_seconds({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, pid=7) == 30
    assert watchdog_seconds({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, pid=8) is None
    assert watchdog_seconds({"WATCHDOG_USEC": "soon"}) is None


async def test_the_watchdog_starves_when_the_probe_fails_or_hangs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    fed: list[float] = []

    class Ear(Notifier):
        def alive(self) -> None:
            fed.append(trio.current_time())

    async def probe() -> bool:
        if trio.current_time() > 35:
            await trio.sleep_forever()
        return trio.current_time() < 25

    begin = trio.current_time()
    with trio.move_on_after(100):
        await feed_watchdog(Ear({}), 10, probe)
    assert [round(at - begin) for at in fed] == [0, 10, 20]


def test_sockets_meant_for_another_process_are_left_alone() -> None:
    assert handed_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, pid=2) == {}
