"""One publish and its answer: over the WebSocket, or over HTTP where that does not open."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import trio
from trio_websocket import (
    ConnectionClosed,
    HandshakeError,
    WebSocketConnection,
    connect_websocket_url,
)

CLIENT = "mlc-events-python/1.0.0"
STREAM_REST_SECONDS = 30.0


class Refused(Exception):
    """The publish was not carried out: the broker's code, and how long it asks to wait."""

    def __init__(self, code: str, wait_seconds: float = 0.0) -> None:
        super().__init__(code)
        self.code = code
        self.wait_seconds = wait_seconds


class Wire:
    """The way to one broker. Not for two publishes at once."""

    def __init__(self, url: str, token: str, stream: str | None, answer_seconds_max: float) -> None:
        self._url = url.rstrip("/")
        self._stream = stream or self._url.replace("http", "ws", 1) + "/v1/stream"
        self._token = token
        self._patience = answer_seconds_max
        self._socket: WebSocketConnection | None = None
        self._rests_until = 0.0
        self._publishes = 0

    async def publish(self, nursery: trio.Nursery, events: list[str]) -> dict[str, Any]:
        """Send events, each already JSON; the ack. Raises Refused, OSError or trio.TooSlowError."""
        body = f'"sent_at":"{datetime.now(UTC).isoformat()}","events":[{",".join(events)}]}}'
        with trio.fail_after(self._patience):
            socket = await self._open(nursery)
            if socket is None:
                return await trio.to_thread.run_sync(self._post, "{" + body, abandon_on_cancel=True)
            try:
                self._publishes += 1
                await socket.send_message(f'{{"op":"publish","id":"b{self._publishes}",{body}')
                return _checked(json.loads(await socket.get_message()))
            except (ConnectionClosed, trio.Cancelled):
                self._socket = None  # an answer that comes late would be taken for another's
                nursery.start_soon(socket.aclose)
                raise

    async def close(self) -> None:
        """Say goodbye, for at most a second."""
        if self._socket is not None:
            with trio.move_on_after(1):
                await self._socket.aclose()

    async def _open(self, nursery: trio.Nursery) -> WebSocketConnection | None:
        if self._socket is not None or trio.current_time() < self._rests_until:
            return self._socket
        try:
            socket = await connect_websocket_url(nursery, self._stream)
            await socket.send_message(
                json.dumps({"op": "hello", "token": self._token, "client": CLIENT})
            )
            _checked(json.loads(await socket.get_message()))
        except (OSError, HandshakeError, ConnectionClosed):
            self._rests_until = trio.current_time() + STREAM_REST_SECONDS
            return None
        self._socket = socket
        return socket

    def _post(self, body: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = Request(self._url + "/v1/events", body.encode(), headers)  # noqa: S310 (ours)
        context = ssl.create_default_context() if self._url.startswith("https") else None
        try:
            with urlopen(request, timeout=self._patience, context=context) as answer:  # noqa: S310
                return _checked(json.load(answer))
        except HTTPError as error:
            with error:
                said = _parsed(error.read())
                if "receipts" in said:
                    return said
                wait = float(error.headers.get("Retry-After") or 0)
            raise Refused(str(said.get("code", error.code)), wait) from None


def _checked(message: dict[str, Any]) -> dict[str, Any]:
    if "code" in message:
        raise Refused(message["code"], message.get("retry_after_ms", 0) / 1000)
    return message


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
