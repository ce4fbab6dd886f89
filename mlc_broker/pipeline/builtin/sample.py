"""Keep a known share of what comes in great numbers; never of what a person did or learnt."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from mlc_broker.model.catalog import Sampling
from mlc_broker.model.event import Event
from mlc_broker.model.verdict import Drop, Verdict
from mlc_broker.pipeline.processor import Processor, Stage

Rate = Annotated[float, Meta(ge=0.0, le=1.0)]

_PRODUCTION = {"performance": 0.10, "high_volume": 0.01}
_STAGING = {"performance": 1.0, "high_volume": 1.0}

_type_of = attrgetter("event_type")


class Sample(Processor):
    """Sample by a hash of the event's id, so that a resent event meets the same fate."""

    name = "sample"
    stage = Stage.SAMPLE
    pure: ClassVar[bool] = True

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """Shares kept, 0 to 1: by sampling class, and by game for the types that are sampled."""

        environment: Literal["production", "staging", "development"] = "production"
        rates: dict[Literal["performance", "high_volume"], Rate] = {}
        games: dict[str, Rate] = {}

    settings: Settings

    async def process_many(self, events: Sequence[Event]) -> Sequence[Verdict]:
        """Return each event, with the rate it was kept at, or its Drop."""
        types = self.tools.catalog.types
        if all(types[name].sampling == "never" for name in set(map(_type_of, events))):
            return events
        return [
            event if sampling == "never" else self._sample(event, sampling)
            for event in events
            for sampling in (types[event.event_type].sampling,)
        ]

    def _sample(self, event: Event, sampling: Sampling) -> Verdict:
        production = self.settings.environment == "production"
        if sampling == "debug":
            return Drop("environment") if production else event
        usual = (_PRODUCTION if production else _STAGING)[sampling]
        rates: dict[str, float] = {str(name): rate for name, rate in self.settings.rates.items()}
        rate = rates.get(sampling, usual)
        if self.settings.games:
            rate = self.settings.games.get(str(event.properties.get("game_id")), rate)
        if rate >= 1.0:
            return event
        if share(event.event_id) >= rate:
            return Drop("sampled")
        return replace(event, facts=replace(event.facts, sample_rate=rate))


def share(event_id: str) -> float:
    """Return a number from 0 up to 1 that is always the same for an id and evenly spread."""
    mixed = (zlib.crc32(event_id.encode()) * 0x9E3779B1) & 0xFFFFFFFF
    return ((mixed ^ (mixed >> 15)) & 0xFFFFFFFF) / 0x1_0000_0000
