"""Add what the broker knows: role, class at the time of the event, subscription, retention."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import ClassVar

from msgspec import Struct
from msgspec.structs import replace

from mlc_broker.model.event import Event, Facts, Privacy, Retention
from mlc_broker.model.person import age_band, has_parental_consent
from mlc_broker.model.principal import PERFORMANCE
from mlc_broker.model.retention import DAYS_MAX, stricter
from mlc_broker.model.verdict import Verdict
from mlc_broker.pipeline.processor import Processor, Stage


class Enrich(Processor):
    """Look people up in the roster. What a client says about itself never overrides it."""

    name = "enrich"
    stage = Stage.ENRICH
    pure: ClassVar[bool] = True

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        """How long events of each class are kept here at most, where that is shorter than the law."""

        days: dict[Retention, int] = {}

    settings: Settings

    async def process_many(self, events: Sequence[Event]) -> Sequence[Verdict]:
        """Return the events with their facts, privacy level and retention filled in."""
        seen: dict[tuple[object, ...], tuple[Facts, Privacy, int]] = {}
        verdicts: list[Verdict] = []
        for event in events:
            key = (
                id(event.facts),  # one for the whole submission, unless a clock was corrected
                event.user_id,
                event.organization_id,
                event.event_type,
                event.timestamp.toordinal(),
                event.privacy_level,
                event.retention_days,
                impersonated(event),
            )
            known = seen.get(key)
            if known is None:
                known = seen[key] = self._facts(event)
            verdicts.append(
                replace(event, facts=known[0], privacy_level=known[1], retention_days=known[2])
            )
        return verdicts

    def _facts(self, event: Event) -> tuple[Facts, Privacy, int]:
        kind = self.tools.catalog.types[event.event_type]
        level = stricter(kind.privacy, event.privacy_level)
        retention = "system" if kind.category == PERFORMANCE else level
        days = min(DAYS_MAX[retention], self.settings.days.get(retention, DAYS_MAX[retention]))
        facts = event.facts
        organization_id = event.organization_id
        if organization_id is not None:
            organization = self.tools.roster.organization(organization_id)
            if organization is not None:
                days = min(days, organization.retention_days.get(retention, days))
                facts = replace(facts, subscription=organization.subscription)
            if event.user_id is not None:
                facts = self._person(event, organization_id, event.user_id, facts)
        days = min(days, event.retention_days or days)
        facts = replace(
            facts,
            retention=retention,
            retention_days=days,
            impersonated=impersonated(event),
        )
        return facts, level, days

    def _person(self, event: Event, organization_id: str, user_id: str, facts: Facts) -> Facts:
        roster = self.tools.roster
        user = roster.user(organization_id, user_id)
        if user is None:
            return facts
        class_ids, teacher_ids = roster.membership(organization_id, user_id, event.timestamp)
        today: date = (facts.received_at or event.timestamp).date()
        return replace(
            facts,
            role=user.role.value,
            class_ids=class_ids,
            teacher_ids=teacher_ids,
            age_band=age_band(user, today),
            consented=has_parental_consent(user),
            generic=user.generic,
        )


def impersonated(event: Event) -> bool:
    """An administrator who acts as somebody else says so in the context."""
    return b'"impersonation_id":' in bytes(event.context_json)
