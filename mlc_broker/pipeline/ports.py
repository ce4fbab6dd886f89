"""What the pipeline needs from the floors above it, by shape: `broker.py` hands in what fits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from mlc_broker.model.batch import Batch, Receipt
from mlc_broker.model.event import Event
from mlc_broker.model.person import Organization, User


class Keep(Protocol):
    """Where events are kept: settles every pending event of the batch, after the commit."""

    async def append(self, batch: Batch) -> None:
        """Store what is pending: `stored`, `duplicate`, or `retry` when it cannot be stored now."""


class Quarantine(Protocol):
    """Where rejected events go for a week, and those that broke a processor, sealed."""

    async def keep(self, batch: Batch, refused: Sequence[tuple[Event, Receipt]]) -> bool:
        """Keep these, and the batch's `originals`; False when they cannot be kept now."""


class Roster(Protocol):
    """Who people are, in memory: no call blocks."""

    def organization(self, organization_id: str) -> Organization | None:
        """Return the organization's record."""

    def user(self, organization_id: str, user_id: str) -> User | None:
        """Return the person's record."""

    def membership(
        self, organization_id: str, user_id: str, at: datetime
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the ids of the user's classes at that time, and of those who teach them; sorted."""

    def collects(self, organization_id: str, user_id: str, category: str) -> bool:
        """Say whether events of this category may be collected about this person."""

    def erased(self, organization_id: str, user_id: str, at: datetime) -> bool:
        """Say whether an event of that time is of somebody who was erased since."""


class Watcher(Protocol):
    """Who wants to know what was committed."""

    def committed(self, events: Sequence[Event]) -> None:
        """Take note of committed events; must not block."""
