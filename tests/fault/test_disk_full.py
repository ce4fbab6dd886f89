"""A real small disk that fills up: nothing acknowledged is lost, reading goes on, it heals."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from mlc_broker.model.errors import StoreError
from mlc_broker.runtime.clock import SystemClock
from mlc_broker.store.disk import BALLAST
from mlc_broker.store.store import Limits, Store
from tests.fakes_store import TYPES, event, ids, outcomes, read

ROOT = Path(__file__).parents[2]
KIB = 1024
LIMITS = Limits(free_bytes_min=512 * KIB, ballast_bytes=512 * KIB, upkeep_seconds=0.2)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs takes root")
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all that is left."""
    filler = place / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (64 * KIB, 4 * KIB):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return filler


async def open_store(place: Path, limits: Limits = LIMITS) -> Store:
    return await Store.open(
        place / "data", categories=TYPES.get, limits=limits, clock=SystemClock()
    )


async def healed_seconds(store: Store, number: int) -> float:
    """Try until an event is stored; return how long that took."""
    began = time.monotonic()
    while await outcomes(store, event(number)) != ["stored"]:
        assert time.monotonic() - began < 15
        await trio.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.parametrize("reserve", [True, False])
async def test_a_disk_that_fills_up_under_load_loses_nothing_and_heals(
    disk: Path, reserve: bool
) -> None:
    limits = LIMITS if reserve else Limits(upkeep_seconds=0.2)
    store, acked = await open_store(disk, limits), []
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        nursery.start_soon(store.run_upkeep)
        filler, answers = disk / "filler", []
        for number in range(600):
            answers = await outcomes(
                store, event(number, properties={"text": os.urandom(2000).hex()})
            )
            if answers == ["stored"]:
                acked.append(f"evt_{number:08d}")
            if number == 300:
                fill(disk)
        assert answers == ["retry"]
        assert ids(await trio.to_thread.run_sync(read, store)) == acked
        assert "disk" in store.not_ready()[0]
        filler.unlink()
        assert await healed_seconds(store, 9999) < 5
        assert store.not_ready() == []
        nursery.cancel_scope.cancel()
    await store.close()
    store = await open_store(disk, limits)
    assert ids(read(store)) == [*acked, "evt_00009999"]
    await store.close()


async def test_a_restart_on_a_full_disk_gives_the_ballast_up_and_serves(disk: Path) -> None:
    limits = ["free_bytes_min=524288", "ballast_bytes=524288"]
    command = [sys.executable, "-m", "tests.fault.disk_school", str(disk / "data"), "60", *limits]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"MLC_CRASH_AT": "append.after_ack:40"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    acked = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("stored")}
    assert len(acked) >= 30
    assert (disk / "data" / BALLAST).stat().st_size == LIMITS.ballast_bytes
    filler = fill(disk)
    began = time.monotonic()
    store = await open_store(disk)
    assert time.monotonic() - began < 5
    assert not (disk / "data" / BALLAST).exists()
    assert acked <= set(ids(read(store)))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        assert await outcomes(store, event(1)) == ["retry"]
        assert "free_bytes_min" in store.not_ready()[0]
        assert (await store.verify()).damaged == []
        filler.unlink()
        assert await healed_seconds(store, 1) < 5
        assert (disk / "data" / BALLAST).stat().st_size == LIMITS.ballast_bytes
        nursery.cancel_scope.cancel()
    await store.close()


async def test_without_ballast_a_full_disk_is_told_in_words(disk: Path) -> None:
    fill(disk)
    with pytest.raises(StoreError) as told:
        await open_store(disk)
    assert told.value.hint
