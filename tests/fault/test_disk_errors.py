"""A disk that fails to sync, and one that may only be read: no word is given that is not kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from mlc_broker.model.errors import StoreError
from mlc_broker.model.principal import EVERYTHING
from mlc_broker.runtime.clock import SystemClock
from mlc_broker.store.store import Limits, Store
from tests.fakes_store import TYPES, SetClock, event, ids, outcomes, read, running

ROOT = Path(__file__).parents[2]


def test_while_syncing_fails_nothing_is_acknowledged_and_then_it_recovers(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("the shim that makes fsync fail takes a C compiler")
    shim, fault, data = tmp_path / "iofault.so", tmp_path / "fault", tmp_path / "data"
    source = Path(__file__).with_name("iofault.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    command = [sys.executable, "-m", "tests.fault.disk_school", str(data), "9"]
    environ = os.environ | {"LD_PRELOAD": str(shim), "IOFAULT": str(fault)}
    spans = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        lines = [next(child.stdout) for _ in range(20)]
        for _ in range(2):
            fault.touch()
            broken = time.time()
            time.sleep(1.2)
            mended = time.time()
            fault.unlink()
            spans.append((broken, mended))
            time.sleep(2)
        lines += child.stdout.readlines()
    assert child.returncode == 0
    told = [(o, i, int(n), float(at)) for o, i, n, at in map(str.split, lines)]
    stored = [at for outcome, _, _, at in told if outcome == "stored"]
    for broken, mended in spans:
        # An event under way when the fault begins may have been synced before it.
        assert not [at for at in stored if broken + 0.2 < at < mended]
        assert min(at for at in stored if at > mended) - mended < 2
    acked = sorted(i for outcome, i, _, _ in told if outcome == "stored")

    async def look() -> None:
        async with running(data) as store:
            assert ids(read(store)) == acked
            assert store.troubles == []

    trio.run(look)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that can be made read-only."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system takes root")
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def mount(place: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(place)], check=True)


async def test_a_start_on_a_disk_that_may_only_be_read_says_why(disk: Path) -> None:
    async with running(disk / "data") as store:
        await outcomes(store, event(1))
    mount(disk, "ro")
    with pytest.raises(StoreError, match=r"[Rr]ead-only|readonly") as told:
        async with running(disk / "data"):
            pass
    assert "permissions" in told.value.hint
    mount(disk, "rw")
    async with running(disk / "data") as store:
        assert ids(read(store)) == ["evt_00000001"]


async def test_sealed_files_are_read_from_a_disk_that_may_only_be_read(disk: Path) -> None:
    clock = SetClock()
    async with running(disk / "data", clock) as store:
        await outcomes(store, event(1), event(2))
        await store.seal_now()
        await store.release(grace_seconds=0)
        views = store.views(store.select(EVERYTHING))
    mount(disk, "ro")
    assert [view.path.suffix for view in views] == [".db"]
    assert ids(read(store)) == ["evt_00000001", "evt_00000002"]


async def test_an_unwritable_disk_stops_commits_and_not_reading_and_heals(disk: Path) -> None:
    acked = []
    limits = Limits(upkeep_seconds=0.1, hot_bytes_max=1)
    store = await Store.open(
        disk / "data", categories=TYPES.get, limits=limits, clock=SystemClock()
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        nursery.start_soon(store.run_upkeep)
        for number in range(3):
            acked += await outcomes(store, event(number))
        # A disk with open files cannot be remounted: permission is taken from SQLite instead.
        real = store.writer.hot._db
        real.execute("PRAGMA query_only=ON")
        assert await outcomes(store, event(7)) == ["retry"]
        assert store.not_ready()
        assert ids(read(store)) == [f"evt_{n:08d}" for n in range(3)]
        real.execute("PRAGMA query_only=OFF")
        with trio.fail_after(5):
            while store.not_ready():
                await trio.sleep(0.05)
        assert await outcomes(store, event(7)) == ["stored"]
        nursery.cancel_scope.cancel()
    await store.close()
