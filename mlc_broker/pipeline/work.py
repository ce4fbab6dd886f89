"""What travels through the actors: the events of one batch that have no receipt yet."""

from __future__ import annotations

from collections.abc import Sequence

from mlc_broker.model.batch import Batch, Receipt
from mlc_broker.model.event import Event
from mlc_broker.model.verdict import Reject, Verdict
from mlc_broker.pipeline.derive import Emitted

_ONLY_EVENTS = frozenset({Event})


class Work:
    """The live positions of a batch on its walk through the chain."""

    __slots__ = ("batch", "emitted", "live", "quarantined", "rejected")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.live = batch.pending
        self.rejected: list[tuple[int, Event, Receipt]] = []
        self.quarantined: list[tuple[int, Event, Receipt]] = []  # settled once they are kept
        self.emitted: list[Emitted] = []  # walk behind this batch

    def events(self) -> list[Event]:
        """Return the live events, in order."""
        events = self.batch.events
        if len(self.live) == len(events):
            return events.copy()  # type: ignore[return-value]
        return [events[position] for position in self.live]  # type: ignore[misc]

    def apply(self, verdicts: Sequence[Verdict]) -> None:
        """Take one verdict a live event."""
        events, settled = self.batch.events, False
        if len(self.live) == len(events) and _ONLY_EVENTS.issuperset(map(type, verdicts)):
            events[:] = verdicts  # type: ignore[assignment]
            return
        for position, verdict in zip(self.live, verdicts, strict=True):
            if type(verdict) is Event:
                events[position] = verdict
            else:
                self._settle(position, verdict)
                settled = True
        if settled:
            self.tidy()

    def apply_one(self, number: int, verdict: Verdict) -> None:
        """Take the verdict on the live event of that number; `tidy` afterwards."""
        position = self.live[number]
        if isinstance(verdict, Event):
            self.batch.events[position] = verdict
        else:
            self._settle(position, verdict)

    def quarantine(self, number: int, receipt: Receipt) -> None:
        """Take the live event of that number out of the walk; `tidy` afterwards."""
        position = self.live[number]
        event = self.batch.events[position]
        assert event is not None
        self.quarantined.append((position, event, receipt))

    def send_back(self, number: int, receipt: Receipt) -> None:
        """Answer the live event of that number with `retry`; `tidy` afterwards."""
        self.batch.settle(self.live[number], receipt)

    def tidy(self) -> None:
        """Forget the positions that are settled, or are waiting for quarantine."""
        receipts, aside = self.batch.receipts, {position for position, _, _ in self.quarantined}
        self.live = [at for at in self.live if receipts[at] is None and at not in aside]

    def _settle(self, position: int, verdict: Verdict) -> None:
        event = self.batch.events[position]
        self.batch.apply(position, verdict)
        receipt = self.batch.receipts[position]
        if isinstance(verdict, Reject) and event is not None and receipt is not None:
            self.rejected.append((position, event, receipt))
