"""Watching a metric: its value at once, and again whenever it has changed, at most once a second."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Protocol

import trio

from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Principal
from mlc_broker.query.metrics import MetricBook, Question
from mlc_broker.query.metrics_time import Calendar
from mlc_broker.runtime.clock import Clock

PAUSE_SECONDS = 1.0  # between two looks for one watcher
LOOK_AGAIN_SECONDS = 60.0  # midnight changes values too
Value = tuple[datetime, list[dict[str, Any]]]
_AXES = (
    "event_type", "category", "user_id", "class_id", "teacher_id", "assignment_id", "sequence_id",
    "game_id", "organization_id",
)  # fmt: skip


class Changing(Protocol):
    """The rollups, as far as a watcher needs them."""

    changed: trio.Event
    version: int


class Watching:
    """All watchers. Each asks as its own principal: what they see is what a question shows."""

    def __init__(self, book: MetricBook, rollups: Changing, *, clock: Clock) -> None:
        self._book = book
        self._rollups = rollups
        self._clock = clock

    async def watch(
        self, principal: Principal, metric: str, group_by: list[str], window: str, filter_: Filter
    ) -> AsyncIterator[Value]:
        """Begin to watch; raises ClientError where the question is wrong.

        The first read is noted in the access log where it names persons; the later ones are of it.
        """
        question = self._question(principal, metric, group_by, window, filter_)
        version = self._rollups.version
        first = await self._book.ask(principal, question)
        as_of = self._clock.now()
        return self._values(
            (as_of, first.rows),
            version,
            lambda: self._question(principal, metric, group_by, window, filter_),
            principal,
        )

    async def _values(
        self, first: Value, version: int, question: Any, principal: Principal
    ) -> AsyncIterator[Value]:
        shown = first[1]
        yield first
        while True:
            await trio.sleep(PAUSE_SECONDS)
            if self._rollups.version == version:
                with trio.move_on_after(LOOK_AGAIN_SECONDS):
                    await self._rollups.changed.wait()
            version = self._rollups.version
            told = await self._book.ask(principal, question(), log=False)
            if told.rows != shown:
                shown = told.rows
                yield self._clock.now(), shown

    def _question(
        self, principal: Principal, metric: str, group_by: list[str], window: str, wanted: Filter
    ) -> Question:
        filters = {name: found for name in _AXES if (found := getattr(wanted, name)) is not None}
        calendar = Calendar(self._book.zone(principal, filters), self._clock.now())
        begin, end = calendar.of_window(window)
        return Question(
            name=metric,
            grain="total",
            group_by=tuple(group_by),
            filters=filters,
            begin=begin,
            end=end,
        )
