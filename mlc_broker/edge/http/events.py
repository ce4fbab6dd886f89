"""`GET /v1/events`, `/v1/events/{event_id}` and `/v1/export`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from mlc_broker.edge.problems import Problem
from mlc_broker.edge.routes import Answer, Call, Route, Says
from mlc_broker.model.errors import Malformed
from mlc_broker.model.event import Moment
from mlc_broker.model.filter import AXES, Filter
from mlc_broker.query.export.export import Exports
from mlc_broker.query.export.formats import FORMATS, writer_of
from mlc_broker.query.query import PAGE_EVENTS_MAX, Queries
from mlc_broker.query.scopes import Asker, asker_for

Value = Annotated[str, Meta(min_length=1, max_length=128)]
Values = Annotated[list[Value], Meta(max_length=100)]
Time = Annotated[str, Meta(max_length=64, extra_json_schema={"format": "date-time"})]
Category = Literal[
    "learning_progress", "user_interaction", "system_performance", "business_intelligence"
]
Purpose = Annotated[str, Meta(max_length=200, description="why: stands in the access log")]
_PLUS = re.compile(r" (?=\d\d:\d\d$)")  # an offset's plus that was not escaped in the query


class EventFilter(
    Struct, frozen=True, forbid_unknown_fields=True, rename={"begin": "from", "end": "to"}
):
    """The filters of events; each but the times may be repeated: any of its values fits."""

    begin: Annotated[Time | None, Meta(description="from this time on")] = None
    end: Annotated[Time | None, Meta(description="until this time, itself not included")] = None
    event_type: Values = []
    category: list[Category] = []
    user_id: Values = []
    class_id: Values = []
    teacher_id: Values = []
    assignment_id: Values = []
    sequence_id: Values = []
    game_id: Values = []
    session_id: Values = []
    organization_id: Values = []
    purpose: Purpose | None = None


class EventsQuery(EventFilter, frozen=True, forbid_unknown_fields=True):
    """A page of events."""

    limit: Annotated[int, Meta(ge=1, le=PAGE_EVENTS_MAX, description="events a page")] = 50
    cursor: Annotated[str, Meta(max_length=128, description="`next` of the page before")] | None = (
        None
    )


class ExportQuery(EventFilter, frozen=True, forbid_unknown_fields=True):
    """An export."""

    format: Annotated[Literal["jsonl", "csv", "json", "parquet", "sqlite", "xapi"], Meta()] = (
        "jsonl"
    )
    bom: Annotated[
        Literal["0", "1", "false", "true"],
        Meta(description="CSV: begin with a byte order mark, for spreadsheets"),
    ] = "0"


class OneQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """One event; a System Admin names the organization to see the real ids."""

    organization_id: Value | None = None
    purpose: Purpose | None = None


class StoredEvent(Struct, frozen=True, omit_defaults=True):
    """An event as it is stored; what is not known is left out."""

    event_id: str
    event_type: str
    timestamp: str
    meta: dict[str, Any]
    user_id: str | None = None
    session_id: str | None = None
    organization_id: str | None = None
    device_info: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    privacy_level: str | None = None
    retention_days: int | None = None


class EventsPage(Struct, frozen=True):
    """Events, newest first. `next` is null on the last page."""

    events: list[StoredEvent]
    next: str | None


class EventPages:
    """The handlers, with what they ask."""

    def __init__(self, queries: Queries, exports: Exports, canonical: Callable[[str], str]) -> None:
        """`canonical` gives an event type's one name for any of its spellings."""
        self._queries = queries
        self._exports = exports
        self._canonical = canonical

    async def events(self, call: Call) -> Answer:
        """Answer a page of events."""
        asked = call.query_as(EventsQuery)
        wanted = filter_of(asked, self._canonical)
        asker = asking(call, wanted, asked.purpose)
        page = await self._queries.events(asker, wanted, limit=asked.limit, cursor=asked.cursor)
        following = msgspec.json.encode(page.next)
        body = b",".join(page.lines)
        return Answer(b'{"events":[' + body + b'],"next":' + following + b"}")

    async def event(self, call: Call) -> Answer:
        """Answer one event."""
        asked = call.query_as(OneQuery)
        named = asked.organization_id
        wanted = Filter(organization_id=None if named is None else frozenset({named}))
        asker = asking(call, wanted, asked.purpose)
        return Answer(await self._queries.event(asker, call.path["event_id"], wanted))

    async def export(self, call: Call) -> Answer:
        """Answer everything asked for, as a file."""
        asked = call.query_as(ExportQuery)
        wanted = filter_of(asked, self._canonical)
        asker = asking(call, wanted, asked.purpose)
        make = writer_of(asked.format, bom=asked.bom in ("1", "true"))
        name = file_name(asker, call.house.clock.now(), FORMATS[asked.format].extension)
        export = await self._exports.open(asker, wanted, make, name)
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Answer(export, media=export.writer.media, headers=headers)

    def routes(self) -> list[Route]:
        """Return the table of these pages."""
        return [
            Route(
                "GET",
                "/v1/events",
                "Events, newest first",
                self.events,
                query=EventsQuery,
                answers={200: Says(EventsPage, "One page of what is asked for and in scope")},
                description="Filters narrow; within one, any value fits. `next` goes on where the "
                "page ended: new events, restarts and sealing do not disturb it.",
            ),
            Route(
                "GET",
                "/v1/events/{event_id}",
                "One event",
                self.event,
                query=OneQuery,
                answers={200: Says(StoredEvent)},
            ),
            Route(
                "GET",
                "/v1/export",
                "Everything asked for, as a file",
                self.export,
                query=ExportQuery,
                answers={
                    200: _EXPORTED,
                    415: Says(Problem, "The format needs a package that is not installed"),
                },
                description="Newest file first; within sealed files by class, person and time. "
                "CSV columns are flat (`properties.score`).",
            ),
        ]


def asking(call: Call, wanted: Filter, purpose: str | None) -> Asker:
    """Return who asks and why; keys get Forbidden."""
    said = purpose or call.request.headers.get("Purpose", "")
    return asker_for(call.person, call.house.hierarchy, wanted, purpose=said)


def filter_of(asked: EventFilter, canonical: Callable[[str], str] = lambda name: name) -> Filter:
    """Return a query's filter; raises Malformed, naming the time that is none."""
    axes: dict[str, Any] = {}
    for axis in AXES:
        values = getattr(asked, axis)
        if values:
            axes[axis] = frozenset(values)
    if "event_type" in axes:
        axes["event_type"] = frozenset(map(canonical, axes["event_type"]))
    return Filter(begin=_time("from", asked.begin), end=_time("to", asked.end), **axes)


def file_name(asker: Asker, now: datetime, extension: str) -> str:
    """Return the name of an export: whose, and when."""
    whose = re.sub(r"[^A-Za-z0-9_-]", "-", asker.scope.organization_id or "all")[:64]
    return f"events_{whose}_{now:%Y%m%dT%H%M%SZ}.{extension}"


def _time(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return msgspec.convert(_PLUS.sub("+", text), Moment)
    except (msgspec.ValidationError, OverflowError, ValueError):
        raise Malformed(
            f"`{name}` is no time: give RFC 3339 with its zone, such as 2025-01-27T14:30:00Z."
        ) from None


_HEADERS: Mapping[str, str] = {"content-disposition": "a file name"}
_EXPORTED = Says(
    None,
    "The file, streamed",
    media=tuple(dict.fromkeys(writer.media for writer in FORMATS.values())),
    headers=_HEADERS,
)
