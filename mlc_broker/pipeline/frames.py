"""What crosses the pipe between the daemon and a plugin's own process: msgpack, length first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from mlc_broker.model.event import Event, Facts, Privacy
from mlc_broker.model.person import Organization, User
from mlc_broker.model.verdict import Drop, Reject, Verdict


class Parcel(Struct, frozen=True, array_like=True, gc=False):
    """An event on the pipe: its open parts are bytes there."""

    event_id: str
    event_type: str
    timestamp: datetime
    user_id: str | None
    session_id: str | None
    organization_id: str | None
    device_json: bytes
    context_json: bytes
    properties_json: bytes
    privacy_level: Privacy | None
    retention_days: int | None
    facts: Facts

    @classmethod
    def of(cls, event: Event) -> Parcel:
        """Wrap an event."""
        return cls(
            event.event_id,
            event.event_type,
            event.timestamp,
            event.user_id,
            event.session_id,
            event.organization_id,
            bytes(event.device_json),
            bytes(event.context_json),
            bytes(event.properties_json),
            event.privacy_level,
            event.retention_days,
            event.facts,
        )

    def event(self) -> Event:
        """Unwrap it."""
        return Event(
            event_id=self.event_id,
            event_type=self.event_type,
            timestamp=self.timestamp,
            user_id=self.user_id,
            session_id=self.session_id,
            organization_id=self.organization_id,
            device_json=Raw(self.device_json),
            context_json=Raw(self.context_json),
            properties_json=Raw(self.properties_json),
            privacy_level=self.privacy_level,
            retention_days=self.retention_days,
            facts=self.facts,
        )


class Begin(Struct, frozen=True, tag=True):
    """The first word to the child: which plugin, with which settings, within which limits."""

    file: str  # of a plugin file; else `module`
    module: str
    kind: str  # the name that `use` gives
    settings: dict[str, Any]
    seconds_max: float
    memory_bytes_max: int
    types_path: str
    seed: int


class Work(Struct, frozen=True, tag=True):
    """Give a verdict on each of these."""

    events: list[Parcel]


class Found(Struct, frozen=True, tag=True):
    """The roster's answer."""

    organization: Organization | None = None
    user: User | None = None
    class_ids: tuple[str, ...] = ()
    teacher_ids: tuple[str, ...] = ()
    yes: bool = False


class Bye(Struct, frozen=True, tag=True):
    """Close, and end."""


class Ready(Struct, frozen=True, tag=True):
    """The plugin is loaded and open."""


class Same(Struct, frozen=True, tag=True):
    """The event passes as it is."""


class Changed(Struct, frozen=True, tag=True):
    """The event passes, changed."""

    event: Parcel


class Dropped(Struct, frozen=True, tag=True):
    """A Drop."""

    reason: str


class Rejected(Struct, frozen=True, tag=True):
    """A Reject."""

    reason: str
    detail: str


Word: TypeAlias = Same | Changed | Dropped | Rejected


class Verdicts(Struct, frozen=True, tag=True):
    """The plugin's words, what it emitted, and the time that they took in the child."""

    words: list[Word]
    emitted: list[tuple[int, Parcel]]  # each with the number of its source
    seconds: float


class Failed(Struct, frozen=True, tag=True):
    """The plugin broke."""

    what: str


class Ask(Struct, frozen=True, tag=True):
    """A question to the roster; `at` and `category` as its method takes them."""

    what: str  # organization, user, membership, collects, erased
    organization_id: str
    user_id: str = ""
    at: datetime | None = None
    category: str = ""


ToChild: TypeAlias = Begin | Work | Found | Bye
ToParent: TypeAlias = Ready | Verdicts | Failed | Ask

to_child = msgspec.msgpack.Decoder(ToChild)
to_parent = msgspec.msgpack.Decoder(ToParent)
_encoder = msgspec.msgpack.Encoder()


def encode(value: ToChild | ToParent) -> bytes:
    """Return a frame's body."""
    return _encoder.encode(value)


def words_of(events: Sequence[Event], verdicts: Sequence[Verdict]) -> list[Word]:
    """Return verdicts as the pipe carries them."""
    return [_word(event, verdict) for event, verdict in zip(events, verdicts, strict=True)]


def verdicts_of(events: Sequence[Event], words: Sequence[Word]) -> list[Verdict]:
    """Return what the words mean."""
    return [_verdict(event, word) for event, word in zip(events, words, strict=True)]


def _word(event: Event, verdict: Verdict) -> Word:
    if verdict is event:
        return Same()
    match verdict:
        case Event():
            return Changed(Parcel.of(verdict))
        case Drop(reason):
            return Dropped(reason)
        case Reject(reason, detail):
            return Rejected(reason, detail)


def _verdict(event: Event, word: Word) -> Verdict:
    match word:
        case Same():
            return event
        case Changed(parcel):
            return parcel.event()
        case Dropped(reason):
            return Drop(reason)
        case Rejected(reason, detail):
            return Reject(reason, detail)
