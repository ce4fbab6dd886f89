"""A new version beside the old, on live traffic, without effect: what it would have done.

It sees what the plugin in force sees, a batch at a time, in a process of its own and behind a
bounded queue: when it is slower than the traffic it misses batches, and nobody waits for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec
import trio
from msgspec import Struct

from mlc_broker.model.event import Event
from mlc_broker.model.verdict import Drop, Verdict
from mlc_broker.pipeline.actor import Actor
from mlc_broker.pipeline.contract import Contract, describe
from mlc_broker.pipeline.isolation import Caged

QUEUE_BATCHES_MAX = 64
EXAMPLES_MAX = 10
_PARTS = ("properties", "context", "device_info")


class Example(Struct, frozen=True):
    """One event on which the versions differ: ids and the names of what differs, no contents."""

    event_id: str
    event_type: str
    now: str  # what the version in force does
    then: str  # what the new one would do


class Report(Struct, kw_only=True):
    """What the new version would have done, and at what cost."""

    name: str
    events: int = 0
    same: int = 0
    changed: int = 0
    dropped: int = 0
    rejected: int = 0
    failed: int = 0
    missed: int = 0  # it was slower than the traffic
    microseconds_per_event: float = 0.0
    microseconds_per_event_now: float = 0.0
    examples: list[Example] = []
    errors: list[str] = []


class Shadow:
    """One comparison. `run` yields the report every `report_seconds`, and at the end."""

    def __init__(
        self, name: str, caged: Caged, actor: Actor, contract: Contract, *, behind: bool = False
    ) -> None:
        """`behind`: it is not in the chain yet, and would stand behind `actor`."""
        self.report = Report(name=name)
        self._behind = behind
        self._caged, self._actor, self._contract = caged, actor, contract
        self._enter, self._queue = trio.open_memory_channel[
            tuple[Sequence[Event], Sequence[Verdict]]
        ](QUEUE_BATCHES_MAX)
        self._seconds = 0.0
        self._before = (0, 0.0)

    def saw(self, events: Sequence[Event], verdicts: Sequence[Verdict]) -> None:
        """Take note of what the version in force said; never waits."""
        if self._behind:
            events = [one for one in verdicts if isinstance(one, Event)]
            verdicts = events
        if not events:
            return
        try:
            self._enter.send_nowait((events, list(verdicts)))
        except trio.WouldBlock:
            self.report.missed += len(events)

    async def run(self, seconds: float, report_seconds: float = 5.0) -> AsyncIterator[Report]:
        """Compare for so long."""
        await self._caged.open()
        self._actor.taps.append(self)
        self._before = (self._actor.health.events, self._actor.health.seconds)
        ends = trio.current_time() + seconds
        try:
            while trio.current_time() < ends:
                with trio.move_on_at(min(ends, trio.current_time() + report_seconds)):
                    await self._compare_all()
                yield self._sum_up()
        finally:
            self._actor.taps.remove(self)
            await self._caged.close()

    async def _compare_all(self) -> None:
        while True:
            events, verdicts = await self._queue.receive()
            try:
                await self._compare(events, verdicts)
            except Exception as error:  # noqa: BLE001 (guard: a processor's step)
                self.report.events += len(events)
                self.report.failed += len(events)
                self._complain(describe(error))

    async def _compare(self, events: Sequence[Event], verdicts: Sequence[Verdict]) -> None:
        before = self._caged.child_seconds
        # A report that is due must not kill the child in the middle of a batch.
        with trio.CancelScope(shield=True):
            answer = await self._caged.process_many(events)
        self._seconds += self._caged.child_seconds - before
        for event, now, then in zip(
            events, verdicts, self._contract.check(events, answer), strict=True
        ):
            self._note(event, now, then)

    def _note(self, event: Event, now: Verdict, then: Verdict) -> None:
        report = self.report
        report.events += 1
        differs = now != then
        if not differs:
            report.same += 1
            return
        if isinstance(then, Event):
            report.changed += 1
        elif isinstance(then, Drop):
            report.dropped += 1
        else:
            report.rejected += 1
        if len(report.examples) < EXAMPLES_MAX:
            words = (_in_words(event, now), _in_words(event, then))
            report.examples.append(Example(event.event_id, event.event_type, *words))

    def _complain(self, what: str) -> None:
        if what not in self.report.errors and len(self.report.errors) < EXAMPLES_MAX:
            self.report.errors.append(what)

    def _sum_up(self) -> Report:
        report, health = self.report, self._actor.health
        report.microseconds_per_event = _per_event(self._seconds, report.events)
        events, seconds = self._before
        report.microseconds_per_event_now = _per_event(
            health.seconds - seconds, health.events - events
        )
        return report


def _per_event(seconds: float, events: int) -> float:
    return round(seconds / events * 1e6, 2) if events else 0.0


def _in_words(event: Event, verdict: Verdict) -> str:
    if isinstance(verdict, Event):
        changed = _changed(event, verdict)
        return f"pass, with other {', '.join(changed)}" if changed else "pass"
    word = "drop" if isinstance(verdict, Drop) else "reject"
    return f"{word} ({verdict.reason})"


def _changed(before: Event, after: Event) -> list[str]:
    """Return the names of what differs: never its content."""
    names = []
    for part in _PARTS:
        old, new = getattr(before, part), getattr(after, part)
        names += [f"{part}.{key}" for key in sorted(old | new) if old.get(key) != new.get(key)]
    rest = msgspec.structs.asdict(before)
    names += [
        name
        for name, value in rest.items()
        if not name.endswith("_json") and value != getattr(after, name)
    ]
    return names[:8]
