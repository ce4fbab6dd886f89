"""The HTTP door: hypercorn's trio worker, one guard around each connection, a limit on everything.

hypercorn ends as a whole when one connection fails in a way that nobody foresaw, and shields its
sends without a limit. Its parts are used here (application tasks, HTTP/1.1 protocol, lifespan);
the accept loop, the deadlines and the guard are ours.
"""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import wrap_app
from quart import Request
from quart.asgi import ASGIHTTPConnection
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection

from mlc_broker.edge import sockets
from mlc_broker.edge.framing import check_h11
from mlc_broker.edge.guest import HttpGuest, HttpLimits, check_hypercorn, problem

ASGIApp = Callable[
    [Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]
LIBRARY_LOGS = ("hypercorn.error", "quart.app", "quart.serving", "trio-websocket")


async def serve_http(
    app: ASGIApp,
    listeners: Sequence[sockets.Listener],
    *,
    shutdown: trio.Event,
    limits: HttpLimits | None = None,
    ssl_context: ssl.SSLContext | None = None,
    on_trouble: Callable[[BaseException], None] = lambda _: None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application over HTTP/1.1 until `shutdown` is set; then end in order.

    Requests in hand are finished within `stop_seconds_max`; a stream that never ends (server-sent
    events) must watch the daemon's stop by itself. `on_trouble` hears of every contained failure.
    Raises ConfigError where an installed library is not the one that the guard was tried against.
    """
    check_h11()
    check_hypercorn()
    quiet_libraries()
    limits = limits or HttpLimits()
    config = _hypercorn_config(limits, on_trouble)
    wrapped = wrap_app(cast("Any", app), limits.body_bytes_max, "asgi")
    lifespan = Lifespan(wrapped, config, {})
    async with trio.open_nursery() as background:
        await background.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        door = Door(wrapped, config, limits, on_trouble)
        await door.serve(sockets.encrypt(listeners, ssl_context), shutdown, task_status)
        await lifespan.wait_for_shutdown()
        background.cancel_scope.cancel()


class Door:
    """The accept loop and the guests inside."""

    def __init__(
        self,
        app: Any,
        config: Config,
        limits: HttpLimits,
        on_trouble: Callable[[BaseException], None],
    ) -> None:
        self._limits = limits
        self._on_trouble = on_trouble
        self._context = WorkerContext(None)
        self._guest = partial(HttpGuest, app, config, self._context, limits)
        self._guests: set[HttpGuest] = set()
        self._keeper = sockets.Doorkeeper(
            connections_max=limits.connections_max,
            connections_per_address_max=limits.connections_per_address_max,
        )

    async def serve(
        self,
        listeners: list[sockets.Listener],
        shutdown: trio.Event,
        task_status: trio.TaskStatus[list[str]],
    ) -> None:
        """Accept and serve until the shutdown; then let requests in hand finish, within limits."""
        names = sockets.addresses(listeners)
        async with trio.open_nursery() as guests, trio.open_nursery() as accepting:
            accept = partial(trio.serve_listeners, self._guard, listeners, handler_nursery=guests)
            accepting.start_soon(accept)
            task_status.started(names)
            await shutdown.wait()
            accepting.cancel_scope.cancel()
            await self._context.terminated.set()
            guests.cancel_scope.deadline = trio.current_time() + self._limits.stop_seconds_max
            for guest in list(self._guests):
                guest.leave_if_idle()

    async def _guard(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        """Contain whatever one connection brings: it may end itself, never the door."""
        guest = self._guest(stream)
        self._guests.add(guest)
        try:
            with self._keeper.admit(guest.address) as admitted:
                await (guest.run() if admitted else guest.turn_away())
        except* Exception as troubles:  # noqa: BLE001
            self._on_trouble(troubles)
        finally:
            self._guests.discard(guest)
            await trio.aclose_forcefully(stream)


class Front:
    """Sends the hot requests straight to their own applications, all others to the big one."""

    def __init__(
        self,
        fast: Mapping[tuple[str, str], ASGIApp],
        app: ASGIApp,
        *,
        requests_max: int = 1_000,
    ) -> None:
        self._fast = dict(fast)
        self._app = app
        self._requests_max = requests_max  # in hand at once; streams count while they last
        self._requests = 0

    async def __call__(
        self,
        scope: Any,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Serve one ASGI scope. Lifespan and everything but HTTP belongs to the big one."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._requests >= self._requests_max:
            headers, body = problem(503, "Too many requests are in hand: ask again in a moment.")
            headers.append((b"retry-after", b"1"))
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        self._requests += 1
        try:
            app = self._fast.get((scope["method"], scope["path"]), self._app)
            await app(scope, receive, send)
        finally:
            self._requests -= 1


class HTTPConnection(TrioASGIHTTPConnection):
    """Let a response's last message finish: `mend_quart` sets `app.asgi_http_class` to this.

    While the last message is sent, hypercorn tells the application that the request is over;
    quart-trio then cancels the sending itself, so the connection is neither closed nor re-armed.
    """

    _last_words = False

    async def handle_messages(  # type: ignore[override]
        self, nursery: trio.Nursery, request: Request, receive: Any
    ) -> None:
        """Take the request's body; a guest that leaves ends the handler, unless it is done."""
        await ASGIHTTPConnection.handle_messages(self, request, receive)
        if not self._last_words:
            nursery.cancel_scope.cancel()

    async def handle_request(  # type: ignore[override]
        self, nursery: trio.Nursery, request: Request, send: Any
    ) -> None:
        """Answer, and remember when the last message is on its way."""

        async def noting(message: Any) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._last_words = True
            await send(message)

        await super().handle_request(nursery, request, noting)


def mend_quart(app: QuartTrio) -> None:
    """Make a Quart application fit for this door: its connections end, its log tells no secrets."""
    app.asgi_http_class = HTTPConnection
    quiet_libraries(app.logger.name)


class NoPayloads(logging.Filter):
    """Takes from a library's record what a guest could have put there: messages of exceptions."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record, with the place of an exception instead of its words."""
        if record.exc_info and record.exc_info[1] is not None:
            record.msg = f"a request failed: {where(record.exc_info[1])}"
            record.args = ()
            record.exc_info = record.exc_text = None
        return True


def quiet_libraries(*more: str) -> None:
    """Keep payloads, paths and tokens out of what the libraries log; `more` names further loggers.

    trio-websocket and hypercorn write what they receive at DEBUG: they stay at WARNING.
    """
    for name in (*LIBRARY_LOGS, *more):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
        if not any(isinstance(it, NoPayloads) for it in logger.filters):
            logger.addFilter(NoPayloads())


def where(error: BaseException) -> str:
    """Say what kind of error it is and where it came from; never what it says."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    trace, place = error.__traceback__, "nowhere"
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} in {code.co_name}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {place}"


def _hypercorn_config(limits: HttpLimits, on_trouble: Callable[[BaseException], None]) -> Config:
    config = Config()
    config.include_server_header = False
    config.errorlog = logging.getLogger("hypercorn.error")
    config.keep_alive_max_requests = limits.requests_per_connection_max
    config.h11_max_incomplete_size = limits.head_bytes_max
    config.startup_timeout = config.shutdown_timeout = limits.stop_seconds_max
    # hypercorn makes its log from a class; ours has to be told whom to tell.
    config._log = _Log(config, on_trouble)  # noqa: SLF001
    return config


class _Log(Logger):
    """hypercorn's log: what went wrong in an application goes where all contained failures go."""

    def __init__(self, config: Config, on_trouble: Callable[[BaseException], None]) -> None:
        super().__init__(config)
        self._on_trouble = on_trouble

    async def exception(self, message: str, *_args: Any, **_kwargs: Any) -> None:
        error = sys.exc_info()[1]
        self._on_trouble(error if error is not None else RuntimeError(message))
