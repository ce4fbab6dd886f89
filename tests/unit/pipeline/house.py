"""Small real parts for tests of the pipeline: a roster in a dict, a store in a list."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from random import Random
from typing import Any

from mlc_broker.model.batch import DUPLICATE, STORED, Batch, Origin, Receipt
from mlc_broker.model.catalog import Catalog
from mlc_broker.model.event import Event, Facts
from mlc_broker.model.person import Organization, User
from mlc_broker.model.principal import Principal
from mlc_broker.model.verdict import Reject
from mlc_broker.pipeline.actor import Actor
from mlc_broker.pipeline.processor import Processor, Stage, Tools
from mlc_broker.runtime.supervisor import Backoff
from mlc_broker.testing import LESSON_BEGINS, FixedClock

SENDER = Principal(kind="ingest", id="key_1", organization_id="org_1")


class DictRoster:
    """People by (organization, user)."""

    def __init__(self, **users: User) -> None:
        self.users = users
        self.organizations = {"org_1": Organization(subscription="ensemble")}
        self.classes: tuple[str, ...] = ("cls_1",)
        self.denied: set[tuple[str, str]] = set()
        self.erased_at: dict[str, datetime] = {}

    def organization(self, organization_id: str) -> Organization | None:
        return self.organizations.get(organization_id)

    def user(self, organization_id: str, user_id: str) -> User | None:
        return self.users.get(user_id)

    def membership(
        self, organization_id: str, user_id: str, at: datetime
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.classes, ("usr_teacher",)

    def collects(self, organization_id: str, user_id: str, category: str) -> bool:
        return (user_id, category) not in self.denied

    def erased(self, organization_id: str, user_id: str, at: datetime) -> bool:
        return (erased_at := self.erased_at.get(user_id)) is not None and at <= erased_at


class ListStore:
    """Keeps what is pending, as the real store answers."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}

    async def append(self, batch: Batch) -> None:
        for position in batch.pending:
            event = batch.events[position]
            assert event is not None
            known = event.event_id in self.events
            self.events.setdefault(event.event_id, event)
            batch.settle(position, DUPLICATE if known else STORED)


class ListQuarantine:
    """Keeps what is refused, unless told not to."""

    def __init__(self) -> None:
        self.kept: list[tuple[Event, Receipt]] = []
        self.full = False

    async def keep(self, batch: Batch, refused: Sequence[tuple[Event, Receipt]]) -> bool:
        if not self.full:
            self.kept += refused
        return not self.full


def tools(roster: DictRoster | None = None) -> Tools:
    return Tools(
        clock=FixedClock(LESSON_BEGINS),
        random=Random(0),
        roster=roster or DictRoster(),
        catalog=Catalog.standard(),
        emit=lambda _: None,
    )


def actor(kind: type[Processor], settings: Any = None, **changes: Any) -> Actor:
    made = settings if settings is not None else kind.Settings()
    options: dict[str, Any] = {
        "name": kind.name,
        "stage": kind.stage,
        "on_failure": "skip" if kind.stage == Stage.EXTEND else "hold",
        "seconds_max": 5.0,
        "backoff": Backoff(Random(0)),
    }
    made_tools = changes.pop("tools", None) or tools()
    return Actor(lambda: kind(made, made_tools), **(options | changes))


def batch(*events: Event | Reject, sender: Principal = SENDER) -> Batch:
    facts = Facts(received_at=LESSON_BEGINS)
    stamped = [e.but(facts=facts) if isinstance(e, Event) else e for e in events]
    return Batch(Origin(principal=sender, received_at=LESSON_BEGINS), stamped)
