"""Small batches that travel together: a walk costs nearly the same for one event as for a hundred."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import trio

from mlc_broker.model.batch import Batch, Origin, Receipt
from mlc_broker.model.event import Event

SMALL_EVENTS_MAX = 20  # a larger batch is worth a walk of its own
EVENTS_MAX = 500  # of all batches together
DOORS = frozenset({"websocket", "http", "beacon"})  # what the broker itself sends walks alone


class Convoy:
    """Batches that came at the same moment, as one batch; each gets its own receipts back."""

    def __init__(self) -> None:
        self.arrived = trio.Event()
        self.events = 0
        self._members: list[Batch] = []
        self._told: list[Callable[[], None] | None] = []  # who does not wait for `arrived`
        self._places: list[range] = []  # in the common batch, of each member's pending events

    def board(self, batch: Batch, told: Callable[[], None] | None = None) -> None:
        """Take a batch along; `told` is called when it has its receipts."""
        self._members.append(batch)
        self._told.append(told)
        self.events += len(batch)

    def depart(self) -> Batch:
        """Return the common batch: the pending events of all, in order."""
        origins = [member.origin for member in self._members]
        events: list[Event] = []
        for member in self._members:
            begin = len(events)
            events += [event for at in member.pending if (event := member.events[at]) is not None]
            self._places.append(range(begin, len(events)))
        origin = Origin(
            principal=origins[0].principal,  # each event knows its organization by now
            received_at=max(origin.received_at for origin in origins),
            transport=origins[0].transport,
        )
        return Batch(origin, events)

    def parts(self) -> Iterator[tuple[Batch, range]]:
        """Yield each member, and where its events stand in the common batch."""
        return zip(self._members, self._places, strict=True)

    def arrive(self, common: Batch, otherwise: Receipt) -> None:
        """Give each member its receipts; what has none in the common batch gets `otherwise`."""
        for member, places in self.parts():
            for at, place in zip(member.pending, places, strict=True):
                member.events[at] = common.events[place]
                member.settle(at, common.receipts[place] or otherwise)
        self.arrived.set()
        with ExitStack() as everybody:  # where one raises, the others are told all the same
            for told in reversed(self._told):
                if told is not None:
                    everybody.callback(told)
