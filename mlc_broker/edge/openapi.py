"""OpenAPI 3.1, assembled from the table of routes and the types that they name."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from mlc_broker.edge.problems import PROBLEM_JSON, Problem
from mlc_broker.edge.routes import Route, Says

REFERENCE = "#/components/schemas/{name}"

USUAL = {
    400: "The request is not what it should be",
    401: "There is no valid credential",
    403: "This credential may not do that",
    404: "There is nothing of that name in this credential's scope",
    405: "The path knows other methods",
    408: "The body did not come in time",
    413: "The body is over its limit",
    415: "The body is of a type that is not read here",
    429: "Too much in too short a time",
    431: "The request's line and headers are over their limit",
    500: "Something broke in the daemon",
    503: "The daemon cannot do this now",
}


def document(routes: Sequence[Route], *, version: str) -> dict[str, Any]:
    """Return the OpenAPI document of all these routes."""
    types = [Problem, *(kind for route in routes for kind in _types(route))]
    _, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mlc-broker",
            "version": version,
            "description": "Takes the events of a learning platform, keeps them safe, and tells those who may know.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key (`mlc_ik_…`, `mlc_ak_…`) or a token signed by the LMS.",
                }
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": [_tag(route)],
        "responses": {str(status): says for status, says in sorted(_responses(route).items())},
    }
    if route.description:
        operation["description"] = route.description
    if route.open:
        operation["security"] = []
    parameters = [*_path_parameters(route), *_query_parameters(route)]
    if parameters:
        operation["parameters"] = parameters
    if route.bodies:
        content = {media: _content(kind) for media, kind in route.bodies.items()}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _responses(route: Route) -> dict[int, dict[str, Any]]:
    responses = {status: _problem(status) for status in _usual(route)}
    for status, says in route.answers.items():
        responses[status] = _problem(status, says) if says.type is Problem else _says(status, says)
    return responses


def _usual(route: Route) -> set[int]:
    # A path with odd characters, an unknown query or an ill-formed header is a 400 anywhere.
    statuses = {400, 405, 500, 503}
    if not route.open:
        statuses |= {401, 403, 429}
    if route.parameters:
        statuses |= {404}
    if route.parameters or route.query is not None:
        statuses |= {431}
    if route.bodies:
        statuses |= {408, 413, 415}
    return statuses


def _says(status: int, says: Says) -> dict[str, Any]:
    told: dict[str, Any] = {"description": says.description or HTTPStatus(status).phrase}
    if status != HTTPStatus.NO_CONTENT:
        told["content"] = {media: _content(says.type) for media in says.media}
    if says.headers:
        told["headers"] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in says.headers.items()
        }
    return told


def _problem(status: int, says: Says | None = None) -> dict[str, Any]:
    told = says.description if says is not None and says.description else USUAL.get(status)
    response: dict[str, Any] = {
        "description": told or HTTPStatus(status).phrase,
        "content": {PROBLEM_JSON: {"schema": _schema(Problem)}},
    }
    if status in (429, 503):
        response["headers"] = {
            "Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 0}}
        }
    return response


def _content(kind: Any) -> dict[str, Any]:
    return {} if kind is None else {"schema": _schema(kind)}


def _schema(kind: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=REFERENCE)
    return schema


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in route.parameters
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    _, components = msgspec.json.schema_components([route.query], ref_template=REFERENCE)
    schema = components[route.query.__name__]
    required = schema.get("required", [])
    return [
        _query_parameter(name, of, name in required) for name, of in schema["properties"].items()
    ]


def _query_parameter(name: str, schema: dict[str, Any], required: bool) -> dict[str, Any]:  # noqa: FBT001
    schema = dict(schema)
    description = schema.pop("description", None)
    if "anyOf" in schema:  # a parameter is left out, never null
        others = [option for option in schema.pop("anyOf") if option != {"type": "null"}]
        schema |= others[0] if len(others) == 1 else {"anyOf": others}
        schema.pop("default", None)
    parameter: dict[str, Any] = {
        "name": name,
        "in": "query",
        "required": required,
        "schema": schema,
    }
    if description:
        parameter["description"] = description
    return parameter


def _types(route: Route) -> list[Any]:
    kinds = [says.type for says in route.answers.values()] + list(route.bodies.values())
    if route.query is not None:
        kinds.append(route.query)
    return [kind for kind in kinds if kind is not None]


def _operation_id(route: Route) -> str:
    words = route.path.replace("{", "by_").replace("}", "").replace(".", "_").replace("-", "_")
    return f"{route.method.lower()}_{'_'.join(filter(None, words.split('/')))}"


def _tag(route: Route) -> str:
    first = [part for part in route.path.split("/") if part and part != "v1"]
    return first[0] if first else "daemon"
