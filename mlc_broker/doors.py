"""The two doors: where they listen, with which locks, and what goes on behind them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
import trio

from mlc_broker import wiring
from mlc_broker.config import Config
from mlc_broker.edge import sockets
from mlc_broker.edge.server import ASGIApp, serve_http
from mlc_broker.edge.websocket import Converse, serve_websocket
from mlc_broker.runtime.systemd import handed_sockets

log = structlog.get_logger("doors")


async def open_doors(
    nursery: trio.Nursery,
    config: Config,
    *,
    converse: Converse,
    application: Callable[[str], ASGIApp],
    stopping: trio.Event,
) -> tuple[str, str]:
    """Listen until `stopping`; return the addresses of both doors as clients write them.

    `application` makes the HTTP application, once the WebSocket's address is known. Raises
    ConfigError where an address or a certificate cannot be used.
    """
    handed = handed_sockets()
    secure_ws, secure_http = _tls(config, config.websocket), _tls(config, config.http)
    ws = await _listeners(handed.get("websocket"), config.websocket.listen)
    http = await _listeners(handed.get("http"), config.http.listen)
    origins = config.websocket.origins
    ws_names: list[str] = await nursery.start(
        partial(
            serve_websocket,
            converse,
            ws,
            stopping=stopping,
            limits=wiring.websocket_limits(config),
            ssl_context=secure_ws,
            origins=frozenset(origins) if origins else None,
            on_trouble=partial(_trouble, "websocket"),
        )
    )
    ws_address = f"{'wss' if secure_ws else 'ws'}://{ws_names[0]}"
    http_names: list[str] = await nursery.start(
        partial(
            serve_http,
            application(f"{ws_address}/v1/stream"),
            http,
            shutdown=stopping,
            limits=wiring.http_limits(config),
            ssl_context=secure_http,
            on_trouble=partial(_trouble, "http"),
        )
    )
    return ws_address, f"{'https' if secure_http else 'http'}://{http_names[0]}"


async def _listeners(handed: Any, listen: str) -> list[trio.SocketListener]:
    if handed is not None:
        return sockets.inherit([handed.detach()])
    return await sockets.listen(listen)


def _tls(config: Config, door: Any) -> Any:
    if door.tls_certificate is None:
        return None
    return sockets.tls_context(
        config.secret_path(door.tls_certificate), config.secret_path(door.tls_key or "")
    )


def _trouble(door: str, error: BaseException) -> None:
    log.warning("connection lost", door=door, kind=type(error).__name__)
