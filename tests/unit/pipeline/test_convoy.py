"""Small batches that come together walk together, and nobody notices."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from types import coroutine
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from mlc_broker.model.batch import STORED, Batch, Outcome, Receipt
from mlc_broker.model.event import Event
from mlc_broker.model.principal import Principal
from mlc_broker.pipeline.chain import BUSY, Pipeline
from mlc_broker.pipeline.convoy import EVENTS_MAX, SMALL_EVENTS_MAX
from mlc_broker.pipeline.processor import Stage
from mlc_broker.testing import make_event
from tests.unit.pipeline.house import ListQuarantine, ListStore, actor, batch
from tests.unit.pipeline.test_chain import MOODS, Moody, moody


class Ours(Moody):
    """Moody, but built in: so batches may share its time."""

    stage = Stage.ROUTE


class Counting(ListStore):
    """Knows how many batches came, and may break."""

    def __init__(self) -> None:
        super().__init__()
        self.appended: list[int] = []
        self.breaks = False

    async def append(self, batch: Batch) -> None:
        self.appended.append(len(batch))
        await trio.lowlevel.checkpoint()
        if self.breaks:
            raise ZeroDivisionError("the store")
        await super().append(batch)


class Remembering(ListQuarantine):
    """Knows whose events it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.senders: list[str] = []

    async def keep(self, batch: Batch, refused: Sequence[tuple[Event, Receipt]]) -> bool:
        self.senders += [batch.origin.principal.id] * len(refused)
        return await super().keep(batch, refused)


async def submit_all(pipeline: Pipeline, batches: list[Batch]) -> list[list[Receipt]]:
    """Submit all at the same moment; the receipts of each."""
    answers: list[list[Receipt]] = [[]] * len(batches)

    async def submit(number: int) -> None:
        answers[number] = await pipeline.submit(batches[number])

    async with trio.open_nursery() as nursery:
        for number in range(len(batches)):
            nursery.start_soon(submit, number)
    return answers


@given(
    moods=st.lists(
        st.lists(st.sampled_from(["raise", "drop", "reject", "change", "calm"])), max_size=9
    )
)
def test_each_batch_gets_its_own_receipts_and_its_own_events_back(moods: list[list[str]]) -> None:
    async def main() -> None:
        # a calm event after each one keeps the processor from counting as broken
        batches = [
            batch(
                *(event for mood in some for event in (moody(mood), moody("calm"))),
                sender=Principal(kind="ingest", id=f"key_{number}", organization_id="org_1"),
            )
            for number, some in enumerate(moods)
        ]
        sent = [list(each.event_ids) for each in batches]
        store, quarantine = Counting(), Remembering()
        pipeline = Pipeline([actor(Ours)], keep=store, quarantine=quarantine)
        answers = await submit_all(pipeline, batches)
        for number, some in enumerate(moods):
            expected = [outcome for mood in some for outcome in (MOODS[mood], Outcome.STORED)]
            assert [receipt.outcome for receipt in answers[number]] == expected
            assert [event and event.event_id for event in batches[number].events] == sent[number]
            kept = sum(MOODS[mood] in {Outcome.REJECTED, Outcome.QUARANTINED} for mood in some)
            assert quarantine.senders.count(f"key_{number}") == kept
        assert sum(pipeline.receipts.values()) == pipeline.received == sum(map(len, batches))
        assert sum(store.appended) <= pipeline.received
        assert pipeline.waiting == 0

    trio.run(main)


async def test_what_comes_together_is_stored_by_one_append() -> None:
    store = Counting()
    pipeline = Pipeline([actor(Ours)], keep=store, quarantine=ListQuarantine())
    answers = await submit_all(pipeline, [batch(make_event()) for _ in range(50)])
    assert answers == [[STORED]] * 50
    assert store.appended == [50]


async def test_a_large_batch_and_a_full_convoy_leave_alone() -> None:
    store = Counting()
    pipeline = Pipeline([actor(Ours)], keep=store, quarantine=ListQuarantine())
    some = [batch(*(make_event() for _ in range(SMALL_EVENTS_MAX))) for _ in range(40)]
    large = batch(*(make_event() for _ in range(SMALL_EVENTS_MAX + 1)))
    await submit_all(pipeline, [large, *some])
    assert sorted(store.appended) == [21, 40 * SMALL_EVENTS_MAX - EVENTS_MAX, EVENTS_MAX]


async def test_a_plugin_sees_each_batch_by_itself() -> None:
    store = Counting()
    pipeline = Pipeline([actor(Moody)], keep=store, quarantine=ListQuarantine())
    await submit_all(pipeline, [batch(make_event()) for _ in range(5)])
    assert store.appended == [1] * 5


async def test_the_same_event_from_two_is_stored_once() -> None:
    pipeline = Pipeline([actor(Ours)], keep=Counting(), quarantine=ListQuarantine())
    twice = make_event()
    answers = await submit_all(pipeline, [batch(twice), batch(twice)])
    outcomes = sorted(receipt.outcome for [receipt] in answers)
    assert outcomes == [Outcome.DUPLICATE, Outcome.STORED]


async def test_who_leads_and_is_cancelled_leaves_nobody_behind() -> None:
    store = Counting()
    pipeline = Pipeline([actor(Ours)], keep=store, quarantine=ListQuarantine())
    answers: list[list[Receipt]] = []
    scopes = [trio.CancelScope() for _ in range(4)]

    async def submit(scope: trio.CancelScope) -> None:
        with scope:
            answers.append(await pipeline.submit(batch(make_event())))

    async with trio.open_nursery() as nursery:
        for scope in scopes:
            nursery.start_soon(submit, scope)
        await trio.lowlevel.checkpoint()  # now all have boarded, and one of them leads
        for scope in scopes[:3]:
            scope.cancel()
    assert len(store.events) == 4, "what was taken along was stored"
    assert [STORED] in answers
    assert pipeline.waiting == 0


async def test_a_store_that_breaks_is_told_to_all_that_travelled() -> None:
    store = Counting()
    store.breaks = True
    pipeline = Pipeline([actor(Ours)], keep=store, quarantine=ListQuarantine())
    answers: list[object] = []

    async def submit() -> None:
        try:
            answers.append(await pipeline.submit(batch(make_event())))
        except ZeroDivisionError as error:
            answers.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(submit)
    assert sum(isinstance(answer, ZeroDivisionError) for answer in answers) == 1
    assert answers.count([BUSY]) == 2
    assert pipeline.waiting == 0


@coroutine
def led(pipeline: Pipeline, aboard: Callable[[], None]) -> Generator[Any, Any, list[Receipt]]:
    """Submit a batch that leads a convoy; call `aboard` as soon as there is one to board."""
    steps = pipeline.submit(batch(make_event())).__await__()
    trap = next(steps)
    aboard()
    try:
        while True:
            trap = steps.send((yield trap))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def test_who_boards_needs_no_task_and_is_told() -> None:
    store = Counting()
    pipeline = Pipeline([actor(Ours)], keep=store, quarantine=ListQuarantine())
    told: list[list[Receipt]] = []
    assert not pipeline.board(batch(make_event()), told.append), "nobody leads yet"
    async with trio.open_nursery() as nursery:

        def aboard() -> None:
            for _ in range(3):
                assert pipeline.board(batch(make_event()), told.append)
            large = batch(*(make_event() for _ in range(SMALL_EVENTS_MAX + 1)))
            assert not pipeline.board(large, told.append)
            assert pipeline.waiting == 4
            nursery.start_soon(pipeline.aclose)  # waits for those who are inside

        assert await led(pipeline, aboard) == [STORED]
    assert told == [[STORED]] * 3
    assert (pipeline.waiting, pipeline.received) == (0, 4)
    assert sum(pipeline.receipts.values()) == 4
    assert not pipeline.board(batch(make_event()), told.append), "it is closed"


async def test_who_boarded_is_told_though_another_raises_and_the_store_broke() -> None:
    store = Counting()
    store.breaks = True
    pipeline = Pipeline([actor(Ours)], keep=store, quarantine=ListQuarantine())
    told: list[list[Receipt]] = []

    def raising(receipts: list[Receipt]) -> None:
        told.append(receipts)
        raise LookupError

    def aboard() -> None:
        for call in (told.append, raising, told.append):
            assert pipeline.board(batch(make_event()), call)

    with pytest.raises(LookupError):
        await led(pipeline, aboard)
    assert told == [[BUSY]] * 3
    assert pipeline.waiting == 0


async def test_who_would_be_too_many_does_not_board() -> None:
    pipeline = Pipeline(
        [actor(Ours)], keep=Counting(), quarantine=ListQuarantine(), waiting_events_max=2
    )
    told: list[list[Receipt]] = []

    def aboard() -> None:
        assert pipeline.board(batch(make_event()), told.append)
        assert not pipeline.board(batch(make_event()), told.append)

    await led(pipeline, aboard)
    assert told == [[STORED]]
