"""RFC 9457: every error over HTTP is a problem that says what happened and how to mend it."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import msgspec
from quart import Quart, Response
from werkzeug.exceptions import HTTPException

from mlc_broker.edge.server import where
from mlc_broker.model.errors import ClientError

PROBLEM_JSON = "application/problem+json"
log = logging.getLogger("mlc_broker.edge")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an error."""

    type: str
    title: str
    status: int
    detail: str
    code: str  # as in the WebSocket's `error`
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET
    reasons: list[str] | msgspec.UnsetType = msgspec.UNSET  # of /readyz


def problem_of(error: ClientError) -> Problem:
    """Return what to tell the sender of a mistake."""
    return problem(error.status, error.code, str(error), retry_after_ms=error.retry_after_ms)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    retry_after_ms: int | None = None,
    reasons: list[str] | None = None,
) -> Problem:
    """Return a problem; its `type` is a name, not an address to fetch."""
    return Problem(
        type=f"urn:mlc-broker:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        retry_after_ms=msgspec.UNSET if retry_after_ms is None else retry_after_ms,
        reasons=msgspec.UNSET if reasons is None else reasons,
    )


def headers_of(told: Problem) -> dict[str, str]:
    """Return the headers that go with a problem."""
    headers = {"content-type": PROBLEM_JSON, "cache-control": "no-store"}
    if isinstance(told.retry_after_ms, int):
        headers["retry-after"] = str(max(1, -(-told.retry_after_ms // 1000)))
    if told.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return headers


def respond(told: Problem) -> Response:
    """Return a problem as Quart's response."""
    return Response(msgspec.json.encode(told), told.status, headers_of(told))


def register(app: Quart) -> None:
    """Make every error of `app` a problem: its own, ours, and those nobody foresaw."""

    async def ours(error: ClientError) -> Response:
        return respond(problem_of(error))

    async def the_frameworks(error: HTTPException) -> Response:
        status = error.code or 500
        told = problem(status, _CODES.get(status, "malformed"), _DETAILS.get(status, error.name))
        response = respond(told)
        for name, value in error.get_headers():
            if name.lower() in ("allow", "location"):
                response.headers[name] = value
        return response

    async def unforeseen(error: Exception) -> Response:
        log.error("a request failed: %s", where(error))
        return respond(unforeseen_problem())

    handlers: list[tuple[Any, Any]] = [
        (ClientError, ours),
        (HTTPException, the_frameworks),
        (Exception, unforeseen),
    ]
    for kind, handler in handlers:
        app.register_error_handler(kind, handler)


def unforeseen_problem() -> Problem:
    """Return what is told of a mistake of ours: that it is ours, and nothing else."""
    return problem(
        500, "internal", "Something broke here, not in your request. It was written down."
    )


_CODES = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "unsupported",
    408: "timeout",
    413: "too_large",
    415: "unsupported",
    429: "rate_limited",
    500: "internal",
    503: "unavailable",
}
_DETAILS = {
    404: "There is nothing here. GET /openapi.json lists what there is.",
    405: "This path knows other methods: see `Allow`.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    500: "Something broke here, not in your request. It was written down.",
}
