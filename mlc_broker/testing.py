"""For tests, ours and a plugin author's: a clock to turn, events to send, threads left out.

`await run(Screen, [event], score_max=100)` gives verdicts; `await check_processor(Screen)` tries
everything that may happen to a processor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any, TypeVar, TypeVarTuple

import msgspec
import trio

from mlc_broker.model.catalog import Catalog
from mlc_broker.model.event import Event, Facts
from mlc_broker.model.person import Organization, User
from mlc_broker.model.verdict import Verdict
from mlc_broker.pipeline import derive
from mlc_broker.pipeline.contract import Contract
from mlc_broker.pipeline.processor import Processor, Tools
from mlc_broker.runtime.clock import Clock

Ts = TypeVarTuple("Ts")
R = TypeVar("R")

LESSON_BEGINS = datetime(2025, 1, 27, 14, 30, tzinfo=UTC)
_numbers = count(1)


class TrioClock:
    """Wall time that follows trio's clock, so that one MockClock moves both.

    Make it inside a trio run; it begins at `start`.
    """

    def __init__(self, start: datetime = LESSON_BEGINS) -> None:
        self._start, self._began = start, trio.current_time()

    def now(self) -> datetime:
        """Return the time in UTC."""
        return self._start + timedelta(seconds=trio.current_time() - self._began)


class FixedClock:
    """Wall time that stands still until `now_is` is changed; needs no trio."""

    def __init__(self, start: datetime = LESSON_BEGINS) -> None:
        self.now_is = start

    def now(self) -> datetime:
        """Return the time in UTC."""
        return self.now_is


async def inline(function: Callable[[*Ts], R], *args: *Ts, **_options: Any) -> R:
    """Stand in for `trio.to_thread.run_sync`: a real thread would let a mock clock run away."""
    await trio.lowlevel.checkpoint()
    return function(*args)


class DictRoster:
    """People in a dict by their ids, all of one organization; classes and refusals to set."""

    def __init__(
        self,
        users: dict[str, User] | None = None,
        *,
        organizations: dict[str, Organization] | None = None,
        class_ids: tuple[str, ...] = (),
        teacher_ids: tuple[str, ...] = (),
    ) -> None:
        self.users = dict(users or {})
        self.organizations = organizations or {"org_1": Organization()}
        self.class_ids, self.teacher_ids = class_ids, teacher_ids
        self.refused: set[tuple[str, str]] = set()  # (user, category)

    def organization(self, organization_id: str) -> Organization | None:
        """Return the organization's record."""
        return self.organizations.get(organization_id)

    def user(self, organization_id: str, user_id: str) -> User | None:
        """Return the person's record."""
        return self.users.get(user_id) if organization_id in self.organizations else None

    def membership(
        self,
        organization_id: str,  # noqa: ARG002 (as the real one asks)
        user_id: str,  # noqa: ARG002
        at: datetime,  # noqa: ARG002
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the same classes for everybody."""
        return self.class_ids, self.teacher_ids

    def collects(self, organization_id: str, user_id: str, category: str) -> bool:  # noqa: ARG002
        """Say whether events of this category may be collected about this person."""
        return (user_id, category) not in self.refused

    def erased(self, organization_id: str, user_id: str, at: datetime) -> bool:  # noqa: ARG002
        """Nobody was erased."""
        return False


def make_tools(
    *,
    clock: Clock | None = None,
    seed: int = 0,
    roster: Any = None,
    catalog: Catalog | None = None,
) -> Tools:
    """Return tools that are the same at every run: a fixed clock, seeded chance, a DictRoster."""
    return Tools(
        clock=clock or FixedClock(),
        random=Random(seed),  # noqa: S311 (a test's)
        roster=roster or DictRoster(),
        catalog=catalog or Catalog.standard(),
        emit=derive.emit,
    )


class Verdicts(list[Verdict]):
    """The verdicts, in order; `emitted` are the derived events, as they begin their walk."""

    emitted: list[Event]


async def run(
    kind: type[Processor], events: Sequence[Event], *, tools: Tools | None = None, **settings: Any
) -> Verdicts:
    """Open a processor, give it these events, close it; return its verdicts.

    They are held to the same contract as in the daemon: ProcessorFailed says what is wrong.
    """
    own = tools or make_tools()
    processor = kind(msgspec.convert(settings, kind.Settings), own)
    await processor.open()
    try:
        return await ask(processor, events)
    finally:
        await processor.close()


async def ask(processor: Processor, events: Sequence[Event]) -> Verdicts:
    """Give a processor that is open these events; return its verdicts."""
    contract = Contract(processor.name, outsider=True, catalog=processor.tools.catalog)
    with derive.outbox() as box:
        answer = await processor.process_many(events)
    verdicts = Verdicts(contract.check(events, answer))
    verdicts.emitted = [event for _, event in derive.address(processor.name, box, events)]
    return verdicts


def make_event(event_type: str = "game_stage_complete", **changes: Any) -> Event:
    """Return a good event of a student in a lesson, numbered, with `changes`.

    `properties`, `context` and `device_info` are given as dicts.
    """
    number = next(_numbers)
    event = Event(
        event_id=changes.pop("event_id", f"evt_{number:016d}"),
        event_type=event_type,
        timestamp=LESSON_BEGINS,
        user_id="usr_1",
        session_id="sess_1",
        organization_id="org_1",
    )
    if event_type == "game_stage_complete" and "properties" not in changes:
        changes["properties"] = {
            "game_id": "G-01542",
            "stage_id": "G-01542-quiz",
            "stage_type": "quiz",
            "score": 87,
            "max_score": 100,
            "passed": True,
        }
    return event.but(**changes)


def odd_events() -> list[Event]:
    """Return events at the edges of what may come: nobody, nothing, very long, very many keys."""
    long = "x" * 128
    many = {f"key_{number}": number for number in range(100)}
    deep: dict[str, Any] = {}
    for _ in range(20):
        deep = {"deep": deep}
    return [
        make_event(),
        make_event(user_id=None, session_id=None, organization_id=None),
        make_event(user_id=long, session_id=long, organization_id=long),
        make_event("page_view", properties={}),
        make_event("page_view", properties={"score": None, "game_id": None}),
        make_event("page_view", properties={"score": "87", "game_id": 5, "passed": ["yes"]}),
        make_event("page_view", properties={"score": -1e300, "game_id": {}, "passed": 2**62}),
        make_event("page_view", properties={"text": "\ud7ff \U0001f3b5" * 500} | many | deep),
        make_event(timestamp=datetime(1970, 1, 1, tzinfo=UTC)),
        make_event(timestamp=datetime(9999, 12, 31, tzinfo=UTC)),
        make_event(privacy_level="pii", retention_days=1),
        make_event(facts=Facts(derived_from="evt_source", retention_days=1)),
    ]


async def check_processor(kind: type[Processor], **settings: Any) -> None:
    """Try a processor with everything that may happen to one; AssertionError tells what broke.

    Odd events, an empty batch, close without open, open twice, close twice, a restart, a cancelled
    call; one verdict each, inputs unchanged, the same answer for the same seed and clock.
    """
    made = msgspec.convert(settings, kind.Settings)
    await _check_verdicts(kind, made)
    await _check_life(kind, made)
    await _check_cancel(kind, made)
    first, second = await _answers(kind, made), await _answers(kind, made)
    if first != second:
        raise AssertionError(
            f"{kind.name} answers differently for the same seed and clock: take time from "
            "self.tools.clock and chance from self.tools.random"
        )


async def _check_verdicts(kind: type[Processor], settings: Any) -> None:
    processor = kind(settings, make_tools())
    await processor.open()
    assert not await ask(processor, []), f"{kind.name}: an empty batch has no verdicts"
    for event in [*odd_events(), *odd_events()]:
        before = msgspec.json.encode(event)
        try:
            await ask(processor, [event])
        except Exception as error:
            raise AssertionError(
                f"{kind.name} breaks on {before[:300]!r}: {type(error).__name__}: {error}"
            ) from error
        assert msgspec.json.encode(event) == before, f"{kind.name} changed the event it was given"
    await ask(processor, odd_events())
    await processor.close()


async def _check_life(kind: type[Processor], settings: Any) -> None:
    await kind(settings, make_tools()).close()  # never opened
    processor = kind(settings, make_tools())
    await processor.open()
    await processor.open()
    await processor.close()
    await processor.close()
    await processor.open()
    assert len(await ask(processor, [make_event()])) == 1, f"{kind.name} is lost after a restart"
    await processor.close()


async def _check_cancel(kind: type[Processor], settings: Any) -> None:
    processor = kind(settings, make_tools())
    await processor.open()
    with trio.CancelScope() as scope:
        scope.cancel()
        await ask(processor, [make_event()])
    assert len(await ask(processor, [make_event()])) == 1, f"{kind.name} is lost after a cancel"
    with trio.move_on_after(5) as patience:
        await processor.close()
    assert not patience.cancelled_caught, f"{kind.name} does not close within 5 s"


async def _answers(kind: type[Processor], settings: Any) -> tuple[list[Verdict], list[Event]]:
    events = [
        event.but(event_id=f"evt_check_{number}") for number, event in enumerate(odd_events())
    ]
    processor = kind(settings, make_tools(seed=7))
    await processor.open()
    answers = await ask(processor, events)
    await processor.close()
    return list(answers), answers.emitted
