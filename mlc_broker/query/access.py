"""The access log as people read it: those it is about, and those who must answer for it."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from mlc_broker.model.errors import Forbidden, StoreError, Unavailable
from mlc_broker.model.principal import Principal, Role
from mlc_broker.query.cursor import Cursors
from mlc_broker.store.audit import AuditLog, Wanted
from mlc_broker.store.audit_entry import Entry

SUBJECTS_SHOWN_MAX = 1000


class Shown(Struct, frozen=True, kw_only=True):
    """An entry of the access log."""

    number: int
    at: str
    who: str
    role: str
    action: str
    organization_id: str | None  # whose events; null: across organizations
    asker_organization_id: str | None
    filters: dict[str, Any]
    subjects: list[str]  # other people whose events were read
    subjects_count: int
    more_subjects: bool  # more than are named, or not known when it began
    count: int  # events
    purpose: str  # as stated by who asked; "unstated" otherwise
    ferpa_class: str
    detail: str


class AccessPage(Struct, frozen=True):
    """Entries, newest first. `next` is null on the last page."""

    entries: list[Shown]
    next: str | None


class AccessLog:
    """Reading the access log: which is itself a read that it notes."""

    def __init__(self, audit: AuditLog, cursors: Cursors) -> None:
        self._audit = audit
        self._cursors = cursors

    async def entries(
        self,
        principal: Principal,
        *,
        organization_id: str | None = None,
        user_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        purpose: str = "",
    ) -> AccessPage:
        """Return a page; raises Forbidden unless an administrator asks."""
        within = _within(principal, organization_id)
        before = None if cursor is None else self._cursors.entry(cursor)
        try:
            found = await self._audit.entries(
                Wanted(organization_id=within, user_id=user_id, before=before, limit=limit + 1)
            )
            await self._audit.record(_reading(principal, within, user_id, purpose, len(found)))
        except StoreError as error:
            raise Unavailable(str(error)) from error
        own = principal.role is not Role.SYSTEM_ADMIN or organization_id is not None
        shown = [_shown(number, entry, within if own else None) for number, entry in found[:limit]]
        more = len(found) > limit
        return AccessPage(shown, self._cursors.of_entry(found[limit - 1][0]) if more else None)

    async def who_read(
        self, organization_id: str, user_id: str, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return who read this person's events, newest first; others' ids are not told.

        An export of very many people counts as read: it may have held theirs.
        """
        found = await self._audit.who_read(organization_id, user_id, limit)
        return [
            {
                "at": entry.at,
                "who": entry.who,
                "role": entry.role,
                "action": entry.action,
                "purpose": entry.purpose or "unstated",
                "ferpa_class": entry.ferpa_class,
            }
            for _, entry in found
            if user_id in entry.subjects.get(organization_id, ()) or entry.action != "export.begin"
        ]


def _within(principal: Principal, organization_id: str | None) -> str | None:
    match principal.role:
        case Role.SYSTEM_ADMIN:
            return organization_id
        case Role.SUBSCRIBER_ADMIN:
            if organization_id not in (None, principal.organization_id):
                return ""  # another organization's log does not exist
            return principal.organization_id or ""
        case _:
            raise Forbidden(
                "The access log is for administrators; GET /v1/me/data tells who read you."
            )


def _reading(
    principal: Principal, within: str | None, user_id: str | None, purpose: str, count: int
) -> Entry:
    return Entry(
        who=principal.id,
        role=str(principal.role),
        action="audit.read",
        asker_organization_id=principal.organization_id,
        organization_id=within,
        filters={} if user_id is None else {"user_id": [user_id]},
        count=count,
        purpose=purpose,
        ferpa_class="exempt:audit",
    )


def _shown(number: int, entry: Entry, within: str | None) -> Shown:
    """Return an entry; of other organizations' people, an administrator sees nothing."""
    groups = entry.subjects if within is None else {within: entry.subjects.get(within, [])}
    subjects = [user for users in groups.values() for user in users][:SUBJECTS_SHOWN_MAX]
    foreign = within is not None and set(entry.subjects) - {within} != set()
    values = msgspec.structs.asdict(entry)
    del values["subjects"]
    return Shown(
        **values
        | {
            "number": number,
            "subjects": subjects,
            "subjects_count": len(subjects) if foreign else entry.subjects_count,
            "count": 0 if foreign else entry.count,
            "filters": {} if foreign else entry.filters,
            "purpose": entry.purpose or "unstated",
        }
    )
