"""A short life of a store, for tests that end it by force: `python -m … DIR`.

Sends the same events at every run, seals and merges between, and prints each id when the store has
answered for it.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import trio

import mlc_broker.store.sealer as sealing
from mlc_broker.model.event import Event, Facts
from tests.fakes_store import LESSON, SetClock, batch, event, inline, running

BATCHES, EVENTS = 8, 40


def sent(number: int) -> list[Event]:
    """Return the events of batch `number`: two months, two retention classes, five people."""
    first = number * EVENTS
    return [
        event(
            n,
            user_id=f"user{n % 5}",
            timestamp=LESSON - (n % 2) * timedelta(days=30) + timedelta(seconds=n),
            facts=Facts(
                received_at=LESSON,
                class_ids=(f"c{n % 3}",),
                retention="pii" if n % 4 == 0 else "standard",
                retention_days=300,
            ),
        )
        for n in range(first, first + EVENTS)
    ]


async def live(directory: Path) -> None:
    """Send everything; seal in small steps; merge both months; tell what was answered."""
    sealing.STEP_EVENTS = EVENTS
    clock = SetClock()
    async with running(directory, clock, inline) as store:
        for number in range(BATCHES):
            one = batch(*sent(number))
            await store.append(one)
            for e, receipt in zip(sent(number), one.answer(), strict=True):
                sys.stdout.write(f"{receipt.outcome} {e.event_id}\n")
            sys.stdout.flush()
            if number % 3 == 2:
                await store.seal_now()
                await store.release(grace_seconds=0)
        clock.move(days=15)
        await store.merge()
        await store.release(grace_seconds=0)


if __name__ == "__main__":
    trio.run(live, Path(sys.argv[1]))
