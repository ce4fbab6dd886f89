"""Every task has a parent, every crash one handler: start again, wait longer each time, show it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any, NoReturn

import structlog
import trio

log = structlog.get_logger("supervisor")


class State(StrEnum):
    """How a supervised task is."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"  # it crashed, and is started again after a while
    STOPPED = "stopped"


@dataclass
class Backoff:
    """How long to wait before the next start: doubling, with a little chance, forgotten in time."""

    random: Random
    first_seconds: float = 0.1
    seconds_max: float = 30.0
    jitter: float = 0.1  # a tenth: many tasks that fell together do not rise together
    healthy_seconds: float = 60.0
    _failures: int = field(default=0, init=False)

    def next_seconds(self, ran_seconds: float) -> float:
        """Return the wait after a run of `ran_seconds`."""
        if ran_seconds >= self.healthy_seconds:
            self._failures = 0
        # 2**32 tenths of a second are far over any maximum: no overflow after years of crashing
        wait = min(self.seconds_max, self.first_seconds * 2 ** min(self._failures, 32))
        self._failures += 1
        return float(min(self.seconds_max, wait * (1 + self.jitter * self.random.random())))


@dataclass
class Condition:
    """One supervised task as others see it."""

    state: State = State.STARTING
    restarts: int = 0
    last_error: str = ""
    running_since: float = 0.0  # trio's clock, seconds


class Health:
    """The conditions of all supervised tasks: `/readyz`, `STATUS=` and `top` show it."""

    def __init__(self) -> None:
        self.conditions: dict[str, Condition] = {}

    def __getitem__(self, name: str) -> Condition:
        return self.conditions.setdefault(name, Condition())

    @property
    def troubles(self) -> list[str]:
        """A line for every task that is down, and why."""
        return [
            f"{name} is down: {condition.last_error}"
            for name, condition in sorted(self.conditions.items())
            if condition.state is State.WAITING
        ]


async def supervise(
    name: str, task: Callable[[], Awaitable[Any]], backoff: Backoff, health: Health
) -> NoReturn:
    """Run `task` for ever: what crashes, or ends, is started again. Cancelled passes through.

    One of the four guards of the house: an exception here is told to the log and to `health`.
    """
    condition = health[name]
    try:
        while True:
            condition.state, condition.running_since = State.RUNNING, trio.current_time()
            try:
                await task()
                condition.last_error = "ended by itself"
            except Exception as error:
                if _holds_cancelled(error):
                    raise
                condition.last_error = _in_words(error)
            condition.restarts += 1
            condition.state = State.WAITING
            wait = backoff.next_seconds(trio.current_time() - condition.running_since)
            log.error(
                "restarting", task=name, error=condition.last_error, wait_seconds=round(wait, 3)
            )
            await trio.sleep(wait)
    finally:
        condition.state = State.STOPPED


def _holds_cancelled(error: BaseException) -> bool:
    """An ExceptionGroup of a nursery can carry a Cancelled only as a BaseExceptionGroup."""
    if isinstance(error, BaseExceptionGroup):
        return any(_holds_cancelled(inner) for inner in error.exceptions)
    return isinstance(error, trio.Cancelled)


def _in_words(error: BaseException) -> str:
    """Return the first of the causes: a group's own words say nothing."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
