"""Hold an event to its type, its limits and the clock; what passes is canonical JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, ClassVar, NamedTuple, cast

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from mlc_broker.model.catalog import AnyType, Context, SchemaError, check_context, check_device
from mlc_broker.model.event import EMPTY, Event, Facts, rfc3339
from mlc_broker.model.verdict import Reject, Verdict
from mlc_broker.pipeline.processor import Processor, Stage

_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class Validate(Processor):
    """Check ids, type, time and properties; correct the clock by `sent_at`.

    Decided by protocol.md, 'Clock correction' and 'Receipts'.
    """

    name = "validate"
    stage = Stage.VALIDATE
    pure: ClassVar[bool] = True

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """How far from the server's clock a time may be."""

        max_age_days: Annotated[int, Meta(ge=1)] = 90
        future_seconds_max: Annotated[float, Meta(ge=0)] = 300.0
        clock_skew_seconds_max: Annotated[float, Meta(ge=0)] = 5.0

    settings: Settings

    async def process_many(self, events: Sequence[Event]) -> Sequence[Verdict]:
        """Return each event checked, or why it can never be stored."""
        suspect = _FOREIGN.search("".join([event.event_id for event in events])) is not None
        types = self.tools.catalog.types
        window, names = _NO_WINDOW, _NO_NAMES
        sent_context, sent_device, context, device = EMPTY, EMPTY, _NO_CONTEXT, _NO_DEVICE
        verdicts: list[Verdict] = []
        # On the way of every event: calls are spared here. What a submission's events share is
        # looked at once: their receipt, whose they are, and where they come from.
        for event in events:
            facts, timestamp = event.facts, event.timestamp
            if facts is not window.facts:
                window = self._window(facts)
            ids = (event.user_id, event.session_id, event.organization_id)
            if ids != names.ids:
                names = _Names(ids, _unprintable_id(event))
            kind = types.get(event.event_type)
            if kind is None or suspect or names.unprintable:
                mistake = self._mistake(event, kind, names.unprintable)
                if mistake is not None:
                    verdicts.append(mistake)
                    continue
                kind = cast("AnyType", kind)
            if window.skew is not None:
                try:
                    timestamp += window.skew
                except OverflowError:
                    verdicts.append(Reject("schema", "timestamp and sent_at are too far apart"))
                    continue
                facts = replace(facts, client_timestamp=event.timestamp)
            if not window.begin <= timestamp <= window.end:
                verdicts.append(self._out_of_time(timestamp, window))
                continue
            try:
                checked = kind.check(event.properties_json)
                if event.context_json != sent_context:
                    context = check_context(event.context_json)
                    sent_context = event.context_json
                if event.device_json != sent_device:
                    device = check_device(event.device_json)
                    sent_device = event.device_json
                context_json = context.json
                if _ASSIGNS.get(type(checked.value), True):
                    context_json = _assigned(checked.value, context.value, context_json)
            except SchemaError as error:
                verdicts.append(Reject("schema", str(error)))
                continue
            verdicts.append(
                replace(
                    event,
                    timestamp=timestamp,
                    properties_json=checked.json,
                    context_json=context_json,
                    device_json=device.json,
                    facts=facts,
                )
            )
        return verdicts

    def _window(self, facts: Facts) -> _Window:
        """Return when events of these facts may have happened, by the server's clock."""
        received_at = facts.received_at or self.tools.clock.now()
        skew = None
        if facts.sent_at is not None and facts.client_timestamp is None:
            skew = received_at - facts.sent_at
            if abs(skew.total_seconds()) <= self.settings.clock_skew_seconds_max:
                skew = None
        return _Window(
            facts,
            received_at - timedelta(days=self.settings.max_age_days),
            received_at + timedelta(seconds=self.settings.future_seconds_max),
            skew,
        )

    def _mistake(self, event: Event, kind: AnyType | None, unprintable: str) -> Reject | None:
        if kind is None:
            return Reject(
                "unknown_type",
                f'there is no event type "{event.event_type[:64]}"; GET /v1/schemas lists them',
            )
        if _FOREIGN.search(event.event_id):
            return Reject("schema", "event_id has characters other than A-Z a-z 0-9 _ -")
        if unprintable:
            return Reject("schema", f"{unprintable} has a control character")
        return None

    def _out_of_time(self, timestamp: datetime, window: _Window) -> Reject:
        if timestamp > window.end:
            return Reject(
                "timestamp_future",
                f"{rfc3339(timestamp)} is more than {self.settings.future_seconds_max:g} s ahead "
                f"of the server's clock",
            )
        return Reject(
            "timestamp_too_old",
            f"{rfc3339(timestamp)} is more than {self.settings.max_age_days} days ago",
        )


class _Window(NamedTuple):
    """When the events of one submission may have happened, and how wrong its clock is."""

    facts: Facts | None
    begin: datetime
    end: datetime
    skew: timedelta | None


class _Names(NamedTuple):
    """Whose an event is, and which of these names cannot be printed."""

    ids: tuple[str | None, str | None, str | None] | None
    unprintable: str


_ASSIGNS: dict[type[object], bool] = {}  # whether properties can name one: as many as types
_NO_CONTEXT, _NO_DEVICE = check_context(EMPTY), check_device(EMPTY)
_NO_WINDOW = _Window(None, datetime.min, datetime.min, None)  # noqa: DTZ901 (never compared)
_NO_NAMES = _Names(None, "")


def _unprintable_id(event: Event) -> str:
    """Return the name of an id with a control character in it, or nothing."""
    ids = f"{event.user_id}{event.session_id}{event.organization_id}"
    if ids.isprintable():
        return ""
    for name in ("user_id", "session_id", "organization_id"):
        if _UNPRINTABLE.search(getattr(event, name) or ""):
            return name
    return ""


def _assigned(properties: object, context: Context, context_json: Raw) -> Raw:
    """`context` is where an assignment and a sequence are named; properties may repeat it."""
    if type(properties) not in _ASSIGNS:
        named = hasattr(properties, "assignment_id") or hasattr(properties, "sequence_id")
        _ASSIGNS[type(properties)] = named
    assignment_id = getattr(properties, "assignment_id", None)
    sequence_id = getattr(properties, "sequence_id", None)
    if assignment_id is None and sequence_id is None:
        return context_json
    missing: dict[str, str] = {}
    for name, said, known in (
        ("assignment_id", assignment_id, context.assignment_id),
        ("sequence_id", sequence_id, context.sequence_id),
    ):
        if said is None or said == known:
            continue
        if known is not None:
            msg = f"{name} is {said!r} in properties and {known!r} in context"
            raise SchemaError(msg)
        missing[name] = said
    if not missing:
        return context_json
    return Raw(msgspec.json.encode(msgspec.json.decode(context_json) | missing))
