"""Every event gets exactly one receipt, whatever the processors do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from mlc_broker.model.batch import Outcome
from mlc_broker.model.event import Event
from mlc_broker.model.verdict import Drop, Reject, Verdict
from mlc_broker.pipeline.chain import Pipeline
from mlc_broker.pipeline.processor import Processor, Stage
from mlc_broker.testing import make_event
from tests.unit.pipeline.house import ListQuarantine, ListStore, actor, batch


class Moody(Processor):
    """Does to each event what the event's own property `mood` asks for."""

    name = "moody"
    stage = Stage.EXTEND

    async def process(self, event: Event) -> Verdict:
        match event.properties.get("mood"):
            case "raise":
                raise ZeroDivisionError("moody")
            case "drop":
                return Drop("mood")
            case "reject":
                return Reject("mood", "not today")
            case "nonsense":
                return 42  # type: ignore[return-value]
            case "rename":
                return event.but(event_id="evt_somebody_elses")
            case "change":
                return event.but(properties={"changed": True})
        return event


class Pause(Processor):
    """Waits before every batch."""

    name = "pause"

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        seconds: float = 1.0

    async def process_many(self, events: Sequence[Event]) -> Sequence[Verdict]:
        await trio.sleep(self.settings.seconds)
        return events


class Broken(Processor):
    """Breaks on everything until it was made anew often enough."""

    name = "broken"
    made: ClassVar[int] = 0
    good_from: ClassVar[float] = math.inf

    def __init__(self, settings: Any, tools: Any) -> None:
        super().__init__(settings, tools)
        type(self).made += 1

    async def process(self, event: Event) -> Verdict:
        if type(self).made < self.good_from:
            raise RuntimeError("still broken")
        return event


MOODS = {
    "raise": Outcome.QUARANTINED,
    "nonsense": Outcome.QUARANTINED,
    "rename": Outcome.QUARANTINED,
    "drop": Outcome.DROPPED,
    "reject": Outcome.REJECTED,
    "change": Outcome.STORED,
    "calm": Outcome.STORED,
}


def moody(mood: str) -> Event:
    return make_event(properties={"mood": mood})


@given(moods=st.lists(st.sampled_from(sorted(MOODS)), max_size=12))
def test_every_event_gets_exactly_one_receipt(moods: list[str]) -> None:
    async def main() -> None:
        # a calm event after each one keeps the processor from counting as broken
        events = [event for mood in moods for event in (moody(mood), moody("calm"))]
        store, quarantine = ListStore(), ListQuarantine()
        pipeline = Pipeline([actor(Moody)], keep=store, quarantine=quarantine)
        receipts = await pipeline.submit(batch(*events))
        expected = [outcome for mood in moods for outcome in (MOODS[mood], Outcome.STORED)]
        assert [receipt.outcome for receipt in receipts] == expected
        assert sum(pipeline.receipts.values()) == pipeline.received == len(events)
        kept = {Outcome.REJECTED, Outcome.QUARANTINED}
        assert len(quarantine.kept) == sum(r.outcome in kept for r in receipts)

    trio.run(main)


async def test_one_event_that_breaks_a_processor_costs_the_others_nothing() -> None:
    store, quarantine = ListStore(), ListQuarantine()
    pipeline = Pipeline([actor(Moody)], keep=store, quarantine=quarantine)
    events = [moody("calm") for _ in range(8)] + [moody("raise")]
    receipts = await pipeline.submit(batch(*events))
    assert [r.outcome for r in receipts] == [Outcome.STORED] * 8 + [Outcome.QUARANTINED]
    assert receipts[-1].reason == "moody"
    assert receipts[-1].detail == "ZeroDivisionError: moody"


async def test_what_quarantine_cannot_keep_is_the_senders_again() -> None:
    quarantine = ListQuarantine()
    quarantine.full = True
    pipeline = Pipeline([actor(Moody)], keep=ListStore(), quarantine=quarantine)
    (receipt,) = await pipeline.submit(batch(moody("raise")))
    assert receipt.outcome is Outcome.RETRY


async def test_a_broken_plugin_is_passed_by_and_comes_back(autojump_clock: Any) -> None:
    Broken.made, Broken.good_from = 0, 3
    broken = actor(Broken)
    pipeline = Pipeline([broken], keep=ListStore(), quarantine=ListQuarantine())
    receipts = await pipeline.submit(batch(*[make_event() for _ in range(9)]))
    outcomes = [receipt.outcome for receipt in receipts]
    assert outcomes == [Outcome.QUARANTINED] * 5 + [Outcome.STORED] * 4
    assert broken.health.state == "broken"
    assert broken.health.skipped == 4
    await trio.sleep(40)
    receipts = await pipeline.submit(batch(*[make_event() for _ in range(6)]))
    assert [receipt.outcome for receipt in receipts].count(Outcome.QUARANTINED) == 5
    await trio.sleep(40)
    (receipt,) = await pipeline.submit(batch(make_event()))
    assert receipt.outcome is Outcome.STORED
    health = broken.health
    assert (health.state, health.restarts) == ("ready", 2)


async def test_a_processor_that_holds_keeps_the_batch_until_it_is_back(autojump_clock: Any) -> None:
    Broken.made, Broken.good_from = 0, 2
    pipeline = Pipeline(
        [actor(Broken, on_failure="hold")], keep=ListStore(), quarantine=ListQuarantine()
    )
    receipts = await pipeline.submit(batch(*[make_event() for _ in range(7)]))
    assert [r.outcome for r in receipts] == [Outcome.QUARANTINED] * 5 + [Outcome.STORED] * 2


async def test_a_processor_that_holds_for_ever_answers_retry(autojump_clock: Any) -> None:
    Broken.made, Broken.good_from = 0, math.inf
    held = actor(Broken, on_failure="hold")
    held.health.state = "broken"
    held._open_again_at = math.inf
    pipeline = Pipeline([held], keep=ListStore(), quarantine=ListQuarantine())
    (receipt,) = await pipeline.submit(batch(make_event()))
    assert receipt.outcome is Outcome.RETRY
    assert receipt.reason == "busy"


async def test_a_processor_without_a_verdict_in_time_is_broken(autojump_clock: Any) -> None:
    slow = actor(Pause, Pause.Settings(seconds=9.0), seconds_max=1.0)
    pipeline = Pipeline([slow], keep=ListStore(), quarantine=ListQuarantine())
    (receipt,) = await pipeline.submit(batch(make_event()))
    assert receipt.outcome is Outcome.QUARANTINED
    assert "no verdict within 1 s" in receipt.detail


async def test_one_batch_at_a_time_is_in_a_processors_hands_in_order(autojump_clock: Any) -> None:
    store = ListStore()
    pipeline = Pipeline([actor(Pause)], keep=store, quarantine=ListQuarantine())
    events = [make_event() for _ in range(4)]
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for event in events:
            nursery.start_soon(pipeline.submit, batch(event))
            await trio.testing.wait_all_tasks_blocked()
    assert list(store.events) == [event.event_id for event in events]
    assert trio.current_time() - began == pytest.approx(4.0)


async def test_a_full_hall_says_retry_at_once(autojump_clock: Any) -> None:
    pipeline = Pipeline(
        [actor(Pause)], keep=ListStore(), quarantine=ListQuarantine(), waiting_events_max=1
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipeline.submit, batch(make_event()))
        await trio.testing.wait_all_tasks_blocked()
        (receipt,) = await pipeline.submit(batch(make_event()))
    assert receipt.outcome is Outcome.RETRY


async def test_closing_waits_for_what_is_inside_and_takes_no_more(autojump_clock: Any) -> None:
    store = ListStore()
    pipeline = Pipeline([actor(Pause)], keep=store, quarantine=ListQuarantine())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipeline.submit, batch(make_event()))
        await trio.testing.wait_all_tasks_blocked()
        await pipeline.aclose()
        assert len(store.events) == 1
        (receipt,) = await pipeline.submit(batch(make_event()))
    assert receipt.outcome is Outcome.RETRY
    assert receipt.reason == "stopping"


async def test_new_actors_come_into_force_between_batches(autojump_clock: Any) -> None:
    store = ListStore()
    pipeline = Pipeline([actor(Pause)], keep=store, quarantine=ListQuarantine())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipeline.submit, batch(moody("drop")))
        await trio.testing.wait_all_tasks_blocked()
        await pipeline.swap([actor(Moody)])
        assert len(store.events) == 1  # it went through the old chain, which had no moods
    (receipt,) = await pipeline.submit(batch(moody("drop")))
    assert receipt.outcome is Outcome.DROPPED


async def test_what_was_rejected_at_the_gate_keeps_its_place() -> None:
    pipeline = Pipeline([actor(Moody)], keep=ListStore(), quarantine=ListQuarantine())
    receipts = await pipeline.submit(
        batch(make_event(), Reject("malformed", "no object"), make_event())
    )
    assert [r.outcome.value for r in receipts] == ["stored", "rejected", "stored"]
