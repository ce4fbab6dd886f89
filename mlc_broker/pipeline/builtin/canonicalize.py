"""One spelling for one thing: types by their registered name, times in UTC, nulls left out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from operator import attrgetter
from typing import ClassVar

from msgspec.structs import replace

from mlc_broker.model.event import Event
from mlc_broker.model.verdict import Verdict
from mlc_broker.pipeline.processor import Processor, Stage

_type_of, _zone_of = attrgetter("event_type"), attrgetter("timestamp.tzinfo")
_IN_UTC = frozenset({UTC})


class Canonicalize(Processor):
    """Turn aliases, camelCase and dotted names into the registered type; offsets into UTC."""

    name = "canonicalize"
    stage = Stage.CANONICALIZE
    pure: ClassVar[bool] = True

    async def process_many(self, events: Sequence[Event]) -> Sequence[Verdict]:
        """Return the events in canonical form; what is unknown is left for `validate` to say."""
        types = self.tools.catalog.types
        if types.keys() >= set(map(_type_of, events)) and _IN_UTC.issuperset(map(_zone_of, events)):
            return events
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
