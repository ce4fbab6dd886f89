"""A store that is written to and read all the time: `python -m … DIR SECONDS [LIMIT=NUMBER …]`.

Prints a line an event: its outcome, its id, how many events a reader found, seconds since 1970.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from uuid import uuid4

import trio

from mlc_broker.runtime.clock import SystemClock
from mlc_broker.store.store import Limits, Store
from tests.fakes_store import TYPES, batch, event, read


async def live(directory: Path, seconds: float, limits: dict[str, int]) -> None:
    """Send one event after the other; look after each what is there."""
    store = await Store.open(
        directory, categories=TYPES.get, limits=Limits(**limits), clock=SystemClock()
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            now = SystemClock().now()
            one = batch(event(event_id=uuid4().hex, timestamp=now), received_at=now)
            await store.append(one)
            found = len(await trio.to_thread.run_sync(read, store))
            outcome = one.answer()[0].outcome
            sys.stdout.write(f"{outcome} {one.event_ids[0]} {found} {time.time()}\n")
            sys.stdout.flush()
            await trio.sleep(0.01)
        store.stop()
    await store.close()


if __name__ == "__main__":
    given = dict(part.split("=") for part in sys.argv[3:])
    trio.run(
        live, Path(sys.argv[1]), float(sys.argv[2]), {name: int(n) for name, n in given.items()}
    )
