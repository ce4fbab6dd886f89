"""A flipped bit anywhere in a file is found or harmless, never served as good."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest
import trio

from mlc_broker.model.errors import BrokerError
from mlc_broker.store.schema import READ_ERRORS
from tests.fakes_store import outcomes, read, running
from tests.fault.store_school import sent

FLIPS = 60


@pytest.mark.parametrize("sealed", [False, True])
def test_no_flipped_bit_is_served_as_good(tmp_path: Path, sealed: bool) -> None:
    good = tmp_path / "good"
    truth: dict[str, object] = {}

    async def fill() -> None:
        async with running(good) as store:
            for number in range(4):
                await outcomes(store, *sent(number))
            if sealed:
                await store.seal_now()
                await store.release(grace_seconds=0)
            truth.update({line["event_id"]: line for line in read(store)})

    trio.run(fill)
    pattern = "shards/*/*/*.db" if sealed else "hot/*.db"
    found = sum(flip_and_read(tmp_path / f"{n}", good, pattern, truth, n) for n in range(FLIPS))
    assert found > FLIPS // 4


def flip_and_read(
    path: Path, good: Path, pattern: str, truth: dict[str, object], seed: int
) -> bool:
    """Spoil a copy; return whether it was noticed. What is read must be true all the same."""
    chance = Random(seed)
    shutil.copytree(good, path)
    file = chance.choice(sorted(path.glob(pattern)))
    raw = bytearray(file.read_bytes())
    used = [at for at, byte in enumerate(raw) if byte]  # most of a small file is empty pages
    raw[chance.choice(used)] ^= 1 << chance.randrange(8)
    file.write_bytes(raw)
    lines: list[dict[str, object]] = []

    async def look() -> bool:
        async with running(path) as store:
            noticed = bool(store.files.troubles) or bool((await store.verify()).damaged)
            lines.extend(read(store))
            return noticed

    try:
        noticed = trio.run(look)
    except* (BrokerError, *READ_ERRORS):
        noticed = True
    assert all(truth[str(line["event_id"])] == line for line in lines), f"seed {seed}"
    shutil.rmtree(path)
    return noticed or len(lines) < len(truth)
