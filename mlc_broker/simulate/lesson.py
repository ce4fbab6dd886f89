"""A lesson from the first login to the comparison: `await give(...)`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
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
    people = make_people(plan, random)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_at, stop, nursery.cancel_scope)
        nursery.start_soon(lambda: show(progress, say, every_seconds=say_every_seconds))
        number = 0
        while True:
            name = f"{plan.run}-{number:x}"
            await _play_all(name, people, plan, access, curriculum, ledger, progress, clock, random)
            number += 1
            if not forever:
                break
        nursery.cancel_scope.cancel()
    comparer = Comparer(
        ledger, access, organization_id=plan.organization_id, run=plan.run
    )
    try:
        how = await comparer.compare()
    except (Away, Refused, trio.TooSlowError) as error:
        how = "failed"
        ledger.differ(Difference.PROTOCOL, f"could not be read back: {error}")
    table = progress.table(how, comparer.read)
    return Told(table, sum(ledger.differences.values()), ledger)


async def _play_all(
    name: str,
    people: list[Person],
    plan: Plan,
    access: Access,
    curriculum: Curriculum,
    ledger: Ledger,
    progress: Progress,
    clock: Clock,
    random: Random,
) -> None:
    # The lesson ends now: whatever the speed, no event comes from the future.
    begins = clock.now() - timedelta(minutes=plan.lesson_minutes)
    async with trio.open_nursery() as nursery:
        for number, person in enumerate(people):
            chance = Random(f"{plan.seed} {random.random()} {number}")
            script = Script(
                person,
                plan,
                curriculum,
                random=chance,
                begins=begins,
                name=f"{name}-{number:x}",
                as_users=access.as_users,
            )
            player = Player(
                person,
                script,
                plan,
                access,
                ledger=ledger,
                watcher=progress,
                clock=clock,
                random=chance,
            )
            nursery.start_soon(_count, player, progress)


async def _count(player: Player, progress: Progress) -> None:
    progress.playing += 1
    try:
        await player.play()
    finally:
        progress.playing -= 1


async def _end_at(stop: trio.Event, scope: trio.CancelScope) -> None:
    await stop.wait()
    scope.cancel()
