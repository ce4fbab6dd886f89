"""What was sent, what may become of it, and what the daemon has said about it."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from mlc_broker.model.batch import Outcome

EXAMPLES_MAX = 5


class Fate(Struct, frozen=True):
    """What may rightly become of an event: outcomes, and the reasons they may give."""

    name: str
    outcomes: frozenset[Outcome]
    reasons: frozenset[str] = frozenset()  # of a drop or a rejection; empty: none is expected

    def allows(self, outcome: Outcome, reason: str) -> bool:
        """Whether a receipt is right. `retry` always is: the event is sent again."""
        if outcome is Outcome.RETRY:
            return True
        if outcome not in self.outcomes:
            return False
        plain = outcome in {Outcome.STORED, Outcome.DUPLICATE}
        return plain or not self.reasons or reason in self.reasons


KEPT = Fate("kept", frozenset({Outcome.STORED}))
SAMPLED = Fate(
    "sampled", frozenset({Outcome.STORED, Outcome.DROPPED}), frozenset({"sampled", "consent"})
)
CONSENTED = Fate("consented", frozenset({Outcome.STORED, Outcome.DROPPED}), frozenset({"consent"}))


def rejected(*reasons: str) -> Fate:
    """Return the fate of a bad event."""
    return Fate(f"rejected {reasons[0]}", frozenset({Outcome.REJECTED}), frozenset(reasons))


class Difference(StrEnum):
    """What can be wrong at the end."""

    LOST = "acknowledged as stored, but not there"
    TWICE = "there more than once"
    STRANGER = "there, but never sent"
    UNDEAD = "there, although rejected or dropped"
    CHANGED = "there, but not as it was sent"
    WRONG_RECEIPT = "a receipt that it should not have"
    UNANSWERED = "sent, but never answered"
    GIVEN_UP = "told to retry until the tries were over"
    PROTOCOL = "an answer that breaks the protocol"


class Sent(Struct, kw_only=True):
    """One event on its way: the wire's form of it, and what is known of it."""

    event: Any  # a dict; a bad event may be anything
    event_id: str | None  # None: it has no id that could be looked up
    fate: Fate
    at: datetime | None = None  # its true time
    outcome: Outcome | None = None
    reason: str = ""
    sent: int = 0  # times
    copy: bool = False  # sent again on purpose: a duplicate, or dropped again
    found: int = 0  # times in the store

    @property
    def essence(self) -> tuple[Any, Any, Any]:
        """What must come back unchanged: type, user, score."""
        return essence(self.event)


def essence(event: Any) -> tuple[Any, Any, Any]:
    """Return type, user and score of an event in the wire's form."""
    if not isinstance(event, dict):
        return None, None, None
    properties = event.get("properties")
    score = properties.get("score") if isinstance(properties, dict) else None
    return event.get("event_type"), event.get("user_id"), score


class Ledger:
    """Every event of a run, up to `events_max`; those beyond are checked by receipt alone."""

    def __init__(self, *, events_max: int = 1_000_000) -> None:
        self.events: dict[str, Sent] = {}
        self.answered: Counter[str] = Counter()  # outcome, or outcome and reason → receipts
        self.differences: Counter[Difference] = Counter()
        self.examples: dict[Difference, list[str]] = {}
        self.beyond = 0  # events that were not kept for comparison
        self.sent = 0  # events, each time they were sent
        self._events_max = events_max

    def expect(self, sent: Sent) -> None:
        """Remember an event before it is sent."""
        if sent.event_id is None or sent.copy:
            return
        if len(self.events) >= self._events_max:
            self.beyond += 1
            return
        self.events[sent.event_id] = sent

    def leave(self, sent: Sent) -> None:
        """Count one sending of an event."""
        sent.sent += 1
        self.sent += 1

    def receive(self, sent: Sent, outcome: Outcome, reason: str = "", detail: str = "") -> None:
        """Take the daemon's word on one event, and judge it."""
        self.answered[f"{outcome} {reason}".strip()] += 1
        again = sent.copy or sent.sent > 1
        right = sent.fate.allows(outcome, reason) or (
            outcome is Outcome.DUPLICATE and again and Outcome.STORED in sent.fate.outcomes
        )
        if sent.copy and outcome is Outcome.STORED and self._is_settled(sent.event_id):
            right = False
        if not right:
            self.differ(
                Difference.WRONG_RECEIPT,
                f"{sent.event_id} ({essence(sent.event)[0]}, {sent.fate.name}): "
                f"{outcome} {reason} {detail}".rstrip(),
            )
        if outcome is Outcome.RETRY and sent.outcome is not None:
            return
        sent.outcome, sent.reason = outcome, reason

    def differ(self, difference: Difference, example: str) -> None:
        """Count a difference and keep the first few examples of its kind."""
        self.differences[difference] += 1
        examples = self.examples.setdefault(difference, [])
        if len(examples) < EXAMPLES_MAX:
            examples.append(example[:300])

    def _is_settled(self, event_id: str | None) -> bool:
        first = self.events.get(event_id or "")
        return first is not None and first.outcome in _SETTLED


_SETTLED = {Outcome.STORED, Outcome.DUPLICATE, Outcome.DROPPED}
