"""What the HTTP floor needs from the rest of the house: `broker.py` hands it in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from mlc_broker.edge.admission import Admission
from mlc_broker.edge.codec import WireLimits
from mlc_broker.edge.limits import Limiter
from mlc_broker.edge.session import Authority
from mlc_broker.model.batch import Batch, Outcome, Receipt
from mlc_broker.model.principal import Hierarchy, Principal
from mlc_broker.runtime.clock import Clock


class WhatBecame(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an event: the answer of `GET /v1/receipts/{event_id}`. Times are RFC 3339."""

    event_id: str
    outcome: Outcome
    reason: str = ""
    detail: str = ""
    event_type: str | None = None
    received_at: str | None = None
    stored_at: str | None = None
    erased_at: str | None = None


class ReceiptBook(Protocol):
    """Who remembers receipts."""

    async def find(
        self, organization_id: str | None, event_id: str, principal: Principal
    ) -> WhatBecame | None:
        """Return what became of the event, if this principal may know; None: there is none."""


class Schemas(Protocol):
    """The catalogue as JSON Schema 2020-12. Looking up takes aliases too."""

    def schemas(self) -> Mapping[str, dict[str, Any]]:
        """Return the schema of every registered type."""

    def schema(self, event_type: str) -> dict[str, Any] | None:
        """Return the schema of one type; None: it is not registered."""


class House(Struct, kw_only=True):
    """The ports of the HTTP floor."""

    submit: Callable[[Batch], Awaitable[list[Receipt]]]
    credentials: Authority
    admission: Admission
    clock: Clock
    schemas: Schemas
    receipts: ReceiptBook
    hierarchy: Hierarchy
    readiness: Callable[[], list[str]]  # why not to send events now; empty: ready
    health: Callable[[], dict[str, Any]]  # what `/healthz` adds to `status`
    version: str
    limits: WireLimits = WireLimits()
    limiter: Limiter | None = None
    origins: tuple[str, ...] = ("*",)  # whose pages may call: `https://school.example`
    requests_max: int = 1_000  # in hand at once
    body_seconds_max: float = 30.0  # from the first to the last byte of a body
    retry_after_ms: int = 1_000  # what is told where nobody knows better
