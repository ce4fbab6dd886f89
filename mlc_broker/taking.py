"""The roof over taking events: from any door to the pipeline, counted on the way in and out."""

from __future__ import annotations

from collections.abc import Callable

import trio

from mlc_broker.counting import Counting
from mlc_broker.model.batch import Batch, Receipt, tally
from mlc_broker.pipeline.chain import Pipeline
from mlc_broker.runtime.telemetry import Telemetry
from mlc_broker.store.receipts import ReceiptBook


class Taking:
    """What every door asks for receipts. `pipeline` is set before a door opens."""

    pipeline: Pipeline

    def __init__(self, telemetry: Telemetry, receipts: ReceiptBook, counting: Counting) -> None:
        self._telemetry, self._receipts, self._counting = telemetry, receipts, counting

    async def submit(self, batch: Batch) -> list[Receipt]:
        """Take a batch from any door to its receipts; count it."""
        began = trio.current_time()
        self._telemetry.received(len(batch), door=batch.origin.transport)
        receipts = await self.pipeline.submit(batch)
        self._settle(batch, receipts)
        self._telemetry.ack_seconds.observe(trio.current_time() - began)
        return receipts

    def board(self, batch: Batch, told: Callable[[list[Receipt]], None]) -> bool:
        """Do the same without a task, where the batch can travel with others; False: submit it.

        `told` gets the receipts; it must not wait, and not raise.
        """
        began = trio.current_time()

        def arrived(receipts: list[Receipt]) -> None:
            try:
                self._settle(batch, receipts)
                self._telemetry.ack_seconds.observe(trio.current_time() - began)
            finally:
                told(receipts)

        if not self.pipeline.board(batch, arrived):
            return False
        self._telemetry.received(len(batch), door=batch.origin.transport)
        return True

    def count(self, batch: Batch, receipts: list[Receipt]) -> None:
        """Count a batch that came through no door."""
        self._telemetry.received(len(batch), door=batch.origin.transport)
        self._settle(batch, receipts)

    def _settle(self, batch: Batch, receipts: list[Receipt]) -> None:
        counts = tally(receipts)
        for (outcome, reason), events in counts.items():
            self._telemetry.settled(outcome.value, events, reason=reason)
        self._receipts.note(batch, receipts)
        self._counting.settled(batch.origin.principal.organization_id, counts)
