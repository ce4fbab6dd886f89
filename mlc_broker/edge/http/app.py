"""The HTTP application: the hot routes in front, Quart behind, problems and CORS around both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quart import Blueprint, Response
from quart_trio import QuartTrio

from mlc_broker.edge import problems
from mlc_broker.edge.house import House
from mlc_broker.edge.http import ingest, operations
from mlc_broker.edge.http.cors import Cors
from mlc_broker.edge.routes import Route, wing
from mlc_broker.edge.server import ASGIApp, Front, HTTPConnection
from mlc_broker.model.errors import NotFound

Wing = tuple[Blueprint, Sequence[Route]]


def make_app(house: House, wings: Sequence[Wing] = ()) -> ASGIApp:
    """Return the ASGI application of the house; `wings` are the blueprints of other pages.

    Each wing brings the routes that it serves, so that `/openapi.json` says all of it.
    """
    routes: list[Route] = [*ingest.ROUTES, *operations.ROUTES]
    for _, more in wings:
        routes.extend(more)
    document = operations.openapi_route(routes, house.version)
    quart = make_quart(house, [blueprint for blueprint, _ in wings], document)
    quart.request_class = _request_class(quart.request_class, routes)
    hot = ingest.Ingest(house)
    front = Front(
        {("POST", "/v1/events"): hot.events, ("POST", "/v1/beacon"): hot.beacon},
        quart,
        requests_max=house.requests_max,
    )
    return Cors(front, house.origins)


def make_quart(house: House, blueprints: Sequence[Blueprint], document: Route) -> Any:
    """Return the Quart part: everything but publishing."""
    app = QuartTrio("mlc_broker", static_folder=None)
    app.asgi_http_class = HTTPConnection
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.config["MAX_CONTENT_LENGTH"] = house.limits.body_bytes_max
    app.config["BODY_TIMEOUT"] = house.body_seconds_max
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    problems.register(app)
    app.register_blueprint(operations.operations(house))
    app.register_blueprint(wing("document", [document], house))
    for route in ingest.ROUTES:  # served in front: here so that other methods are told of them
        app.add_url_rule(
            route.path,
            endpoint=f"front {route.path}",
            view_func=_elsewhere,
            methods=[route.method],
            provide_automatic_options=False,
        )
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    return app


def _request_class(kind: Any, routes: Sequence[Route]) -> Any:
    """Return a request that may be as large as its route says; else as large as the house says."""
    allowed = {(route.method, route.path): route.body_bytes_max for route in routes}

    class SizedRequest(kind):  # type: ignore[misc]
        def __init__(self, method: Any, scheme: Any, path: str, *args: Any, **more: Any) -> None:
            own = allowed.get((method, path.split("?", 1)[0]))
            if own is not None:
                more["max_content_length"] = own
            super().__init__(method, scheme, path, *args, **more)

    return SizedRequest


async def _elsewhere() -> Response:
    raise NotFound("There is nothing here; publishing is on the same path without the last slash.")
