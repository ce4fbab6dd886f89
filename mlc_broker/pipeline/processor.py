"""The page a processor's author reads: one step of the pipeline, an event in, a verdict out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from random import Random
from typing import Any, ClassVar

from msgspec import Struct

from mlc_broker.model.catalog import Catalog
from mlc_broker.model.event import Event
from mlc_broker.model.verdict import Verdict
from mlc_broker.pipeline.derive import turn
from mlc_broker.pipeline.ports import Roster
from mlc_broker.runtime.clock import Clock


class Stage(IntEnum):
    """Where in the chain a processor may stand. The order of the file must not go down."""

    CANONICALIZE = 1
    VALIDATE = 2
    ENRICH = 3
    PROTECT = 4
    EXTEND = 5  # plugins: behind protect
    SAMPLE = 6
    ROUTE = 7


class Tools(Struct, frozen=True, kw_only=True):
    """What a processor may use, so that it is deterministic in tests."""

    clock: Clock
    random: Random
    roster: Roster
    catalog: Catalog
    emit: Callable[[Event], None]  # a derived event: it takes its own way through the chain


class NoSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A processor without settings."""


class Processor:
    """One step of the pipeline.

    Write `process` (one event) or `process_many` (a batch, for speed); both return verdicts:
    the event, perhaps changed by `event.but(…)`, or Drop, or Reject.
    """

    name: ClassVar[str]
    stage: ClassVar[Stage] = Stage.EXTEND
    Settings: ClassVar[type[Struct]] = NoSettings
    pure: ClassVar[bool] = False  # never waits: called straight on, without a lock or a timer

    def __init__(self, settings: Any, tools: Tools) -> None:
        self.settings = settings
        self.tools = tools

    async def open(self) -> None:
        """Make ready: called before the first event, and again after a restart."""

    async def close(self) -> None:
        """Let go of what `open` took. May be called twice, or without `open`."""

    async def process(self, event: Event) -> Verdict:
        """Return the verdict on one event."""
        return event

    async def process_many(self, events: Sequence[Event]) -> Sequence[Verdict]:
        """Return one verdict an event, in order."""
        verdicts: list[Verdict] = []
        for number, event in enumerate(events):
            turn(number)
            verdicts.append(await self.process(event))
        return verdicts
