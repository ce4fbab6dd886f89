"""Who asks, what they may see, and the same said of one event alone.

`scope_for` (model/principal.py) makes a Scope of a principal; `store/select.py` is its meaning on
packed columns. `scope_allows` is its meaning on one decoded event, for what flows live; a property
test holds the two together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from mlc_broker.model.errors import Forbidden
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Grant, Hierarchy, Principal, Role, Scope, scope_for


class Asker(Struct, frozen=True, kw_only=True):
    """A person with a question: nothing is read without one."""

    principal: Principal
    scope: Scope
    purpose: str = ""  # in the asker's own words; empty: not stated

    @property
    def id(self) -> str:
        """The person's id."""
        return self.principal.id


def asker_for(
    principal: Principal, hierarchy: Hierarchy, wanted: Filter, *, purpose: str = ""
) -> Asker:
    """Return who asks, with their scope; a filter by exactly one organization names it.

    Raises Forbidden for keys: they read nothing.
    """
    if principal.kind != "user":
        raise Forbidden("A key publishes and reads nothing: ask with a user's token.")
    named = wanted.organization_id
    one = next(iter(named)) if named is not None and len(named) == 1 else None
    scope = scope_for(principal, hierarchy, organization_id=one)
    return Asker(principal=principal, scope=scope, purpose=purpose[:200])


def ferpa_class(asker: Asker) -> str:
    """Return whether such a read is a disclosure (34 CFR 99.32), or exempt and why."""
    if asker.scope.pseudonymous:
        return "exempt:de_identified"
    if asker.principal.role is Role.SYSTEM_ADMIN:
        return "disclosure"
    return "exempt:school_official"


def scope_allows(scope: Scope, event: Mapping[str, Any], category: str | None) -> bool:
    """Return whether a decoded event (as readers see it) is in scope.

    `category` is the event's, by the catalog: `Catalog.resolve(event_type).category`.
    """
    if scope.organization_id is not None and event.get("organization_id") != scope.organization_id:
        return False
    return any(_granted(grant, event, category) for grant in scope.grants)


def filter_allows(wanted: Filter, event: Mapping[str, Any], category: str | None) -> bool:
    """Return whether a decoded event is asked for."""
    context, properties = _part(event, "context"), _part(event, "properties")
    plain = (
        (wanted.event_type, event.get("event_type")),
        (wanted.category, category),
        (wanted.user_id, event.get("user_id")),
        (wanted.session_id, event.get("session_id")),
        (wanted.organization_id, event.get("organization_id")),
        (wanted.teacher_id, context.get("teacher_id")),
        (wanted.assignment_id, context.get("assignment_id")),
        (wanted.sequence_id, context.get("sequence_id")),
        (wanted.game_id, properties.get("game_id")),
    )
    if any(not _among(value, asked) for asked, value in plain):
        return False
    if wanted.class_id is not None:
        classes = {*_class_ids(event), context.get("class_id")}
        if not any(_among(value, wanted.class_id) for value in classes):
            return False
    return _in_time(wanted, event)


def _granted(grant: Grant, event: Mapping[str, Any], category: str | None) -> bool:
    return (
        _among(event.get("user_id"), grant.user_ids)
        and (grant.class_ids is None or not grant.class_ids.isdisjoint(_class_ids(event)))
        and _among(_part(event, "context").get("teacher_id"), grant.teacher_ids)
        and _among(category, grant.categories)
        and _among(_part(event, "meta").get("role"), grant.roles)
    )


def _in_time(wanted: Filter, event: Mapping[str, Any]) -> bool:
    if wanted.begin is None and wanted.end is None:
        return True
    at = datetime.fromisoformat(event["timestamp"])
    return (wanted.begin is None or at >= wanted.begin) and (wanted.end is None or at < wanted.end)


def _among(value: Any, allowed: Collection[str] | None) -> bool:
    return allowed is None or (isinstance(value, str) and bool(value) and value in allowed)


def _class_ids(event: Mapping[str, Any]) -> list[str]:
    found = _part(event, "meta").get("class_ids", ())
    return list(found)


def _part(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = event.get(name)
    return part if isinstance(part, Mapping) else {}
