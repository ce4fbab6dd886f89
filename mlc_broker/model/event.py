"""An event: what a client reports, and what the broker itself knows about it.

The three open parts of an event (`device_info`, `context`, `properties`) travel as the JSON bytes
that were validated and re-encoded once, and are decoded only for whoever looks.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta, Raw, Struct

Privacy = Literal["standard", "sensitive", "pii"]
Retention = Literal["standard", "sensitive", "pii", "system"]
Moment = Annotated[datetime, Meta(tz=True)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
EventId = Annotated[str, Meta(min_length=8, max_length=64)]
Id = Annotated[str, Meta(min_length=1, max_length=128)]

EMPTY = Raw(b"{}")


class Facts(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the broker itself knows. A client cannot set these: admission overwrites them."""

    received_at: datetime | None = None
    sent_at: datetime | None = None  # by the sender's clock, as the submission says
    client_timestamp: datetime | None = None  # the sender's own, when its clock was corrected
    sample_rate: float = 1.0
    role: str | None = None  # of the user, by the roster
    class_ids: tuple[str, ...] = ()  # of the user, at the time of the event, sorted
    teacher_ids: tuple[str, ...] = ()  # who teach those classes, sorted
    subscription: str | None = None
    age_band: str | None = None  # under_13, 13_to_15, 16_plus; None: unknown
    consented: bool = False  # a parent's or the school's consent is on file
    generic: bool = False  # a shared login: not an individual
    impersonated: bool = False
    concepts: tuple[str, ...] = ()  # of the game, by the games registry
    streams: tuple[str, ...] = ()
    retention: Retention = "standard"
    retention_days: int = 0
    derived_from: str | None = None  # the event that made a processor emit this one


NO_FACTS = Facts()


class Event(
    Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    gc=False,
    forbid_unknown_fields=True,
    rename={
        "device_json": "device_info",
        "context_json": "context",
        "properties_json": "properties",
        "facts": "(facts)",  # `facts` from outside is an unknown field; admission overwrites this
    },
):
    """One event. Frozen: a change is a new event, so nobody spoils what a neighbour holds."""

    event_id: EventId
    event_type: str
    timestamp: Moment
    user_id: Id | None = None
    session_id: Id | None = None
    organization_id: Id | None = None
    device_json: Raw = EMPTY
    context_json: Raw = EMPTY
    properties_json: Raw = EMPTY
    privacy_level: Privacy | None = None
    retention_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    facts: Facts = NO_FACTS

    @property
    def properties(self) -> dict[str, Any]:
        """The properties, decoded anew at each call: change a copy, then `but(properties=…)`."""
        return _as_dict(self.properties_json)

    @property
    def context(self) -> dict[str, Any]:
        """The context: page, assignment, sequence, class, teacher, experiments."""
        return _as_dict(self.context_json)

    @property
    def device_info(self) -> dict[str, Any]:
        """The device: user agent, platform, browser, version, screen, time zone."""
        return _as_dict(self.device_json)

    def but(self, **changes: Any) -> Self:
        """Return the same event, but with changes.

        `properties`, `context` and `device_info` are given as dicts.
        """
        for name, field in _OPEN_PARTS.items():
            if name in changes:
                changes[field] = Raw(msgspec.json.encode(changes.pop(name)))
        return msgspec.structs.replace(self, **changes)


_OPEN_PARTS = {
    "properties": "properties_json",
    "context": "context_json",
    "device_info": "device_json",
}


def _as_dict(raw: Raw) -> dict[str, Any]:
    value = msgspec.json.decode(raw)
    return value if isinstance(value, dict) else {}


def rfc3339(moment: datetime) -> str:
    """Return `moment` as the wire writes it: UTC, `Z`, milliseconds."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"
