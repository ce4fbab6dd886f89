"""Schemas, receipts, who am I, and how the daemon is."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from quart import Blueprint

from mlc_broker.edge.house import House, WhatBecame
from mlc_broker.edge.openapi import document
from mlc_broker.edge.problems import PROBLEM_JSON, Problem, problem
from mlc_broker.edge.routes import Answer, Call, Route, Says, wing
from mlc_broker.model.errors import NotFound
from mlc_broker.model.event import rfc3339
from mlc_broker.model.principal import Role, Scope, scope_for


class OfOrganization(Struct, frozen=True, forbid_unknown_fields=True):
    """A System Admin names the organization."""

    organization_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class AllSchemas(Struct, frozen=True):
    """JSON Schema 2020-12 of every registered event type."""

    schemas: dict[str, dict[str, Any]]


class Me(Struct, frozen=True, omit_defaults=True):
    """Who a credential speaks for, and what it may read."""

    kind: str
    id: str
    organization_id: str | None
    role: Role | None = None
    scope: Scope | None = None  # None: it reads nothing
    categories: list[str] | None = None  # what an anonymous key may publish
    may_write_roster: bool = False
    expires_at: str | None = None


class Ready(Struct, frozen=True):
    """The daemon takes events."""

    ready: bool = True


async def schemas(call: Call) -> Answer:
    """Answer every schema."""
    return Answer(AllSchemas(dict(call.house.schemas.schemas())))


async def schema(call: Call) -> Answer:
    """Answer one schema; aliases are understood."""
    found = call.house.schemas.schema(call.path["event_type"])
    if found is None:
        raise NotFound("This event type is not registered: GET /v1/schemas lists those that are.")
    return Answer(found, media="application/schema+json")


async def receipt(call: Call) -> Answer:
    """Answer what became of an event."""
    asked = call.query_as(OfOrganization).organization_id
    principal = call.principal
    own = principal.organization_id
    organization = asked if principal.role is Role.SYSTEM_ADMIN else own
    found = None
    if asked is None or asked == organization:
        found = await call.house.receipts.find(organization, call.path["event_id"], principal)
    if found is None:
        raise NotFound("No event of this id is known in your scope.")
    return Answer(found)


async def me(call: Call) -> Answer:
    """Answer who asks."""
    who = call.principal
    return Answer(
        Me(
            who.kind,
            who.id,
            who.organization_id,
            who.role,
            scope_for(who, call.house.hierarchy) if who.kind == "user" else None,
            None if who.categories is None else sorted(who.categories),
            who.may_write_roster,
            None if who.expires_at is None else rfc3339(who.expires_at),
        )
    )


async def healthz(call: Call) -> Answer:
    """Answer that the process lives, and what troubles it."""
    return Answer({"status": "ok", "version": call.house.version, **call.house.health()})


async def readyz(call: Call) -> Answer:
    """Answer whether events can be sent now."""
    reasons = call.house.readiness()
    if not reasons:
        return Answer(Ready())
    told = problem(
        503,
        "unavailable",
        "Not ready to take events.",
        retry_after_ms=call.house.retry_after_ms,
        reasons=reasons,
    )
    seconds = str(max(1, -(-call.house.retry_after_ms // 1000)))
    return Answer(told, 503, PROBLEM_JSON, {"retry-after": seconds})


ROUTES = [
    Route(
        "GET",
        "/v1/schemas",
        "Every registered event type",
        schemas,
        answers={200: Says(AllSchemas)},
        open=True,
    ),
    Route(
        "GET",
        "/v1/schemas/{event_type}",
        "One event type as JSON Schema 2020-12",
        schema,
        answers={200: Says(dict[str, Any], media=("application/schema+json",))},
        open=True,
    ),
    Route(
        "GET",
        "/v1/receipts/{event_id}",
        "What became of an event",
        receipt,
        query=OfOrganization,
        answers={200: Says(WhatBecame)},
    ),
    Route("GET", "/v1/me", "Who the credential is", me, answers={200: Says(Me)}),
    Route(
        "GET",
        "/healthz",
        "Whether the process lives",
        healthz,
        answers={200: Says(dict[str, Any])},
        open=True,
    ),
    Route(
        "GET",
        "/readyz",
        "Whether events can be sent now",
        readyz,
        answers={200: Says(Ready), 503: Says(Problem, "Not ready, with the reasons")},
        open=True,
    ),
]


def openapi_route(routes: list[Route], version: str) -> Route:
    """Return the route that serves the document of all `routes`, itself included."""

    async def openapi(_: Call) -> Answer:
        return Answer(text)

    route = Route(
        "GET",
        "/openapi.json",
        "This document",
        openapi,
        answers={200: Says(dict[str, Any])},
        open=True,
    )
    text = msgspec.json.encode(document([*routes, route], version=version))
    return route


def operations(house: House) -> Blueprint:
    """Return the blueprint of these routes."""
    return wing("operations", ROUTES, house)
