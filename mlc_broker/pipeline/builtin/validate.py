"""Hold an event to its type, its limits and the clock; what passes is canonical JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from mlc_broker.model.catalog import AnyType, SchemaError, check_context, check_device
from mlc_broker.model.event import Event, Facts, rfc3339
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
        return [
            self._check(event, types.get(event.event_type), suspect=suspect) for event in events
        ]

    def _check(self, event: Event, kind: AnyType | None, *, suspect: bool) -> Verdict:
        if kind is None:
            return Reject(
                "unknown_type",
                f'there is no event type "{event.event_type[:64]}"; GET /v1/schemas lists them',
            )
        if suspect and _FOREIGN.search(event.event_id):
            return Reject("schema", "event_id has characters other than A-Z a-z 0-9 _ -")
        unprintable = _unprintable_id(event)
        if unprintable:
            return Reject("schema", f"{unprintable} has a control character")
        moment = self._moment(event)
        if isinstance(moment, Reject):
            return moment
        timestamp, facts = moment
        try:
            checked = kind.check(event.properties_json)
            context = check_context(event.context_json)
            device = check_device(event.device_json)
            context_json = _assigned(checked.value, context.value, context.json)
        except SchemaError as error:
            return Reject("schema", str(error))
        return replace(
            event,
            timestamp=timestamp,
            properties_json=checked.json,
            context_json=context_json,
            device_json=device.json,
            facts=facts,
        )

    def _moment(self, event: Event) -> tuple[datetime, Facts] | Reject:
        """Return the time by the server's clock, and the facts that tell of a correction."""
        timestamp, facts = event.timestamp, event.facts
        received_at = facts.received_at or self.tools.clock.now()
        if facts.sent_at is not None and facts.client_timestamp is None:
            skew = received_at - facts.sent_at
            if abs(skew.total_seconds()) > self.settings.clock_skew_seconds_max:
                try:
                    corrected = timestamp + skew
                except OverflowError:
                    return Reject("schema", "timestamp and sent_at are too far apart")
                facts = replace(facts, client_timestamp=timestamp)
                timestamp = corrected
        ahead = timestamp - received_at
        if ahead.total_seconds() > self.settings.future_seconds_max:
            return Reject(
                "timestamp_future",
                f"{rfc3339(timestamp)} is more than {self.settings.future_seconds_max:g} s ahead "
                f"of the server's clock",
            )
        if -ahead > timedelta(days=self.settings.max_age_days):
            return Reject(
                "timestamp_too_old",
                f"{rfc3339(timestamp)} is more than {self.settings.max_age_days} days ago",
            )
        return timestamp, facts


def _unprintable_id(event: Event) -> str:
    """Return the name of an id with a control character in it, or nothing."""
    ids = f"{event.user_id}{event.session_id}{event.organization_id}"
    if ids.isprintable():
        return ""
    for name in ("user_id", "session_id", "organization_id"):
        if _UNPRINTABLE.search(getattr(event, name) or ""):
            return name
    return ""


def _assigned(properties: object, context: object, context_json: Raw) -> Raw:
    """`context` is where an assignment and a sequence are named; properties may repeat it."""
    missing: dict[str, str] = {}
    for name in ("assignment_id", "sequence_id"):
        said = getattr(properties, name, None)
        if said is None:
            continue
        known = getattr(context, name, None)
        if known is None:
            missing[name] = said
        elif known != said:
            msg = f"{name} is {said!r} in properties and {known!r} in context"
            raise SchemaError(msg)
    if not missing:
        return context_json
    return Raw(msgspec.json.encode(msgspec.json.decode(context_json) | missing))
