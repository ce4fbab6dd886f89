"""One processor behind one guard: what breaks in it costs one event, never the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import trio

from mlc_broker.model.batch import Outcome, Receipt
from mlc_broker.model.errors import ProcessorFailed
from mlc_broker.model.event import Event
from mlc_broker.model.verdict import Drop, Reject, Verdict
from mlc_broker.pipeline.processor import Processor, Stage
from mlc_broker.pipeline.work import Work
from mlc_broker.runtime.supervisor import Backoff

FAILURES_IN_A_ROW_MAX = 5
_RANK = {"standard": 0, "sensitive": 1, "pii": 2}


@dataclass(slots=True)
class Health:
    """How a processor is doing, for `readyz`, `plugins list` and the metrics."""

    state: Literal["ready", "broken", "disabled"] = "ready"
    detail: str = ""
    events: int = 0
    seconds: float = 0.0
    failures: int = 0
    restarts: int = 0
    skipped: int = 0


class Actor:
    """Runs one processor over work. It holds or skips while the processor is being made anew."""

    def __init__(
        self,
        make: Callable[[], Processor],
        *,
        name: str,
        stage: Stage,
        on_failure: Literal["hold", "skip"],
        seconds_max: float,
        backoff: Backoff,
    ) -> None:
        self.name, self.stage, self.on_failure = name, stage, on_failure
        self.health = Health()
        self._make, self._seconds_max, self._backoff = make, seconds_max, backoff
        self._processor = make()
        self._in_a_row = 0
        self._open_again_at = 0.0
        self._opened_at = 0.0
        self._lock = trio.Lock()  # one batch at a time, in order of arrival

    async def open(self) -> None:
        """Open the processor; an error here is the operator's to see at start and on reload."""
        await self._processor.open()
        self._opened_at = trio.current_time()

    async def close(self) -> None:
        """Close the processor; what it raises is noted, not passed on."""
        try:
            with trio.move_on_after(self._seconds_max, shield=True):
                await self._processor.close()
        except Exception as error:  # guard: a processor's step
            self.health.detail = f"close: {describe(error)}"

    def disable(self, why: str) -> None:
        """Let batches pass by from now on."""
        self.health.state, self.health.detail = "disabled", why

    async def run(self, work: Work) -> None:
        """Let the processor speak on every live event of `work`."""
        if self._processor.pure:
            await self._run(work)
        elif work.live:
            async with self._lock:
                await self._run(work)

    async def _run(self, work: Work) -> None:
        if not work.live:
            return
        if self.health.state != "ready" and not await self._ready_again(work):
            return
        events = work.events()
        began = trio.current_time()
        verdicts = await self._ask(events)
        if isinstance(verdicts, str):
            await self._one_by_one(work, events)
        else:
            work.apply(verdicts)
            self._in_a_row = 0
        self.health.events += len(events)
        self.health.seconds += trio.current_time() - began

    async def _ask(self, events: Sequence[Event]) -> Sequence[Verdict] | str:
        """Return the verdicts, or what went wrong."""
        try:
            if self._processor.pure:
                verdicts = await self._processor.process_many(events)
            else:
                with trio.fail_after(self._seconds_max):
                    verdicts = await self._processor.process_many(events)
            self._check(events, verdicts)
        except trio.TooSlowError:
            return f"no verdict within {self._seconds_max:g} s"
        except Exception as error:  # guard: a processor's step
            return describe(error)
        return verdicts

    async def _one_by_one(self, work: Work, events: Sequence[Event]) -> None:
        """A batch broke the processor: find the events that do, and let the rest pass."""
        for number, event in enumerate(events):
            if self.health.state != "ready" and not await self._ready_again(work, number):
                return
            verdicts = await self._ask((event,))
            if isinstance(verdicts, str):
                await self._failed(verdicts)
                work.quarantine(number, Receipt(Outcome.QUARANTINED, self.name, verdicts[:500]))
            else:
                self._in_a_row = 0
                work.apply_one(number, verdicts[0])
        work.tidy()

    async def _failed(self, what: str) -> None:
        self.health.failures += 1
        self._in_a_row += 1
        if self._in_a_row >= FAILURES_IN_A_ROW_MAX:
            await self._break(what)

    async def _break(self, what: str) -> None:
        """Five in a row: not the events are broken but the processor."""
        self.health.state, self.health.detail = "broken", what
        self._try_later(trio.current_time() - self._opened_at)
        await self.close()

    async def _ready_again(self, work: Work, begin: int = 0) -> bool:
        """Make the processor anew when it is time; else hold or skip. True: it may go on."""
        if self.health.state == "disabled":
            return self._pass_by(work, begin)
        while True:
            wait = self._open_again_at - trio.current_time()
            if wait > 0:
                if self.on_failure == "skip":
                    return self._pass_by(work, begin)
                await trio.sleep(wait)
            if await self._make_anew():
                return True

    async def _make_anew(self) -> bool:
        try:
            self._processor = self._make()
            with trio.fail_after(self._seconds_max):
                await self._processor.open()
        except Exception as error:  # guard: a processor's step
            self.health.detail = describe(error)
            self._try_later(0.0)
            return False
        self._opened_at = trio.current_time()
        self._in_a_row = 0
        self.health.state, self.health.detail = "ready", ""
        self.health.restarts += 1
        return True

    def _try_later(self, ran_seconds: float) -> None:
        self._open_again_at = trio.current_time() + self._backoff.next_seconds(ran_seconds)

    def _pass_by(self, work: Work, begin: int) -> bool:
        self.health.skipped += len(work.live) - begin
        work.tidy()
        return False

    def _check(self, events: Sequence[Event], verdicts: Sequence[Verdict]) -> None:
        """Hold a processor's answer to its contract."""
        if not isinstance(verdicts, list | tuple) or len(verdicts) != len(events):
            count = len(verdicts) if isinstance(verdicts, list | tuple) else type(verdicts).__name__
            msg = f"{self.name} gave {count} verdicts for {len(events)} events"
            raise ProcessorFailed(msg)
        outsider = self.stage == Stage.EXTEND
        for event, verdict in zip(events, verdicts, strict=True):
            if verdict is event:
                continue
            if not isinstance(verdict, Event | Drop | Reject):
                msg = f"{self.name} answered {type(verdict).__name__}, not Event, Drop or Reject"
                raise ProcessorFailed(msg)
            if outsider and isinstance(verdict, Event):
                self._check_change(event, verdict)

    def _check_change(self, before: Event, after: Event) -> None:
        """A plugin stands behind protect: it may not undo what protect did (law 5)."""
        for field in ("event_id", "event_type", "user_id", "organization_id", "timestamp"):
            if getattr(before, field) != getattr(after, field):
                msg = f"{self.name} changed {field}, which only the built-in processors may"
                raise ProcessorFailed(msg)
        if after.facts.retention_days > before.facts.retention_days or _rank(after) < _rank(before):
            msg = f"{self.name} loosened privacy_level or retention, which may only be tightened"
            raise ProcessorFailed(msg)


def describe(error: BaseException) -> str:
    """Say in one line what was raised."""
    text = str(error).split("\n", 1)[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _rank(event: Event) -> int:
    return _RANK[event.privacy_level or "standard"]
