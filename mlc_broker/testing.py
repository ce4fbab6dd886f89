"""For tests, ours and a plugin author's: a clock to turn, events to send, threads left out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar, TypeVarTuple

import trio

from mlc_broker.model.event import Event

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
