"""One processor behind one guard: what breaks in it costs one event, never the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import trio

from mlc_broker.model.batch import Outcome, Receipt
from mlc_broker.model.catalog import Catalog
from mlc_broker.model.errors import PluginLoadError
from mlc_broker.model.event import Event
from mlc_broker.model.verdict import Verdict
from mlc_broker.pipeline import derive
from mlc_broker.pipeline.cell import call_apart
from mlc_broker.pipeline.contract import Contract, describe
from mlc_broker.pipeline.isolation import START_SECONDS_MAX, Caged
from mlc_broker.pipeline.processor import Processor, Stage
from mlc_broker.pipeline.watchdog import SLICES, Who
from mlc_broker.pipeline.work import Work
from mlc_broker.runtime.supervisor import Backoff

FAILURES_IN_A_ROW_MAX = 5
# After a batch that took too long, each of its events alone gets this part of the time: five that
# hang in a row must be told from one before their sender has given up.
ONE_EVENT_SHARE = 0.1
ONE_EVENT_SECONDS = 0.25  # less would punish innocent events on a busy machine
UNPROTECTED = Receipt(Outcome.RETRY, "protect", "this cannot be protected now: send it again")


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
    emitted: int = 0


class Tap(Protocol):
    """Who looks on: a shadow."""

    def saw(self, events: Sequence[Event], verdicts: Sequence[Verdict]) -> None:
        """Take note of events and of the verdicts on them; must not block."""


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
        catalog: Catalog | None = None,
        isolation: Literal["inline", "process"] = "inline",
        source: str = "built in",
    ) -> None:
        self.name, self.stage, self.on_failure = name, stage, on_failure
        self.isolation, self.source = isolation, source
        self.health = Health()
        self.taps: list[Tap] = []
        self.seconds_max = seconds_max
        self._make, self._backoff = make, backoff
        self._outsider = stage == Stage.EXTEND
        self._contract = Contract(name, outsider=self._outsider, catalog=catalog)
        self._who = Who(name, seconds_max)
        self._processor: Processor | None = None
        self._in_a_row = 0
        self._open_again_at = 0.0
        self._opened_at = 0.0
        self._lock = trio.Lock()  # one batch at a time, in order of arrival
        self._born()

    async def open(self) -> None:
        """Open the processor; PluginLoadError tells the operator what is wrong (at a reload)."""
        if self.health.state == "disabled":
            return
        try:
            if self._processor is None:
                raise PluginLoadError(self.health.detail)  # noqa: TRY301 (the same report)
            await self._call(self._processor.open, self.seconds_max)
        except Exception as error:  # guard: a processor's step
            self.health.state, self.health.detail = "broken", f"open: {describe(error)}"
            self._try_later(0.0)
            msg = f'"{self.name}" ({self.source}) does not open: {describe(error)}'
            raise PluginLoadError(msg) from error
        self._opened_at = trio.current_time()

    async def start(self) -> None:
        """Open the processor at the start of the house; a plugin that cannot is tried later."""
        try:
            await self.open()
        except PluginLoadError:
            if not self._outsider:
                raise

    async def close(self) -> None:
        """Close the processor; what it raises is noted, not passed on."""
        if self._processor is None:
            return
        with trio.CancelScope(shield=True):
            try:
                await self._call(self._processor.close, self.seconds_max)
            except Exception as error:  # noqa: BLE001 (guard: a processor's step)
                self.health.detail = self.health.detail or f"close: {describe(error)}"

    def disable(self, why: str) -> None:
        """Let batches pass by from now on."""
        self.health.state, self.health.detail = "disabled", why

    @property
    def removed(self) -> Mapping[str, int]:
        """What our own processor has taken out of events, by part: protect counts it."""
        return {} if self._outsider else getattr(self._processor, "removed", {})

    async def run(self, work: Work) -> None:
        """Let the processor speak on every live event of `work`."""
        if not self._outsider and self._processor is not None and self._processor.pure:
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
        verdicts = await self._ask(work, events, 0, self.seconds_max)
        if isinstance(verdicts, str):
            await self._one_by_one(work, events, verdicts)
        else:
            if self.taps:
                self._tell(events, verdicts)
            work.apply(verdicts)
            self._in_a_row = 0
        self.health.events += len(events)
        self.health.seconds += trio.current_time() - began

    async def _ask(
        self, work: Work, events: Sequence[Event], number: int, seconds_max: float
    ) -> Sequence[Verdict] | str:
        """Return the verdicts on the live events from `number` on, or what went wrong."""
        processor = self._processor
        assert processor is not None
        try:
            if not self._outsider:
                if processor.pure:
                    return self._contract.check(events, await processor.process_many(events))
                with trio.fail_after(seconds_max):
                    return self._contract.check(events, await processor.process_many(events))
            with derive.outbox() as box:
                answer = await self._call(lambda: processor.process_many(events), seconds_max)
            verdicts = self._contract.check(events, answer)
            if box:
                self._emit(work, number, derive.address(self.name, box, events))
        except trio.TooSlowError:
            return f"no verdict within {seconds_max:g} s"
        except Exception as error:  # noqa: BLE001 (guard: a processor's step)
            return describe(error)
        return verdicts

    async def _one_by_one(self, work: Work, events: Sequence[Event], what: str) -> None:
        """A batch broke the processor: find the events that do, and let the rest pass."""
        seconds_max = self.seconds_max
        if what.startswith("no verdict within"):
            seconds_max = min(seconds_max, max(ONE_EVENT_SECONDS, seconds_max * ONE_EVENT_SHARE))
        for number, event in enumerate(events):
            if self.health.state != "ready" and not await self._ready_again(work, number):
                return
            verdicts: Sequence[Verdict] | str = what
            if len(events) > 1:  # one alone has just been tried
                verdicts = await self._ask(work, (event,), number, seconds_max)
            if isinstance(verdicts, str):
                self._note(work, number, verdicts)
                await self._failed(verdicts)
            else:
                self._in_a_row = 0
                work.apply_one(number, verdicts[0])
        work.tidy()

    def _note(self, work: Work, number: int, what: str) -> None:
        if self.stage == Stage.PROTECT:
            # Unprotected, it goes nowhere, not even sealed: its sender keeps it until we are mended.
            work.send_back(number, UNPROTECTED)
            return
        work.quarantine(number, Receipt(Outcome.QUARANTINED, self.name, what[:500]))

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
            self._processor = processor = self._made()
            await self._call(processor.open, self.seconds_max)
        except Exception as error:  # noqa: BLE001 (guard: a processor's step)
            self.health.detail = describe(error)
            self._try_later(0.0)
            return False
        self._opened_at = trio.current_time()
        self._in_a_row = 0
        self.health.state, self.health.detail = "ready", ""
        self.health.restarts += 1
        return True

    def _born(self) -> None:
        """Make the processor for the first time; a plugin that breaks here is broken, no more."""
        try:
            self._processor = self._made()
        except Exception as error:  # guard: a processor's step
            if not self._outsider:
                raise
            self.health.state = "broken"
            self.health.detail = f"__init__: {describe(error)}"

    def _made(self) -> Processor:
        SLICES.enter(self._who)
        try:
            return self._make()
        except SystemExit as error:
            msg = "SystemExit was raised, which would end the process"
            raise PluginLoadError(msg) from error
        finally:
            SLICES.leave()

    async def _call(self, call: Callable[[], Any], seconds_max: float) -> Any:
        """Call a processor: ours as it is, anybody else's in a task of its own."""
        if self._outsider:
            if isinstance(self._processor, Caged):
                self._processor.seconds_max = seconds_max  # it measures its own work …
                seconds_max += START_SECONDS_MAX  # … and may have to start its process first
            return await call_apart(call, self._who, seconds_max=seconds_max)
        with trio.fail_after(seconds_max):
            return await call()

    def _emit(self, work: Work, number: int, emitted: Sequence[tuple[int, Event]]) -> None:
        if work.batch.origin.transport == derive.DERIVED:
            return  # a derived event makes no more of them
        self.health.emitted += len(emitted)
        for at, event in emitted:
            work.emitted.append(derive.Emitted(work.live[number + at], event))

    def _tell(self, events: Sequence[Event], verdicts: Sequence[Verdict]) -> None:
        for tap in self.taps:
            tap.saw(events, verdicts)

    def _try_later(self, ran_seconds: float) -> None:
        self._open_again_at = trio.current_time() + self._backoff.next_seconds(ran_seconds)

    def _pass_by(self, work: Work, begin: int) -> bool:
        self.health.skipped += len(work.live) - begin
        work.tidy()
        return False
