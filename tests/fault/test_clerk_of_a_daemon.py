"""A real daemon under load has its metrics counted in a second process; neither's death miscounts."""

from __future__ import annotations

import json
from pathlib import Path

import trio

from tests.daemon import Daemon, wait_until
from tests.load import Load

SETTINGS = {"storage": {"counting_process_events_per_second": 20}}


def clerks_of(pid: int) -> list[int]:
    """Return the processes that count for this daemon."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text("utf-8").rpartition(")")[2].split()[1])
            command = stat.with_name("cmdline").read_bytes()
        except (OSError, ProcessLookupError):
            continue  # it has just ended
        if parent == pid and b"rollups_clerk" in command:
            found.append(int(stat.parent.name))
    return found


def differences(daemon: Daemon) -> list[str]:
    told = json.loads(daemon.command("verify", "--metrics", "--json").stdout)["metrics"]
    assert told["events"]
    found: list[str] = told["faults"]
    return found


async def load_until_a_clerk_counts(daemon: Daemon, run: str) -> int:
    """Publish until a clerk is there, and some more; return its process id."""
    load = Load(daemon, run=run)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run)
        with trio.fail_after(30):
            while not clerks_of(daemon.pid):
                await trio.sleep(0.05)
            seen = load.acks
            while load.acks < seen + 50:
                await trio.sleep(0.05)
        load.stop.set()
    assert not any((await load.compare()).values())
    return clerks_of(daemon.pid)[0]


def test_a_daemon_may_stop_or_be_killed_while_a_clerk_counts(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, settings=SETTINGS).start()
    try:
        clerk = trio.run(load_until_a_clerk_counts, daemon, "first")
        assert daemon.stop() == 0
        assert not Path(f"/proc/{clerk}").exists()
        daemon.start()
        clerk = trio.run(load_until_a_clerk_counts, daemon, "second")
        daemon.kill()
        wait_until(lambda: not Path(f"/proc/{clerk}").exists())  # nothing is left behind
        daemon.start()
        assert differences(daemon) == []
    finally:
        daemon.stop()
