"""Derived events: behind their source, once, and never in a circle."""

from __future__ import annotations

from typing import Any

from mlc_broker.model.batch import Batch, Outcome, Receipt
from mlc_broker.model.event import Event
from mlc_broker.model.verdict import Drop, Verdict
from mlc_broker.pipeline import derive
from mlc_broker.pipeline.chain import Pipeline
from mlc_broker.pipeline.processor import Processor
from mlc_broker.testing import make_event, make_tools
from tests.unit.pipeline.house import ListQuarantine, ListStore, actor, batch


class Echo(Processor):
    """Emits as many as `echoes` says."""

    name = "echo"

    async def process(self, event: Event) -> Verdict:
        for number in range(event.properties.get("echoes", 1)):
            made = event.but(event_type="page_view", properties={"number": number, "echoes": 1})
            self.tools.emit(event if event.properties.get("foreign") else made)
        if event.properties.get("foreign"):
            self.tools.emit(make_event())
        return Drop("echoed") if event.properties.get("drop") else event


class FullStore(ListStore):
    """Takes sources and no derived events."""

    async def append(self, batch: Batch) -> None:
        if batch.origin.transport == derive.DERIVED:
            batch.settle_all(Receipt(Outcome.RETRY, "disk_full"))
        await super().append(batch)


def hall(store: ListStore | None = None, **options: Any) -> tuple[Pipeline, ListStore]:
    kept = store or ListStore()
    echo = actor(Echo, tools=make_tools())
    return Pipeline([echo], keep=kept, quarantine=ListQuarantine(), **options), kept


def said(**properties: Any) -> Event:
    return make_event(properties=properties)


async def test_a_derived_event_is_stored_when_its_source_has_its_receipt() -> None:
    counted: list[int] = []
    pipeline, store = hall(on_derived=lambda batch, receipts: counted.append(len(receipts)))
    source = said()
    (receipt,) = await pipeline.submit(batch(source))
    assert receipt.outcome is Outcome.STORED
    made = [event for event in store.events.values() if event.facts.derived_from]
    assert [event.facts.derived_from for event in made] == [source.event_id]
    assert made[0].event_id.startswith("drv_")
    assert (made[0].user_id, made[0].timestamp) == (source.user_id, source.timestamp)
    assert counted == [1]
    assert pipeline.received == sum(pipeline.receipts.values()) == 2


async def test_a_resend_makes_the_same_ones_again_which_are_duplicates() -> None:
    pipeline, store = hall()
    source = said(echoes=3)
    await pipeline.submit(batch(source))
    receipts = await pipeline.submit(batch(source, source))
    assert [receipt.outcome for receipt in receipts] == [Outcome.DUPLICATE] * 2
    assert len(store.events) == 4


async def test_what_is_not_stored_earns_nothing() -> None:
    pipeline, store = hall()
    await pipeline.submit(batch(said(drop=True)))
    assert store.events == {}


async def test_a_source_whose_derived_event_cannot_be_stored_is_asked_for_again() -> None:
    pipeline, store = hall(FullStore())
    receipts = await pipeline.submit(batch(said(echoes=0), said()))
    assert [receipt.outcome for receipt in receipts] == [Outcome.STORED, Outcome.RETRY]
    assert len(store.events) == 2


async def test_too_many_or_somebody_elses_break_the_plugin_not_the_house() -> None:
    pipeline, store = hall()
    receipts = await pipeline.submit(
        batch(said(), said(echoes=derive.EMITTED_PER_EVENT_MAX + 1), said(foreign=True))
    )
    assert [r.outcome.value for r in receipts] == ["stored", "quarantined", "quarantined"]
    assert "more than 16" in receipts[1].detail
    assert "did not make by event.but" in receipts[2].detail
    assert len(store.events) == 2
