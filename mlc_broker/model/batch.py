"""Events answered together: one owner at a time, every event settled exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from mlc_broker.model.event import Event
from mlc_broker.model.principal import Principal
from mlc_broker.model.verdict import Drop, Reject, Verdict


class Outcome(StrEnum):
    """What became of an event."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    DROPPED = "dropped"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"
    RETRY = "retry"


class Receipt(Struct, frozen=True, omit_defaults=True):
    """The broker's last word on one event. Only `retry` asks for it again."""

    outcome: Outcome
    reason: str = ""
    detail: str = ""


Tally: TypeAlias = dict[tuple[Outcome, str], int]
"""How many receipts there are of each outcome and reason."""

STORED = Receipt(Outcome.STORED)
_STORED = (Outcome.STORED, "")
DUPLICATE = Receipt(Outcome.DUPLICATE)


class Origin(Struct, frozen=True, kw_only=True):
    """Where a batch came from."""

    principal: Principal
    received_at: datetime
    sent_at: datetime | None = None
    transport: str = "websocket"  # websocket, http, beacon, replay, derived, internal


class Batch:
    """The events of one submission on their way to their receipts.

    `events[i]` is the event as the last processor left it; `pending` lists the positions that
    have no receipt yet, in order. A submission's own failures arrive as `Reject` and are settled
    from the start.
    """

    __slots__ = ("_left", "event_ids", "events", "origin", "originals", "receipts")

    def __init__(
        self,
        origin: Origin,
        events: Sequence[Event | Reject],
        event_ids: Sequence[str | None] | None = None,
    ) -> None:
        self.origin = origin
        self.receipts: list[Receipt | None] = [None] * len(events)
        self.events: list[Event | None] = [None] * len(events)
        self.event_ids: Sequence[str | None] = event_ids or [
            e.event_id if isinstance(e, Event) else None for e in events
        ]
        self.originals: dict[int, bytes] = {}  # what was rejected at the gate, as it came
        self._left = len(events)
        for position, event in enumerate(events):
            if isinstance(event, Event):
                self.events[position] = event
            else:
                self.apply(position, event)

    def __len__(self) -> int:
        return len(self.receipts)

    @property
    def pending(self) -> list[int]:
        """The positions without a receipt, in order."""
        if self._left == len(self.receipts):
            return list(range(self._left))
        return [i for i, receipt in enumerate(self.receipts) if receipt is None]

    def apply(self, position: int, verdict: Verdict) -> None:
        """Take a processor's word on the event at `position`."""
        if isinstance(verdict, Event):
            self.events[position] = verdict
        elif isinstance(verdict, Drop):
            self.settle(position, Receipt(Outcome.DROPPED, verdict.reason))
        else:
            self.settle(position, Receipt(Outcome.REJECTED, verdict.reason, verdict.detail))

    def settle(self, position: int, receipt: Receipt) -> None:
        """Give the event at `position` its receipt, once."""
        assert self.receipts[position] is None, f"event {position} was settled before"
        self.receipts[position] = receipt
        self._left -= 1

    def settle_all(self, receipt: Receipt, positions: Iterable[int] | None = None) -> None:
        """Give the same receipt to these positions, or to all that are pending."""
        for position in self.pending if positions is None else positions:
            self.settle(position, receipt)

    def answer(self) -> list[Receipt]:
        """Return the receipts, one an event, in order. Law 1: nothing is left over."""
        receipts = [receipt for receipt in self.receipts if receipt is not None]
        assert len(receipts) == len(self.receipts), f"{self._left} events have no receipt"
        return receipts


def all_stored(receipts: Sequence[Receipt]) -> bool:
    """Tell whether all of these say `stored`, as nearly always, and nothing else."""
    return receipts.count(STORED) == len(receipts)


def tally(receipts: Sequence[Receipt]) -> Tally:
    """Count receipts by outcome and reason: most are the very same, so each is looked at once."""
    if all_stored(receipts):
        return {_STORED: len(receipts)} if receipts else {}
    counts = Counter[tuple[Outcome, str]]()
    one_of = {id(receipt): receipt for receipt in receipts}
    for key, events in Counter(map(id, receipts)).items():
        receipt = one_of[key]
        counts[receipt.outcome, receipt.reason] += events
    return counts
