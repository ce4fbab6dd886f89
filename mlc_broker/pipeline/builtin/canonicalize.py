"""One spelling for one thing: types by their registered name, times in UTC, nulls left out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import ClassVar

from msgspec.structs import replace

from mlc_broker.model.event import EMPTY, Event
from mlc_broker.model.verdict import Verdict
from mlc_broker.pipeline.processor import Processor, Stage


class Canonicalize(Processor):
    """Turn aliases, camelCase and dotted names into the registered type; offsets into UTC."""

    name = "canonicalize"
    stage = Stage.CANONICALIZE
    pure: ClassVar[bool] = True

    async def process_many(self, events: Sequence[Event]) -> Sequence[Verdict]:
        """Return the events in canonical form; what is unknown is left for `validate` to say."""
        types = self.tools.catalog.types
        return [
            event
            if event.event_type in types and event.timestamp.tzinfo is UTC
            else self._canonical(event)
            for event in events
        ]

    def _canonical(self, event: Event) -> Event:
        known = self.tools.catalog.resolve(event.event_type)
        try:
            timestamp = event.timestamp.astimezone(UTC)
        except OverflowError:  # year 1 or 9999 with an offset: out of bounds for `validate` anyway
            timestamp = event.timestamp.replace(tzinfo=UTC)
        return replace(
            event,
            event_type=known.name if known is not None else event.event_type,
            timestamp=timestamp,
        )


def absent(raw: bytes) -> bool:
    """Say whether an open part was left out: missing, null or empty mean the same."""
    return raw in (b"{}", b"null", b"") or raw is EMPTY
