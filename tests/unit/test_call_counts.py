"""How much Python runs for an event: counted, not timed, so that a busy machine changes nothing.

A limit stands some per cent over what was counted when it was set. Whoever gets well below it lowers
it; whoever goes over it has put work on the hot path, and says in review what it is worth.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Self

from mlc_broker.broker import Broker
from mlc_broker.cli.bench_pages import pages
from mlc_broker.store.hot import Committed
from tests.benchmarks.house import EVENTS, Texts, indoors, publish

PACKAGE = f"{Path(__file__).resolve().parents[2] / 'mlc_broker'}/"
MESSAGES = 20
CALLS_AN_EVENT_MAX = 17.5  # 14.6 to 15.7 when it was set, in commits of a hundred of one student
CALLS_A_SMALL_MESSAGE_MAX = 265.0  # 229 to 245: what runs in the background counts too
PACK_BYTES_AN_EVENT_MAX = 86.0  # 82 in commits of a hundred; larger ones are smaller


class Calls:
    """Counts the calls of our functions in this thread, by room, while it is entered."""

    def __init__(self) -> None:
        self.rooms: Counter[str] = Counter()
        self._known: dict[str, str] = {}

    def __enter__(self) -> Self:
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            name = frame.f_code.co_filename
            room = self._known.get(name)
            if room is None:
                inside = name.removeprefix(PACKAGE) if name.startswith(PACKAGE) else ""
                room = self._known[name] = inside.partition("/")[0]
            if room:
                self.rooms[room] += 1


def _heard(packs: list[Committed], told: Callable[[Committed], None], committed: Committed) -> None:
    packs.append(committed)
    told(committed)


def _bytes(committed: Committed) -> int:
    return sum(len(part) for part in committed.pack.to_row() if isinstance(part, bytes))


async def publish_all(broker: Broker, texts: Sequence[str]) -> Calls:
    """One after the other, so that every message is one commit; what they cost together."""
    calls = Calls()
    with calls:
        for text in texts:
            assert await publish(broker, text)
    return calls


async def test_the_hot_path_calls_no_more_functions_than_it_did(tmp_path: Path) -> None:
    packs: list[Committed] = []
    page = pages("plain", 1, 1)[0]
    page.renew()
    before = [page.message(n).decode() for n in range(MESSAGES)]
    page.renew()
    small = [page.message(n).decode() for n in range(MESSAGES)]  # the same senders as before
    async with indoors(tmp_path) as broker:
        told, texts = broker.store.on_commit, Texts()
        await publish_all(broker, texts.block(3) + before)  # what is done once is done now

        broker.store.on_commit = partial(_heard, packs, told)
        many = await publish_all(broker, texts.block(MESSAGES))
        broker.store.on_commit = told
        few = await publish_all(broker, small)

    an_event = many.rooms.total() / (MESSAGES * EVENTS)
    a_message = few.rooms.total() / len(small)
    stored = sum(committed.pack.n for committed in packs)
    size = sum(_bytes(committed) for committed in packs) / stored
    print(f"{an_event:.2f} calls an event, {a_message:.0f} a small message, {size:.1f} bytes")
    print({room: round(n / (MESSAGES * EVENTS), 2) for room, n in many.rooms.most_common()})
    assert stored == MESSAGES * EVENTS
    assert an_event <= CALLS_AN_EVENT_MAX, many.rooms
    assert a_message <= CALLS_A_SMALL_MESSAGE_MAX, few.rooms
    assert size <= PACK_BYTES_AN_EVENT_MAX
