"""The stored body of an event: the very JSON line that a reader gets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Raw, Struct

from mlc_broker.model.event import EMPTY, Event, Facts, rfc3339
from mlc_broker.store.columns import EPOCH, FactCodes, RowWriter, epoch_ms


class _Head(Struct, omit_defaults=True, gc=False):
    """What the broker knows of an event, as readers see it under `meta`: the first fields."""

    received_at: str | None = None
    stored_at: str | None = None


class _Rest(Struct, omit_defaults=True, gc=False):
    """The other fields under `meta`: never nothing, for the rate is always told."""

    sample_rate: float | None = None  # None never leaves: so 1.0 is written
    client_timestamp: str | None = None
    role: str | None = None
    class_ids: tuple[str, ...] = ()
    teacher_ids: tuple[str, ...] = ()
    subscription: str | None = None
    age_band: str | None = None
    consented: bool = False
    generic: bool = False
    impersonated: bool = False
    concepts: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    retention: str = "standard"
    derived_from: str | None = None


class Line(Struct, omit_defaults=True, gc=False):
    """A stored line before it is encoded."""

    event_id: str
    event_type: str
    timestamp: str
    meta: Raw
    user_id: str | None = None
    session_id: str | None = None
    organization_id: str | None = None
    device_info: Raw = EMPTY
    context: Raw = EMPTY
    properties: Raw | None = None
    privacy_level: str | None = None
    retention_days: int | None = None


class _ReadLine(Struct, gc=False):
    """A line as `event_of` takes it apart: times as they are, open parts untouched."""

    event_id: str
    event_type: str
    timestamp: datetime
    meta: _ReadMeta
    user_id: str | None = None
    session_id: str | None = None
    organization_id: str | None = None
    device_info: Raw = EMPTY
    context: Raw = EMPTY
    properties: Raw = EMPTY
    privacy_level: str | None = None
    retention_days: int | None = None


class _ReadMeta(Facts, frozen=True, kw_only=True, gc=False):
    stored_at: datetime | None = None


# Formatting numbers costs five times what these tables do.
_SECONDS = [f"{n:02d}." for n in range(60)]
_MILLIS = [f"{n:03d}Z" for n in range(1000)]
_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
_decode = msgspec.json.Decoder().decode
_read = msgspec.json.Decoder(_ReadLine).decode


class LineWriter:
    """Makes the lines of one commit; what is the same for many of its events is made once."""

    def __init__(self, stored_at: str) -> None:
        self.stored_at = stored_at
        self._received: tuple[object, bytes] = (self, b"")  # whose head it is, and the head

    def line(self, event: Event, timestamp_ms: int, meta: Raw) -> Line:
        """Return the event, ready to be encoded."""
        minute, ms = divmod(timestamp_ms, 60_000)
        return Line(
            event.event_id,
            event.event_type,
            (_minutes.get(minute) or _minute(minute)) + _SECONDS[ms // 1000] + _MILLIS[ms % 1000],
            meta,
            event.user_id,
            event.session_id,
            event.organization_id,
            event.device_json,
            event.context_json,
            event.properties_json,
            event.privacy_level,
            event.facts.retention_days or event.retention_days,
        )

    def meta(self, facts: Facts, rest: bytes) -> Raw:
        """Return what stands under `meta` of the events with these facts; `rest`: see FactWriter."""
        received = facts.received_at
        if received is not self._received[0]:
            head = _encode(_Head(_time(received), self.stored_at))
            self._received = (received, head[:-1] + b",")
        return Raw(self._received[1] + rest)


class FactWriter:
    """What facts say in a row and in a line, but for the times of their submission.

    Those of one person are mostly the same from one submission to the next: so they are remembered.
    """

    def __init__(self, rows: RowWriter) -> None:
        self._rows = rows
        self._known: dict[tuple[object, ...], tuple[FactCodes, bytes]] = {}

    def of(self, facts: Facts) -> tuple[FactCodes, bytes]:
        """Return the codes of a row, and the rest of `meta` behind the times of the submission."""
        key = _lasting_facts(facts)
        known = self._known.get(key)
        if known is None:
            known = (self._rows.facts(facts), rest_of(facts))
            if facts.client_timestamp is not None:
                return known  # nobody else has the same
            if len(self._known) >= _FACTS_MAX:
                self._known.clear()
            self._known[key] = known
        return known


def rest_of(facts: Facts) -> bytes:
    """Return `meta` behind its first fields, its brace at the end included."""
    rest = _Rest(facts.sample_rate, _time(facts.client_timestamp), *_plain_facts(facts))
    return _encode(rest)[1:]


def encode_lines(lines: Sequence[Line]) -> bytes:
    """Return one line of JSON an event, each with its end."""
    return _encode_lines(lines)


def encode_line(event: Event, stored_at: str) -> bytes:
    """Return the event as one line of JSON without its end; `stored_at` as `rfc3339` writes it."""
    writer = LineWriter(stored_at)
    return _encode(
        writer.line(event, epoch_ms(event), writer.meta(event.facts, rest_of(event.facts)))
    )


def decode_line(line: bytes) -> dict[str, Any]:
    """Return the line as readers see it."""
    value: dict[str, Any] = _decode(line)
    return value


def event_of(line: bytes) -> Event:
    """Return the event that the line was written from, its facts included."""
    read = _read(line)
    meta = read.meta
    facts = Facts(
        **{name: getattr(meta, name) for name in _FACT_NAMES},
        retention_days=read.retention_days or 0,
    )
    return Event(
        event_id=read.event_id,
        event_type=read.event_type,
        timestamp=read.timestamp,
        user_id=read.user_id,
        session_id=read.session_id,
        organization_id=read.organization_id,
        device_json=read.device_info,
        context_json=read.context,
        properties_json=read.properties,
        privacy_level=read.privacy_level,  # type: ignore[arg-type]
        retention_days=read.retention_days,
        facts=facts,
    )


_FACT_NAMES = [name for name in Facts.__struct_fields__ if name != "retention_days"]
_plain_facts = attrgetter(*_Rest.__struct_fields__[2:])  # as they are, in this order
_lasting_facts = attrgetter(
    *(name for name in _FACT_NAMES if name not in ("received_at", "sent_at")), "retention_days"
)
_FACTS_MAX = 10_000  # about half a kilobyte each


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


_MINUTES_MAX = 20_000  # two weeks of remembered prefixes
_minutes: dict[int, str] = {}


def _minute(minute: int) -> str:
    # datetime.isoformat costs more than all the rest of a line.
    if len(_minutes) >= _MINUTES_MAX:
        _minutes.clear()
    text = _minutes[minute] = (EPOCH + timedelta(minutes=minute)).isoformat()[:17]
    return text
