"""Pages and files: the console, the demo, and the browser client. Read once, served from memory."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct
from quart import Blueprint

from mlc_broker.edge.house import House
from mlc_broker.edge.problems import Problem
from mlc_broker.edge.routes import Answer, Call, Route, Says, wing
from mlc_broker.model.errors import Forbidden, NotFound

STATIC = Path(__file__).parent.parent / "static"
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
    ".json": "application/json",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src {connect}; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_GUARDS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}
_YEAR_SECONDS = 31_536_000
_MINUTES_SECONDS = 300

Handler = Callable[[Call], Awaitable[Answer]]


class DemoToken(Struct, frozen=True):
    """What the demo page needs, in `serve --dev`."""

    token: str  # of a student
    url: str  # of the WebSocket


class Version(Struct, frozen=True, forbid_unknown_fields=True):
    """`v` is the entity tag of a file: then it may be kept for a year."""

    v: Annotated[str, Meta(max_length=64)] | None = None


class File(Struct, frozen=True):
    """A static file."""

    data: bytes
    media: str
    tag: str


def pages_wing(
    house: House, demo_token: Callable[[], DemoToken] | None = None
) -> tuple[Blueprint, list[Route]]:
    """Return the pages and their routes; `demo_token` is there in `serve --dev` only."""
    routes = [
        *_page("console", "The web console", connect="'self'"),
        *_page("demo", "A game that reports what it does", connect="'self' ws: wss:"),
        Route(
            "GET",
            "/sdk/{file}",
            "The browser client: mlc-events.js, and its types in .d.ts",
            _sdk(files_of(STATIC / "sdk")),
            query=Version,
            answers={
                200: Says(None, "the file", media=("text/javascript", "text/plain")),
                304: Says(None, "it is the one that you have"),
            },
            open=True,
        ),
    ]
    if demo_token is not None:
        routes.insert(0, _demo_token(demo_token))
    return wing("pages", routes, house), routes


def files_of(folder: Path) -> Mapping[str, File]:
    """Return the files of a folder by their names; none where there is no folder."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        path.name: File(data, MEDIA[path.suffix], hashlib.blake2b(data, digest_size=12).hexdigest())
        for path in found
        if path.suffix in MEDIA and (data := path.read_bytes()) is not None
    }


def _page(name: str, summary: str, *, connect: str) -> list[Route]:
    """Return the routes of a page and of the files beside it, under a strict policy."""
    files = files_of(STATIC / name)
    headers = _GUARDS | {"content-security-policy": _POLICY.format(connect=connect)}

    def show(file: str) -> Answer:
        found = files.get(file)
        if found is None:
            raise NotFound(f"There is no such file here; the page itself is /{name}/.")
        return Answer(found.data, media=found.media, headers=headers)

    async def page(call: Call) -> Answer:
        if not call.request.path.endswith("/"):  # what the page names stands beside it
            return Answer(None, 308, headers={"location": f"/{name}/"})
        return show("index.html")

    async def beside(call: Call) -> Answer:
        return show(call.path["file"])

    html, any_media = ("text/html",), tuple(kind.partition(";")[0] for kind in MEDIA.values())
    moved = Says(None, "with a slash at the end", media=())
    return [
        Route(
            "GET",
            f"/{name}/",
            summary,
            page,
            answers={200: Says(None, media=html), 308: moved},
            open=True,
        ),
        Route(
            "GET",
            f"/{name}/{{file}}",
            f"A file of /{name}/",
            beside,
            answers={200: Says(None, media=any_media)},
            open=True,
        ),
    ]


def _sdk(files: Mapping[str, File]) -> Handler:
    async def file(call: Call) -> Answer:
        found = files.get(call.path["file"])
        if found is None:
            raise NotFound(f"There is no such file; there are {', '.join(files) or 'none'}.")
        named = call.query_as(Version).v == found.tag
        keep = f"max-age={_YEAR_SECONDS}, immutable" if named else f"max-age={_MINUTES_SECONDS}"
        headers = {
            "cache-control": f"public, {keep}",
            "etag": f'"{found.tag}"',
            "x-content-type-options": "nosniff",
            "cross-origin-resource-policy": "cross-origin",
        }
        if f'"{found.tag}"' in call.request.headers.get("If-None-Match", ""):
            return Answer(None, 304, found.media, headers)
        return Answer(found.data, 200, found.media, headers)

    return file


def _demo_token(make: Callable[[], DemoToken]) -> Route:
    async def token(call: Call) -> Answer:
        # Another site's page must not help itself to a token because a developer runs this.
        if call.request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise Forbidden("This token is for the demo page of this daemon.")
        return Answer(make())

    return Route(
        "GET",
        "/demo/token",
        "A token for the demo page (`serve --dev` only)",
        token,
        answers={200: Says(DemoToken), 403: Says(Problem, "for the demo page only")},
        open=True,
    )
