"""Live over HTTP, for pages: committed events and changing metrics as server-sent events."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Any, Protocol

import msgspec
import trio
from msgspec import Meta, Struct
from quart import Blueprint

from mlc_broker.edge.house import House
from mlc_broker.edge.http.sse import MEDIA, Send, message, sse_answer
from mlc_broker.edge.routes import Answer, Call, Route, Says, wing
from mlc_broker.model.errors import Forbidden, Malformed
from mlc_broker.model.event import rfc3339
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Role
from mlc_broker.query.live import Live
from mlc_broker.query.live_follow import Follower

Ids = list[Annotated[str, Meta(max_length=128)]]
_GAP = msgspec.json.encode(
    {"detail": "What followed this cursor is no longer at hand here: GET /v1/events has it."}
)


class Axes(Struct, frozen=True, kw_only=True, rename={"begin": "from", "end": "to"}):
    """The filters of `GET /v1/events`; each may be repeated."""

    begin: Annotated[datetime, Meta(tz=True)] | None = None
    end: Annotated[datetime, Meta(tz=True)] | None = None
    event_type: Ids = []
    category: Ids = []
    user_id: Ids = []
    class_id: Ids = []
    teacher_id: Ids = []
    assignment_id: Ids = []
    sequence_id: Ids = []
    game_id: Ids = []
    session_id: Ids = []
    organization_id: Ids = []

    def as_filter(self) -> Filter:
        """Return the same as the model's Filter."""
        values: dict[str, Any] = {}
        for name in Filter.__struct_fields__:
            value = getattr(self, name)
            values[name] = (frozenset(value) or None) if isinstance(value, list) else value
        return Filter(**values)


class LiveQuery(Axes, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events."""


class WatchQuery(Axes, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rows of a metric."""

    group_by: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=8)] = []
    window: Annotated[str, Meta(max_length=32)] = "today"


class Figures(Protocol):
    """Who knows how the daemon is doing."""

    def figures(self) -> dict[str, Any]:
        """Return what flows, since the start."""


def live_wing(
    house: House, live: Live, figures: Figures, stopping: trio.Event
) -> tuple[Blueprint, list[Route]]:
    """Return the live pages and their routes; they end when `stopping` is set."""

    async def events(call: Call) -> Answer:
        query = call.query_as(LiveQuery)
        cursor = _cursor(call.request.headers.get("Last-Event-ID"))
        follower = Follower(live, call.person, query.as_filter(), after=cursor)
        await follower.open()
        return sse_answer(call, partial(_send_events, follower), stopping)

    async def metric(call: Call) -> Answer:
        query = call.query_as(WatchQuery)
        values = await live.watch(
            call.person, call.path["name"], query.group_by, query.window, query.as_filter()
        )
        return sse_answer(call, partial(_send_values, values), stopping)

    async def flow(call: Call) -> Answer:
        if call.principal.role is not Role.SYSTEM_ADMIN:
            raise Forbidden("What flows through the whole daemon is a System Admin's to see.")
        return Answer(figures.figures())

    streams = {200: Says(None, "events as they come", media=(MEDIA,))}
    routes = [
        Route(
            "GET",
            "/v1/live",
            "Committed events as they come",
            events,
            query=LiveQuery,
            answers=streams,
            description=(
                "Server-sent events. Each has the stored event as `data` and a cursor as `id`: with "
                "`Last-Event-ID` a reader goes on behind it, without a gap or a repeat."
            ),
        ),
        Route(
            "GET",
            "/v1/metrics/{name}/live",
            "A metric's value now and after every change",
            metric,
            query=WatchQuery,
            answers=streams,
        ),
        Route(
            "GET",
            "/v1/flow",
            "What flows: by type, organization, outcome and processor",
            flow,
            answers={200: Says(dict[str, Any])},
        ),
    ]
    return wing("live", routes, house), routes


async def _send_events(follower: Follower, send: Send) -> None:
    try:
        if follower.gap:
            await send(message(_GAP, event="gap"))
        while (page := await follower.page()) is not None:
            pairs = zip(page.sequences, page.lines, strict=True)
            await send(b"".join(message(line, cursor=sequence) for sequence, line in pairs))
    finally:
        follower.close()


async def _send_values(values: Any, send: Send) -> None:
    try:
        async for as_of, rows in values:
            told = {"as_of": rfc3339(as_of), "rows": rows}
            await send(message(msgspec.json.encode(told)))
    finally:
        if hasattr(values, "aclose"):
            with trio.CancelScope(shield=True):
                await values.aclose()


def _cursor(header: str | None) -> int | None:
    if not header:
        return None
    if not (header.isascii() and header.isdigit() and len(header) < 19):
        raise Malformed("Last-Event-ID is the `id` of an event that came by here, or nothing.")
    return int(header)
