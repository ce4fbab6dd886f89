"""A house with real doors and real credentials, whose pipeline keeps events in a list."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlc_broker.edge.admission import Admission
from mlc_broker.edge.codec import WireLimits
from mlc_broker.edge.credentials import Credentials, TokenRules, make_token, secret_key
from mlc_broker.edge.house import House, WhatBecame
from mlc_broker.edge.keys import KeyBook, create_key
from mlc_broker.model.batch import DUPLICATE, STORED, Batch, Outcome, Receipt
from mlc_broker.model.event import Event
from mlc_broker.model.principal import Principal
from mlc_broker.runtime.clock import SystemClock

SECRET = b"s" * 32
PEPPER = b"p" * 32
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
}


class MinimalHouse:
    """The ports of `House`, kept in memory. `full` answers `retry`, `broken` raises."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.kept: dict[str, Event] = {}
        self.batches: list[Batch] = []
        self.full = self.broken = False
        self.reasons: list[str] = []
        self.keys = KeyBook(folder / "keys.db", PEPPER)
        now = datetime.now(UTC)
        self.key = create_key(
            folder / "keys.db", PEPPER, organization_id="org_1", name="n", now=now
        )
        self.anonymous = create_key(
            folder / "keys.db",
            PEPPER,
            organization_id="org_1",
            name="n",
            now=now,
            anonymous=True,
            categories=frozenset({"user_interaction"}),
        )
        clock = SystemClock()
        self.credentials = Credentials(
            self.keys,
            [secret_key(SECRET)],
            rules=TokenRules(),
            clock=clock,
            organization_known=lambda organization_id: organization_id == "org_1",
        )
        self.admission = Admission(lambda _: "user_interaction", clock)
        self.limits = changes.pop("limits", WireLimits(batch_events_max=50, body_bytes_max=100_000))
        self.house = House(
            submit=self.submit,
            credentials=self.credentials,
            admission=self.admission,
            clock=clock,
            schemas=self,
            receipts=self,
            hierarchy=self,
            readiness=lambda: self.reasons,
            health=lambda: {"durability": "power-loss"},
            version="0.0.1",
            limits=self.limits,
            **changes,
        )

    def token(self, sub: str = "usr_1", role: str = "student", seconds: int = 60) -> str:
        return make_token(
            SECRET, sub=sub, org="org_1", role=role, now=datetime.now(UTC), seconds=seconds
        )

    async def submit(self, batch: Batch) -> list[Receipt]:
        self.batches.append(batch)
        if self.broken:
            raise RuntimeError("secret words of the pipeline")
        for position in batch.pending:
            event = batch.events[position]
            assert event is not None
            if self.full:
                batch.settle(position, Receipt(Outcome.RETRY, "disk full"))
            elif event.event_id in self.kept:
                batch.settle(position, DUPLICATE)
            else:
                self.kept[event.event_id] = event
                batch.settle(position, STORED)
        return batch.answer()

    async def find(
        self, organization_id: str | None, event_id: str, principal: Principal
    ) -> WhatBecame | None:
        event = self.kept.get(event_id)
        if event is None or organization_id != event.organization_id:
            return None
        return WhatBecame(event_id=event_id, outcome=Outcome.STORED)

    def schemas(self) -> Mapping[str, dict[str, Any]]:
        return {"page_view": SCHEMA}

    def schema(self, event_type: str) -> dict[str, Any] | None:
        return SCHEMA if event_type in ("page_view", "pageView") else None

    def classes_taught_by(
        self, organization_id: str, teacher_ids: frozenset[str]
    ) -> frozenset[str]:
        return frozenset({"cls_1"})

    def teachers_managed_by(self, organization_id: str, user_id: str) -> frozenset[str]:
        return frozenset()


def event(number: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "event_id": f"evt_{number:08}",
        "event_type": "page_view",
        "timestamp": "2025-01-27T14:30:45.123Z",
        **fields,
    }
