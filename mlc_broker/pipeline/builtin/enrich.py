"""Add what the broker knows: role, class at the time of the event, subscription, retention."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, ClassVar, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from mlc_broker.model.event import Event, Facts, Privacy, Retention
from mlc_broker.model.person import User, age_band, has_parental_consent
from mlc_broker.model.principal import PERFORMANCE
from mlc_broker.model.retention import DAYS_MAX, stricter
from mlc_broker.model.verdict import Verdict
from mlc_broker.pipeline.processor import Processor, Stage, Tools


class Enrich(Processor):
    """Look people up in the roster. What a client says about itself never overrides it."""

    name = "enrich"
    stage = Stage.ENRICH
    pure: ClassVar[bool] = True

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """How long events of each class are kept here at most, where that is shorter than the law."""

        days: dict[Retention, int] = {}

    settings: Settings

    def __init__(self, settings: Any, tools: Tools) -> None:
        super().__init__(settings, tools)
        self._people: dict[tuple[object, ...], _Person] = {}

    async def process_many(self, events: Sequence[Event]) -> Sequence[Verdict]:
        """Return the events with their facts, privacy level and retention filled in."""
        rules: dict[tuple[object, ...], _Rule] = {}
        made: dict[tuple[int, int, bool], tuple[Facts, _Person]] = {}
        # Within one call the roster stands still, and a membership begins or ends at a midnight:
        # in any time zone, a quarter of an hour has one answer.
        people: dict[tuple[object, ...], _Person] = {}
        acting: dict[int, bool] = {}  # by context: these events hold them meanwhile
        shared: Facts | None = None
        verdicts: list[Verdict] = []
        for event in events:
            facts = event.facts
            if facts is not shared:  # one for the whole submission, unless a clock was corrected
                shared, made, people = facts, {}, {}
            kind = (
                event.event_type,
                event.organization_id,
                event.privacy_level,
                event.retention_days,
            )
            rule = rules.get(kind) or rules.setdefault(kind, self._rule(event))
            at = event.timestamp
            who = (event.user_id, event.organization_id, at.toordinal(), at.hour, at.minute // 15)
            person = people.get(who)
            if person is None:
                person = people[who] = self._person(event)
            context = event.context_json
            acted = acting.get(id(context))
            if acted is None:
                # An administrator who acts as somebody else says so in the context.
                acted = acting[id(context)] = b'"impersonation_id":' in bytes(context)
            key = (id(person), id(rule), acted)
            known = made.get(key)
            if known is None:  # it holds the person, so that nobody else gets that id meanwhile
                own = replace(facts, **person.facts, **rule.facts, impersonated=acted)
                known = made[key] = (own, person)
            verdicts.append(
                replace(event, facts=known[0], privacy_level=rule.level, retention_days=rule.days)
            )
        return verdicts

    def _rule(self, event: Event) -> _Rule:
        """Return what the type, the organization and the client say of privacy and retention."""
        kind = self.tools.catalog.types[event.event_type]
        level = stricter(kind.privacy, event.privacy_level)
        retention: Retention = "system" if kind.category == PERFORMANCE else level
        days = min(DAYS_MAX[retention], self.settings.days.get(retention, DAYS_MAX[retention]))
        facts: dict[str, Any] = {"retention": retention}
        if event.organization_id is not None:
            organization = self.tools.roster.organization(event.organization_id)
            if organization is not None:
                days = min(days, organization.retention_days.get(retention, days))
                facts["subscription"] = organization.subscription
        facts["retention_days"] = days = min(days, event.retention_days or days)
        return _Rule(facts, level, days)

    def _person(self, event: Event) -> _Person:
        """Return what the roster says now of the event's person at the time of the event.

        The roster is asked each time, so that a change counts from the next event on; only what
        follows from its records is remembered.
        """
        organization_id, user_id, roster = event.organization_id, event.user_id, self.tools.roster
        if organization_id is None or user_id is None:
            return _NOBODY
        user = roster.user(organization_id, user_id)
        if user is None:
            return _NOBODY
        at = event.timestamp
        membership = roster.membership(organization_id, user_id, at)
        received_at = event.facts.received_at or at
        key = (organization_id, user_id, membership, received_at.toordinal())
        known = self._people.get(key)
        if known is None or known.user is not user:
            if len(self._people) >= _PEOPLE_MAX:
                self._people.clear()
            known = self._people[key] = _person(user, membership, received_at.date())
        return known


class _Rule(NamedTuple):
    """What holds for all events of a kind in an organization."""

    facts: dict[str, Any]
    level: Privacy
    days: int


class _Person(NamedTuple):
    """What one record of the roster says of a person on one day."""

    user: User | None
    facts: dict[str, Any]


_NOBODY = _Person(None, {})
_PEOPLE_MAX = 20_000  # about a kilobyte each


def _person(user: User, membership: tuple[tuple[str, ...], tuple[str, ...]], on: date) -> _Person:
    class_ids, teacher_ids = membership
    facts = {
        "role": user.role.value,
        "class_ids": class_ids,
        "teacher_ids": teacher_ids,
        "age_band": age_band(user, on),
        "consented": has_parental_consent(user),
        "generic": user.generic,
    }
    return _Person(user, facts)
