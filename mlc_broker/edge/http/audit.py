"""`GET /v1/audit`: who has read whom."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from mlc_broker.edge.routes import Answer, Call, Route, Says
from mlc_broker.query.access import AccessLog, AccessPage

Value = Annotated[str, Meta(min_length=1, max_length=128)]


class AuditQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """A page of the access log."""

    organization_id: Value | None = None
    user_id: Annotated[Value | None, Meta(description="entries about this person")] = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="entries a page")] = 50
    cursor: Annotated[str, Meta(max_length=128, description="`next` of the page before")] | None = (
        None
    )
    purpose: Annotated[str, Meta(max_length=200)] | None = None


class AuditPages:
    """The handler, with what it asks."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log

    async def audit(self, call: Call) -> Answer:
        """Answer a page of the access log."""
        asked = call.query_as(AuditQuery)
        purpose = asked.purpose or call.request.headers.get("Purpose", "")[:200]
        page = await self._log.entries(
            call.person,
            organization_id=asked.organization_id,
            user_id=asked.user_id,
            limit=asked.limit,
            cursor=asked.cursor,
            purpose=purpose,
        )
        return Answer(page)

    def routes(self) -> list[Route]:
        """Return the table of these pages."""
        return [
            Route(
                "GET",
                "/v1/audit",
                "The access log: who read whose events, newest first",
                self.audit,
                query=AuditQuery,
                answers={200: Says(AccessPage)},
                description="A System Admin sees all, a Subscriber-Admin their organization's. "
                "Reading it is itself noted.",
            )
        ]
