"""Where to look first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from mlc_broker.store.columns import DAY_MS

V = TypeVar("V", bound=Any)


def month_first(event_id: str, views: Sequence[V]) -> list[V]:
    """Return files with those first that are of the time which the id itself may tell (UUIDv7)."""
    at_ms = made_at_ms(event_id)
    if at_ms is None:
        return list(views)
    return sorted(views, key=lambda view: not view.t0 - DAY_MS <= at_ms <= view.t1 + DAY_MS)


def made_at_ms(event_id: str) -> int | None:
    """Return when a UUIDv7 was made, in epoch ms; None for other ids."""
    try:
        found = UUID(event_id.removeprefix("evt_"))
    except ValueError:
        return None
    return found.int >> 80 if found.version == 7 else None
