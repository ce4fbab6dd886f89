"""A lesson from the first login to the comparison: `await give(...)`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random

import msgspec
import trio

from mlc_broker.runtime.clock import Clock
from mlc_broker.simulate.compare import Comparer
from mlc_broker.simulate.curriculum import Curriculum
from mlc_broker.simulate.ledger import Difference, Ledger
from mlc_broker.simulate.people import Person, make_people
from mlc_broker.simulate.plan import Access, Plan
from mlc_broker.simulate.player import Player
from mlc_broker.simulate.screen import Progress, show
from mlc_broker.simulate.script import Script
from mlc_broker.simulate.web import Away, Refused


class Told(msgspec.Struct, frozen=True):
    """How a run ended."""

    table: str
    differences: int
    ledger: Ledger


def run_name(clock: Clock) -> str:
    """Return a name for a run that no later run has: its events' ids begin with it."""
    return f"sim{int(clock.now().timestamp() * 1000):x}"


async def give(
    plan: Plan,
    access: Access,
    curriculum: Curriculum,
    *,
    clock: Clock,
    random: Random,
    say: Callable[[str], None],
    stop: trio.Event,
    forever: bool = False,
    say_every_seconds: float = 1.0,
) -> Told:
    """Play one lesson, or one after the other until `stop` is set; then compare."""
    ledger = Ledger(events_max=plan.ledger_events_max)
    progress = Progress(ledger)
    lesson = Lesson(
        plan, access, curriculum, ledger=ledger, progress=progress, clock=clock, random=random
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_at, stop, nursery.cancel_scope)
        nursery.start_soon(lambda: show(progress, say, every_seconds=say_every_seconds))
        number = 0
        while True:
            await lesson.play(f"{plan.run}-{number:x}")
            number += 1
            if not forever:
                break
        nursery.cancel_scope.cancel()
    progress.end()
    comparer = Comparer(ledger, access, organization_id=plan.organization_id, run=plan.run)
    try:
        how = await comparer.compare()
    except (Away, Refused, trio.TooSlowError) as error:
        how = "failed"
        ledger.differ(Difference.PROTOCOL, f"could not be read back: {error}")
    table = progress.table(how, comparer.read)
    return Told(table, sum(ledger.differences.values()), ledger)


class Lesson:
    """One class hour of everybody: `play(name)`, as often as wanted."""

    def __init__(
        self,
        plan: Plan,
        access: Access,
        curriculum: Curriculum,
        *,
        ledger: Ledger,
        progress: Progress,
        clock: Clock,
        random: Random,
    ) -> None:
        self._plan = plan
        self._access = access
        self._curriculum = curriculum
        self._ledger = ledger
        self._progress = progress
        self._clock = clock
        self._random = random
        self._people = make_people(plan, random)

    async def play(self, name: str) -> None:
        """Let everybody play at once; return when the last one has logged out."""
        # The lesson ends now: whatever the speed, no event comes from the future.
        begins = self._clock.now() - timedelta(minutes=self._plan.lesson_minutes)
        async with trio.open_nursery() as nursery:
            for number, person in enumerate(self._people):
                player = self._player(person, f"{name}-{number:x}", begins)
                nursery.start_soon(_count, player, self._progress)

    def _player(self, person: Person, name: str, begins: datetime) -> Player:
        chance = Random(f"{self._random.random()} {person.user_id}")  # noqa: S311 - a game
        script = Script(
            person,
            self._plan,
            self._curriculum,
            random=chance,
            begins=begins,
            name=name,
            as_users=self._access.as_users,
        )
        return Player(
            person,
            script,
            self._plan,
            self._access,
            ledger=self._ledger,
            watcher=self._progress,
            clock=self._clock,
            random=chance,
        )


async def _count(player: Player, progress: Progress) -> None:
    progress.playing += 1
    try:
        await player.play()
    finally:
        progress.playing -= 1


async def _end_at(stop: trio.Event, scope: trio.CancelScope) -> None:
    await stop.wait()
    scope.cancel()
