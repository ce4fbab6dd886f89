"""The OpenAPI document is valid, and says what the application serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct
from openapi_spec_validator import OpenAPIV31SpecValidator
from werkzeug.datastructures import MultiDict

from mlc_broker.edge.http import app, ingest, operations
from mlc_broker.edge.openapi import document
from mlc_broker.edge.routes import Answer, Call, Route, Says, all_of, parse_query, wing
from mlc_broker.model.errors import Malformed
from tests.minimal_house import MinimalHouse


class Page(Struct, frozen=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=1_000, description="events a page")] = 50
    event_type: list[str] = []
    user_id: str | None = None


async def pages(call: Call) -> Answer:
    return Answer(call.query_as(Page))


MORE = [
    Route(
        "GET", "/v1/pages/{page_id}", "Pages", pages, query=Page, answers={200: Says(Page, "one")}
    ),
    Route(
        "PUT",
        "/v1/pages/{page_id}",
        "Put",
        pages,
        bodies={"application/json": Page},
        answers={204: Says()},
    ),
]


def test_the_document_is_valid_openapi() -> None:
    said = document([*ingest.ROUTES, *operations.ROUTES, *MORE], version="0.1.0")
    OpenAPIV31SpecValidator(said).validate()
    page = said["paths"]["/v1/pages/{page_id}"]["get"]
    limit = next(of for of in page["parameters"] if of["name"] == "limit")
    assert limit["schema"]["maximum"] == 1_000
    assert {"200", "400", "401", "403", "404", "405", "429", "500", "503"} <= set(page["responses"])
    assert "security" not in page
    assert said["paths"]["/healthz"]["get"]["security"] == []


def test_every_route_is_served_and_every_served_path_is_a_route(tmp_path: Path) -> None:
    house = MinimalHouse(tmp_path)
    routes = [*ingest.ROUTES, *operations.ROUTES, *MORE]
    front: Any = app.make_app(house.house, [(wing("pages", MORE, house.house), MORE)])
    served = all_of(front._app._app)
    said = {(route.method, route.path) for route in routes} | {("GET", "/openapi.json")}
    assert served == said
    house.keys.close()


def test_a_query_becomes_a_struct() -> None:
    given = MultiDict([("limit", "5"), ("event_type", "a"), ("event_type", "b")])
    assert parse_query(Page, given) == Page(limit=5, event_type=["a", "b"])
    for wrong in (
        [("limit", "0")],
        [("limit", "x")],
        [("x", "1")],
        [("user_id", "a"), ("user_id", "b")],
    ):
        with pytest.raises(Malformed):
            parse_query(Page, MultiDict(wrong))
