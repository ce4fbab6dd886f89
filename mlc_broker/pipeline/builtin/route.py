"""Name the streams that an event also belongs to: realtime, alerts, whatever sinks ask for."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from msgspec import Struct, field
from msgspec.structs import replace

from mlc_broker.model.event import Event, Facts
from mlc_broker.model.verdict import Verdict
from mlc_broker.pipeline.processor import Processor, Stage, Tools

DEFAULT_STREAMS = {
    "realtime": ["target_met", "concept_mastered", "game_stage_complete", "leaderboard_update"],
    "alerts": ["*_error"],
}


class Route(Processor):
    """Match event types against the patterns of each stream."""

    name = "route"
    stage = Stage.ROUTE
    pure: ClassVar[bool] = True

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """The streams: a name, and the types (`*` stands for anything) that go there."""

        streams: dict[str, list[str]] = field(default_factory=lambda: dict(DEFAULT_STREAMS))

    settings: Settings

    def __init__(self, settings: Any, tools: Tools) -> None:
        super().__init__(settings, tools)
        self._streams = {name: self._matching(name) for name in tools.catalog.types}

    async def process_many(self, events: Sequence[Event]) -> Sequence[Verdict]:
        """Return the events with their streams named."""
        named: dict[tuple[int, str], Facts] = {}  # events of one submission share their facts
        verdicts: list[Verdict] = []
        for event in events:
            streams = self._streams[event.event_type]
            if streams:
                key = (id(event.facts), event.event_type)
                facts = named.get(key)
                if facts is None:
                    facts = named[key] = replace(event.facts, streams=streams)
                verdicts.append(replace(event, facts=facts))
            else:
                verdicts.append(event)
        return verdicts

    def _matching(self, event_type: str) -> tuple[str, ...]:
        return tuple(
            sorted(
                stream
                for stream, patterns in self.settings.streams.items()
                if any(fnmatchcase(event_type, pattern) for pattern in patterns)
            )
        )
