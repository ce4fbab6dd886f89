"""`GET /v1/metrics`, one metric's rows, and the broker's own figures for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from ipaddress import ip_address
from typing import Literal, Protocol

from msgspec import Struct, field

from mlc_broker.edge.routes import Answer, Call, Route, Says
from mlc_broker.model.errors import Unauthenticated
from mlc_broker.model.metric import Metric
from mlc_broker.model.principal import Principal
from mlc_broker.query.metrics import Question, Told

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Book(Protocol):
    """Who answers: query/metrics.py."""

    def catalogue(self, principal: Principal) -> list[Metric]:
        """Return the metrics that this person may ask for."""

    async def ask(self, principal: Principal, question: Question) -> Told:
        """Return the rows."""


class Card(Struct, frozen=True):
    """One metric in the catalogue."""

    name: str
    title: str
    unit: str
    kind: str
    dimensions: list[str]
    periods: list[str]
    formula: str


class Cards(Struct, frozen=True):
    """The catalogue of metrics."""

    metrics: list[Card]


class Asked(Struct, frozen=True, forbid_unknown_fields=True, rename={"begin": "from", "end": "to"}):
    """A question: a window, a grain, groups, and filters by the metric's dimensions."""

    begin: datetime | None = None
    end: datetime | None = None
    grain: Literal["minute", "hour", "day", "week", "month", "total"] | None = None
    group_by: list[str] = []
    compare: Literal["previous"] | None = None
    purpose: str = ""
    organization_id: list[str] = field(default_factory=list)
    class_id: list[str] = field(default_factory=list)
    teacher_id: list[str] = field(default_factory=list)
    user_id: list[str] = field(default_factory=list)
    game_id: list[str] = field(default_factory=list)
    stage_type: list[str] = field(default_factory=list)
    assignment_id: list[str] = field(default_factory=list)
    sequence_id: list[str] = field(default_factory=list)
    concept: list[str] = field(default_factory=list)
    event_type: list[str] = field(default_factory=list)
    category: list[str] = field(default_factory=list)
    platform: list[str] = field(default_factory=list)
    browser: list[str] = field(default_factory=list)
    endpoint: list[str] = field(default_factory=list)
    experiment: list[str] = field(default_factory=list)
    outcome: list[str] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)


_FILTERS = Asked.__struct_fields__[6:]


def routes(book: Book, figures: Callable[[], bytes]) -> list[Route]:
    """Return the routes; `figures` gives the text for Prometheus."""

    async def catalogue(call: Call) -> Answer:
        return Answer(Cards([_card(metric) for metric in book.catalogue(call.person)]))

    async def rows(call: Call) -> Answer:
        asked = call.query_as(Asked)
        return Answer(await book.ask(call.person, _question(call.path["name"], asked, book, call)))

    async def prometheus(call: Call) -> Answer:
        if not _is_loopback(call.request.remote_addr) and call.principal is None:
            raise Unauthenticated("From elsewhere the figures need a credential.")
        return Answer(figures(), media=_PROMETHEUS)

    return [
        Route("GET", "/v1/metrics", "Every metric", catalogue, answers={200: Says(Cards)}),
        Route(
            "GET",
            "/v1/metrics/{name}",
            "A metric's values",
            rows,
            query=Asked,
            answers={200: Says(Told)},
            description="Lists may be repeated, or written with commas. `compare=previous` puts the "
            "value of the period before beside each row, as `previous`.",
        ),
        Route(
            "GET",
            "/metrics",
            "The broker's own figures, for Prometheus",
            prometheus,
            answers={200: Says(None, media=(_PROMETHEUS,)), 401: _REFUSED, 403: _REFUSED},
            open=True,
        ),
    ]


_REFUSED = Says(None, "From elsewhere than this machine it needs a credential")


def _question(name: str, asked: Asked, book: Book, call: Call) -> Question:
    filters = {
        name: frozenset(_parts(getattr(asked, name))) for name in _FILTERS if getattr(asked, name)
    }
    return Question(
        name=name,
        grain=asked.grain or _default_grain(name, book.catalogue(call.person)),
        group_by=tuple(dict.fromkeys(_parts(asked.group_by))),
        filters=filters,
        begin=asked.begin,
        end=asked.end,
        previous=asked.compare == "previous",
        purpose=asked.purpose[:200],
    )


def _default_grain(name: str, metrics: list[Metric]) -> str:
    """Return `day`, or what the metric has where it has no days."""
    for metric in metrics:
        if metric.name == name and "day" not in metric.periods:
            return metric.periods[0]
    return "day"


def _parts(values: list[str]) -> list[str]:
    return [part for value in values for part in value.split(",") if part]


def _card(metric: Metric) -> Card:
    return Card(
        metric.name,
        metric.title,
        metric.unit,
        metric.kind,
        list(metric.dimensions),
        list(metric.periods),
        metric.formula,
    )


def _is_loopback(address: str | None) -> bool:
    try:
        return address is not None and ip_address(address).is_loopback
    except ValueError:
        return False
