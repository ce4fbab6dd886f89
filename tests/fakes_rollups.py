"""A store with rollups beside it, and events of a school to count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import trio

from mlc_broker.model.catalog import Catalog
from mlc_broker.model.event import Event, Facts
from mlc_broker.model.metrics import STANDARD
from mlc_broker.model.principal import EVERYTHING
from mlc_broker.store.rollups import Rollups
from mlc_broker.store.rollups_recount import Recount
from mlc_broker.store.store import Limits, Store
from tests.fakes_store import LESSON, SetClock, inline

CATEGORIES = {name: kind.category for name, kind in Catalog.standard().types.items()}
ZONE = "Europe/Berlin"
STAGES = ("learn", "play", "quiz", "challenge", "review")


@asynccontextmanager
async def counted(
    path: Path,
    clock: SetClock | None = None,
    metrics: Any = STANDARD,
    *,
    clerk_events_per_second: float = inf,
    **limits: Any,
) -> AsyncIterator[tuple[Store, Rollups]]:
    """Give an open store whose commits are counted."""
    clock = clock or SetClock()
    store = await Store.open(
        path, categories=CATEGORIES.get, limits=Limits(**limits), clock=clock, in_thread=inline
    )
    rollups = Rollups(
        path / "rollups.db",
        store,
        metrics,
        categories=CATEGORIES.get,
        zone_of=lambda _: ZONE,
        clock=clock,
        hidden=lambda: store.files.hidden,
        in_thread=inline,
        clerk_events_per_second=clerk_events_per_second,
    )
    await rollups.open()
    kinds = Catalog.standard().types.items()
    rollups.note_kinds((n, k.category, getattr(k, "group", "") == "Errors") for n, k in kinds)
    store.on_commit = rollups.note
    store.keep_from = rollups.keep_from
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store, rollups
        store.stop()
    await rollups.close()
    await store.close()


async def drift(store: Store, rollups: Rollups) -> list[str]:
    """Return how the cells differ from a recount: not at all, if all is well."""
    found = await check(store, rollups)
    return found.differences


async def check(store: Store, rollups: Rollups) -> Recount:
    def views() -> Any:
        wanted = store.select(EVERYTHING)
        return store.views(wanted), wanted

    return await rollups.check(views, lambda _: None)


def some_event(chance: Random, number: int, at: datetime = LESSON) -> Event:
    """Return event `number` of a school's life: any of the types that metrics look into."""
    user = f"stu_{chance.randrange(6)}"
    kind = chance.choice(
        (
            "game_stage_start", "game_stage_complete", "game_stage_complete", "game_stage_quit",
            "assignment_started", "assignment_completed", "concept_mastered", "review_scheduled",
            "retention_check", "challenge_completed", "page_view", "page_load_time",
            "javascript_error", "user_login",
        )
    )  # fmt: skip
    properties: dict[str, Any] = {"game_id": f"G-{chance.randrange(4)}"}
    properties["stage_type"] = chance.choice(STAGES)
    if kind.startswith("game_stage"):
        properties |= {"score": chance.randrange(100), "run_id": f"run_{chance.randrange(40)}"}
        properties |= {"passed": chance.random() < 0.5, "duration_ms": chance.randrange(9_000)}
    if kind == "concept_mastered":
        properties |= {"concept_tags": ["a", "b"][: chance.randrange(1, 3)]}
        properties |= {"time_to_mastery_ms": chance.randrange(10**6)}
    if kind == "review_scheduled":
        properties["offset_days"] = chance.randrange(9)
    if kind == "page_load_time":
        properties |= {"load_time_ms": chance.random() * 3000, "page_url": "/a/17?x=1"}
    rate = chance.choice((1.0, 0.1, 0.3)) if kind.startswith("page") else 1.0
    return Event(
        event_id=f"evt_{number:08d}",
        event_type=kind,
        timestamp=at - timedelta(seconds=chance.randrange(5 * 86_400)),
        user_id=user if chance.random() < 0.95 else None,
        session_id=f"sess_{user}_{chance.randrange(3)}",
        organization_id="org" if chance.random() < 0.8 else "org_2",
        facts=Facts(
            received_at=LESSON,
            sample_rate=rate,
            role=chance.choice(("student", "student", "teacher", None)),
            class_ids=(f"cls_{user}",),
            generic=chance.random() < 0.05,
            impersonated=chance.random() < 0.05,
            retention_days=chance.choice((365, 1095)),
        ),
    ).but(
        properties=properties,
        context={"assignment_id": f"asg_{chance.randrange(3)}"},
        device_info={"platform": chance.choice(("desktop", "tablet"))},
    )
