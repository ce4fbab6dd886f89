"""One table of routes: what a path takes, answers and refuses is said once, and held to.

A route is a declaration beside its handler:

    class Page(Struct, frozen=True, forbid_unknown_fields=True):
        limit: Annotated[int, Meta(ge=1, le=1_000, description="events a page")] = 50
        event_type: list[str] = []                     # a list: the parameter may be repeated

    async def events(call: Call) -> Answer:
        page = call.query_as(Page)
        return Answer(await book.find(call.principal, page))

    ROUTES = [
        Route("GET", "/v1/events", "Events, newest first", events, query=Page,
              answers={200: Says(Found, "one page")}),
    ]

`wing("events", ROUTES, house)` makes a Quart blueprint of them for `make_app(house, wings=[…])`;
the OpenAPI document is assembled from the same declarations. A handler raises ClientError, whose
status must be declared unless it stands in `USUAL`: 400 (a query, a body or a path), 401 and 403
(not open), 404 (a path parameter), 405, 413 and 415 (a body), 429, 500 and 503 are always said.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeAlias, TypeVar, cast

import msgspec
from msgspec import Struct
from quart import Blueprint, Quart, Request, Response, request
from werkzeug.datastructures import MultiDict

from mlc_broker.edge.house import House
from mlc_broker.model.errors import Forbidden, Malformed, TooLarge, Unsupported
from mlc_broker.model.principal import Principal

Method: TypeAlias = Literal["GET", "POST", "PUT", "DELETE"]
S = TypeVar("S")


class Says(Struct, frozen=True):
    """What a status carries: a type for JSON, or media types for anything else; None: no body."""

    type: Any = None
    description: str = ""
    media: tuple[str, ...] = ("application/json",)
    headers: Mapping[str, str] = {}  # name: what it says


class Answer(Struct, frozen=True):
    """What a handler answers: a value becomes JSON, bytes and streams go as they are."""

    value: Any = None
    status: int = 200
    media: str = "application/json"
    headers: Mapping[str, str] = {}


class Route(Struct, frozen=True):
    """One method on one path. `path` is written `/v1/things/{thing_id}`."""

    method: Method
    path: str
    summary: str
    handler: Callable[[Call], Awaitable[Answer]] | None = None  # None: served before Quart
    query: type[Struct] | None = None  # frozen, forbid_unknown_fields; lists may be repeated
    bodies: Mapping[str, Any] = {}  # media type: type, or None for free bytes
    answers: Mapping[int, Says] = msgspec.field(default_factory=lambda: {200: Says()})
    open: bool = False  # needs no credential
    description: str = ""
    body_bytes_max: int | None = None  # None: the house's limit

    @property
    def parameters(self) -> list[str]:
        """The names in the path's braces."""
        return _BRACES.findall(self.path)


class Call:
    """One request, as a handler sees it."""

    def __init__(
        self, route: Route, house: House, quart_request: Request, path: Mapping[str, str]
    ) -> None:
        self.route = route
        self.house = house
        self.request = quart_request
        self.path = path  # the values of the path's braces
        self._principal: Principal | None = None

    @property
    def principal(self) -> Principal:
        """Who asks. On an open route this raises Unauthenticated where nobody says who they are."""
        if self._principal is None:
            header = self.request.headers.get("Authorization")
            self._principal = self.house.credentials.authorization(header)
        return self._principal

    @property
    def person(self) -> Principal:
        """Who asks, if it is a person: keys read nothing, and get Forbidden."""
        if self.principal.kind != "user":
            raise Forbidden("A key publishes and reads nothing: ask with a user's token.")
        return self.principal

    def query_as(self, kind: type[S]) -> S:
        """Return the query string as `kind`; raises Malformed, naming the parameter."""
        return parse_query(kind, self.request.args)

    async def body(self) -> bytes:
        """Return the body; raises TooLarge, or Unsupported for a type that is not declared."""
        kind = (self.request.content_type or "").partition(";")[0].strip().lower()
        if kind not in self.route.bodies:
            raise Unsupported(
                f"Content-Type {kind[:64] or '(none)'} is not read here; "
                f"{', '.join(self.route.bodies)} is."
            )
        bytes_max = self.route.body_bytes_max or self.house.limits.body_bytes_max
        data: bytes = await self.request.get_data(as_text=False)  # type: ignore[assignment]
        if len(data) > bytes_max:
            raise TooLarge(f"The body has {len(data)} bytes; at most {bytes_max} are taken.")
        return data

    async def body_as(self, kind: type[S]) -> S:
        """Return the JSON body as `kind`; raises as `body`, and Malformed with msgspec's path."""
        try:
            return msgspec.json.decode(await self.body(), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Malformed(f"The body does not fit: {error}"[:500]) from None


def wing(name: str, routes: Sequence[Route], house: House) -> Blueprint:
    """Return a Quart blueprint that serves those routes of the table that have a handler."""
    blueprint = Blueprint(name, name)
    for route in routes:
        if route.handler is not None:
            _add(blueprint, route, route.handler, house)
    return blueprint


def parse_query(kind: type[S], given: MultiDict[str, str]) -> S:
    """Return a query string as a struct: strings become numbers, times and lists as it asks for."""
    lists = _list_fields(cast("Any", kind))
    plain: dict[str, Any] = {}
    for name, values in given.lists():
        if name not in lists and len(values) > 1:
            raise Malformed(
                f"`{name[:64]}` stands {len(values)} times in the query: once is enough."
            )
        plain[name] = list(values) if name in lists else values[0]
    try:
        return msgspec.convert(plain, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Malformed(f"The query does not fit: {error}"[:500]) from None


def _add(
    blueprint: Blueprint, route: Route, handler: Callable[[Call], Awaitable[Answer]], house: House
) -> None:
    async def view(**path: str) -> Response:
        call = Call(route, house, request._get_current_object(), path)  # type: ignore[attr-defined]  # noqa: SLF001
        if not route.open:
            principal = call.principal
            if house.limiter is not None:
                house.limiter.take(principal, request.remote_addr, events=0, bytes_=0)
        if route.query is None and request.args:
            raise Malformed(f"There is no query here: leave out `{next(iter(request.args))[:64]}`.")
        return _response(await handler(call))

    blueprint.add_url_rule(
        _BRACES.sub(r"<\1>", route.path),
        endpoint=_BRACES.sub(r"\1", f"{route.method} {route.path}").replace(".", "-"),
        view_func=view,
        methods=[route.method],
        provide_automatic_options=False,
    )


def _response(answer: Answer) -> Response:
    headers = {"content-type": answer.media, "cache-control": "no-store", **answer.headers}
    value = answer.value
    if isinstance(value, bytes | AsyncIterable):
        body: Any = value
    elif value is None:
        body = b""
    else:
        body = msgspec.json.encode(value, order="deterministic")
    if answer.status == 204:
        headers.pop("content-type")
    response = Response(body, answer.status, headers)
    if isinstance(value, AsyncIterable):
        response.timeout = None  # a stream has limits of its own
    return response


@cache  # typing takes 2 ms to tell, and a kind never changes
def _list_fields(kind: Any) -> frozenset[str]:
    return frozenset(
        field.encode_name
        for field in msgspec.structs.fields(kind)
        if _is_list(msgspec.inspect.type_info(field.type))
    )


def _is_list(info: Any) -> bool:
    if isinstance(info, msgspec.inspect.UnionType):
        return any(_is_list(kind) for kind in info.types)
    if isinstance(info, msgspec.inspect.Metadata):
        return _is_list(info.type)
    return isinstance(
        info,
        msgspec.inspect.ListType
        | msgspec.inspect.FrozenSetType
        | msgspec.inspect.SetType
        | msgspec.inspect.VarTupleType,
    )


def all_of(app: Quart) -> set[tuple[str, str]]:
    """Return every method and path that `app` serves: a test holds the table to it."""
    return {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS")
    }


_BRACES = re.compile(r"\{(\w+)\}")
