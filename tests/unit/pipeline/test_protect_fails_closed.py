"""A protect that breaks or is slow lets nothing through: not to the store, not to the quarantine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing

from mlc_broker.model.batch import Outcome, Receipt
from mlc_broker.model.event import Event
from mlc_broker.model.verdict import Verdict
from mlc_broker.pipeline.actor import FAILURES_IN_A_ROW_MAX
from mlc_broker.pipeline.builtin.protect import Protect
from mlc_broker.testing import make_event
from tests.unit.pipeline.house import batch
from tests.unit.pipeline.test_builtin import chain

Process = Callable[..., Awaitable[Any]]
WHOLE: Process = Protect.process_many


async def broken(*_: Any) -> Any:
    raise RuntimeError("broken")


async def loses_events(*_: Any) -> Any:
    return []


async def never_ends(*_: Any) -> Any:
    await trio.sleep_forever()


async def breaks_on_two(self: Protect, events: Sequence[Event]) -> Sequence[Verdict]:
    if any(event.event_id == "evt_2" for event in events):
        raise RuntimeError("broken")
    verdicts: Sequence[Verdict] = await WHOLE(self, events)
    return verdicts


async def send(*events: Event) -> tuple[list[Receipt], dict[str, Event], list[Any]]:
    pipeline, store = chain()
    receipts = await pipeline.submit(batch(*events))
    return receipts, store.events, pipeline._quarantine.kept  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", [broken, loses_events])
async def test_what_a_broken_protect_saw_is_the_senders_to_send_again(
    monkeypatch: pytest.MonkeyPatch, way: Process
) -> None:
    monkeypatch.setattr(Protect, "process_many", way)
    (receipt,), stored, kept = await send(make_event())
    assert (receipt.outcome, receipt.reason) == (Outcome.RETRY, "protect")
    assert (stored, kept) == ({}, [])


@pytest.mark.usefixtures("autojump_clock")
async def test_a_slow_protect_holds_the_batch_and_the_answer_is_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Protect, "process_many", never_ends)
    (receipt,), stored, kept = await send(make_event())
    assert receipt.outcome is Outcome.RETRY
    assert (stored, kept) == ({}, [])


@pytest.mark.usefixtures("autojump_clock")
async def test_a_protect_that_stays_broken_holds_what_comes_next_and_lets_none_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Protect, "process_many", broken)
    pipeline, store = chain()
    protect = next(actor for actor in pipeline.actors if actor.name == "protect")
    for number in range(FAILURES_IN_A_ROW_MAX + 1):
        (receipt,) = await pipeline.submit(batch(make_event(event_id=f"evt_{number}")))
        assert receipt.outcome is Outcome.RETRY
    assert protect.health.failures >= FAILURES_IN_A_ROW_MAX
    assert store.events == {}
    monkeypatch.setattr(Protect, "process_many", WHOLE)
    await trio.sleep(60)
    (receipt,) = await pipeline.submit(batch(make_event(event_id="evt_0")))
    assert receipt.outcome is Outcome.STORED


async def test_one_event_that_breaks_protect_does_not_hold_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Protect, "process_many", breaks_on_two)
    events = [make_event(event_id=f"evt_{number}") for number in range(4)]
    receipts, stored, kept = await send(*events)
    told = [receipt.outcome.value for receipt in receipts]
    assert told == ["stored", "stored", "retry", "stored"]
    assert (sorted(stored), kept) == (["evt_0", "evt_1", "evt_3"], [])
