"""Bad events on purpose: one maker for each kind of rejection, with the reasons it may give."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any

import msgspec

from mlc_broker.model.event import rfc3339
from mlc_broker.simulate.ledger import Sent, rejected

Spoil = Callable[[dict[str, Any]], Any]


def bad_event(good: Sent, random: Random, *, as_users: bool) -> Sent:
    """Return a spoilt copy of a good event, and what it must be rejected for."""
    kinds = KINDS if as_users else [kind for kind in KINDS if not kind[2]]
    spoil, reasons, _ = random.choice(kinds)
    event = spoil(msgspec.to_builtins(good.event))
    event_id = event.get("event_id") if isinstance(event, dict) else None
    whole = isinstance(event_id, str) and len(event_id) >= 8
    return Sent(event=event, event_id=event_id if whole else None, fate=rejected(*reasons))


def _shift(event: dict[str, Any], **by: float) -> dict[str, Any]:
    at = datetime.fromisoformat(event["timestamp"]) + timedelta(**by)
    return event | {"timestamp": rfc3339(at)}


def _without(event: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != name}


def _score(event: dict[str, Any], score: Any) -> dict[str, Any]:
    return event | {"properties": event["properties"] | {"score": score}}


def _two_minds(event: dict[str, Any]) -> dict[str, Any]:
    """Context and properties name different assignments: see the decisions on contradictions."""
    return event | {
        "context": event["context"] | {"assignment_id": "asg_here"},
        "properties": event["properties"] | {"assignment_id": "asg_there"},
    }


# how to spoil it, the reasons it may be rejected for, whether only a user token is refused
KINDS: list[tuple[Spoil, tuple[str, ...], bool]] = [
    (lambda event: 42, ("malformed",), False),  # noqa: ARG005 - every spoiler takes the event
    (lambda event: _without(event, "timestamp"), ("malformed", "schema"), False),
    (lambda event: event | {"event_id": "short"}, ("malformed", "schema"), False),
    (lambda event: event | {"shoe_size": 42}, ("malformed", "schema"), False),
    (lambda event: event | {"timestamp": "yesterday"}, ("malformed", "schema"), False),
    (lambda event: event | {"event_type": "game_stage_exploded"}, ("unknown_type",), False),
    (lambda event: _score(event, 11), ("schema",), False),
    (lambda event: _score(event, "eleven"), ("schema", "malformed"), False),
    (_two_minds, ("schema",), False),
    (lambda event: _shift(event, days=2), ("timestamp_future",), False),
    (lambda event: _shift(event, days=-400), ("timestamp_too_old",), False),
    (lambda event: event | {"organization_id": "org_elsewhere"}, ("forbidden",), False),
    (lambda event: event | {"user_id": "usr_somebody_else"}, ("forbidden",), True),
]
