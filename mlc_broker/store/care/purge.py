"""Retention: every night, what has expired leaves the files. Not after a clock that jumped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from math import floor
from typing import Any, Protocol

import structlog
import trio
from msgspec import Struct

from mlc_broker.model.errors import BrokerError, StoreError
from mlc_broker.runtime.clock import Clock
from mlc_broker.store.care.jobs import Jobs
from mlc_broker.store.care.scrub import Scrubber
from mlc_broker.store.store import Store

HOUR_OF_NIGHT = 2  # UTC
LOOK_SECONDS = 300.0
JUMP = timedelta(hours=1)
AWAY = timedelta(days=120)  # longer than any holidays: rather a wrong clock than a long sleep
SEEN = "seen_ms"
PURGED = "purged_day"

log = structlog.get_logger("purge")


class Expires(Protocol):
    """A place besides the events where things expire."""

    def expire(self, now: datetime) -> int:
        """Remove what has expired; return how much. Called in a worker thread."""


class Purged(Struct, frozen=True, kw_only=True):
    """What a purge did, or would do."""

    events: int
    elsewhere: dict[str, int]
    by_class: dict[str, int] | None = None  # of a dry run


class ClockJumped(StoreError):
    """The clock is not where it should be: purging by it could delete what has not expired."""


class Purge:
    """Purges at night, or when asked to."""

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        *,
        clock: Clock,
        monotonic: Callable[[], float],
        places: Sequence[tuple[str, Expires]] = (),
        in_thread: Callable[..., Any] = trio.to_thread.run_sync,
    ) -> None:
        self.places = list(places)
        self._scrubber = Scrubber(store)
        self._jobs, self._clock, self._monotonic = jobs, clock, monotonic
        self._in_thread = in_thread
        self._wall, self._elapsed = clock.now(), monotonic()
        self._jump = ""

    async def run(self) -> None:
        """Look at the clock now and then; purge once a night."""
        try:
            await self._trust_clock()
        except ClockJumped as error:  # it went wrong while we were away: upkeep must know at once
            self._jump = str(error)
        while True:
            try:
                await self.look()
            except BrokerError as error:
                log.error("not purged", error=str(error), hint=getattr(error, "hint", ""))  # noqa: TRY400
            await trio.sleep(LOOK_SECONDS)

    async def look(self) -> Purged | None:
        """Purge if this is the first look of a night; note that the clock was seen."""
        self.watch_clock()
        now = self._clock.now()
        day = now.toordinal()
        done = None
        if now.hour >= HOUR_OF_NIGHT and day > await self._in_thread(self._jobs.number, PURGED):
            done = await self.purge()
            await self._in_thread(self._jobs.set_number, PURGED, day)
        if not self._jump:
            await self._in_thread(self._jobs.set_number, SEEN, _ms(now))
        return done

    async def purge(self, *, confirmed: bool = False) -> Purged:
        """Remove what has expired; raises ClockJumped unless `confirmed`."""
        self.watch_clock()
        if not confirmed:
            await self._trust_clock()
        now = self._clock.now()
        events = await self._scrubber.purge(_ms(now))
        elsewhere = {}
        for label, place in self.places:
            elsewhere[label] = await self._in_thread(place.expire, now)
        self._jump = ""
        await self._in_thread(self._jobs.set_number, SEEN, _ms(now))
        log.info("purged", events=events, **elsewhere)
        return Purged(events=events, elsewhere=elsewhere)

    async def would_purge(self) -> Purged:
        """Return what a purge would remove; change nothing."""
        counts = await self._scrubber.expired(_ms(self._clock.now()))
        return Purged(events=sum(counts.values()), elsewhere={}, by_class=counts)

    def steady(self) -> bool:
        """Say whether the wall clock may be believed when it says that something has expired."""
        self.watch_clock()
        return not self._jump

    def watch_clock(self) -> None:
        """Notice a wall clock that went another way than time itself."""
        wall, elapsed = self._clock.now(), self._monotonic()
        gone = timedelta(seconds=elapsed - self._elapsed)
        if abs((wall - self._wall) - gone) > JUMP:
            self._jump = f"the clock went from {self._wall:%Y-%m-%d %H:%M} to {wall:%Y-%m-%d %H:%M}"
        self._wall, self._elapsed = wall, elapsed

    async def _trust_clock(self) -> None:
        now = self._clock.now()
        seen_ms = await self._in_thread(self._jobs.number, SEEN)
        why = self._jump
        if seen_ms and _ms(now) < seen_ms - JUMP / timedelta(milliseconds=1):
            why = "the clock is behind what it showed before"
        elif seen_ms and _ms(now) > seen_ms + AWAY / timedelta(milliseconds=1):
            why = f"it is more than {AWAY.days} days since the clock was seen"
        if why:
            raise ClockJumped(
                f"nothing is purged: {why}",
                hint="look at the clock; if it is right, run mlc-broker purge --confirm",
            )


def _ms(moment: datetime) -> int:
    return floor(moment.timestamp() * 1000)
