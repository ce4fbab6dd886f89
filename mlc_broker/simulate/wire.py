"""Two ways to publish, WebSocket and HTTP, that judge every ack they get against the ledger."""

from __future__ import annotations

import gzip
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio
from trio_websocket import (
    ConnectionClosed,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from mlc_broker.model.batch import Outcome
from mlc_broker.model.event import rfc3339
from mlc_broker.runtime.clock import Clock
from mlc_broker.simulate.ledger import Difference, Ledger, Sent
from mlc_broker.simulate.web import Away, Refused, open_stream, request

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
RETRY_SECONDS = 0.2
RETRY_SECONDS_MAX = 5.0
WAIT_CODES = frozenset({"rate_limited", "unavailable"})


class Again(msgspec.Struct, frozen=True):
    """What must be sent again, and after how many seconds."""

    batch: Sequence[Sent]
    after_seconds: float = RETRY_SECONDS


class WebSocketClient:
    """One connection, greeted. `send` and `answer` may be pipelined; acks come in order.

    `nursery` runs the connection's reader until `close` or `cut`.
    """

    def __init__(
        self,
        connection: WebSocketConnection,
        stream: trio.abc.Stream,
        ledger: Ledger,
        clock: Clock,
        *,
        encoding: str = "json",
        clock_off_seconds: float = 0.0,
        answer_seconds_max: float = 30.0,
    ) -> None:
        self.welcome: dict[str, Any] = {}
        self._connection = connection
        self._stream = stream
        self._ledger = ledger
        self._clock = clock
        self._binary = encoding == "messagepack"
        self._off = timedelta(seconds=clock_off_seconds)
        self._answer_seconds_max = answer_seconds_max
        self._open: deque[tuple[str, Sequence[Sent], bool]] = deque()
        self._number = 0

    @classmethod
    async def connect(
        cls,
        nursery: trio.Nursery,
        url: str,
        token: str,
        ledger: Ledger,
        clock: Clock,
        *,
        connect_seconds_max: float = 10.0,
        **options: Any,
    ) -> WebSocketClient:
        """Connect and say hello. Raise Away when nobody is there, Refused when not let in."""
        stream = await open_stream(url, seconds_max=connect_seconds_max)
        there = urlsplit(url)
        try:
            with trio.fail_after(connect_seconds_max):
                connection = await wrap_client_stream(
                    nursery,
                    stream,
                    there.netloc,
                    there.path or "/",
                    max_message_size=MESSAGE_BYTES_MAX,
                    receive_buffer_size=65_536,
                )
            client = cls(connection, stream, ledger, clock, **options)
            await client._greet(token)
        except (HandshakeError, OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            await trio.aclose_forcefully(stream)
            raise Away(f"{url}: {error!r}") from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return client

    async def send(self, batch: Sequence[Sent]) -> None:
        """Send one publish. Raise Away when the connection is gone."""
        whole = any(sent.copy or sent.sent for sent in batch)
        self._number += 1
        message: dict[str, Any] = {
            "op": "publish",
            "id": f"b-{self._number}",
            "sent_at": rfc3339(self._clock.now() + self._off),
            "events": [sent.event for sent in batch],
        }
        if whole:
            message["receipts"] = "all"
        for sent in batch:
            self._ledger.leave(sent)
        self._open.append((message["id"], batch, whole))
        await self._say(message)

    async def answer(self) -> Again:
        """Read the answer to the oldest open publish. Raise Away, or Refused."""
        name, batch, whole = self._open[0]
        reply = await self._hear()
        self._open.popleft()
        if reply.get("op") == "error" and reply.get("code") in WAIT_CODES:
            return Again(batch, _seconds(reply.get("retry_after_ms")))
        if reply.get("op") != "ack" or reply.get("id") != name:
            self._ledger.differ(Difference.PROTOCOL, f"no ack of {name}: {reply}")
            raise Refused(f"no ack of {name}: {str(reply)[:300]}")
        return take_ack(self._ledger, batch, reply, whole=whole)

    async def publish(self, batch: Sequence[Sent]) -> Again:
        """Send one batch and wait for its ack."""
        await self.send(batch)
        return await self.answer()

    async def close(self) -> None:
        """Say goodbye, for a second at most."""
        with trio.move_on_after(1, shield=True):
            await self._connection.aclose()
        await self.cut()

    async def cut(self) -> None:
        """Drop the line without a word, as a train in a tunnel does."""
        await trio.aclose_forcefully(self._stream)

    async def _greet(self, token: str) -> None:
        await self._say({"op": "hello", "token": token, "client": "mlc-broker-simulate"})
        reply = await self._hear()
        if reply.get("op") != "welcome":
            raise Refused(f"not let in: {reply.get('code')}: {reply.get('detail')}")
        self.welcome = reply

    async def _say(self, message: dict[str, Any]) -> None:
        try:
            with trio.fail_after(self._answer_seconds_max):
                if self._binary:
                    await self._connection.send_message(msgspec.msgpack.encode(message))
                else:
                    await self._connection.send_message(msgspec.json.encode(message).decode())
        except (ConnectionClosed, trio.BrokenResourceError, trio.TooSlowError) as error:
            raise Away(f"the connection is gone: {error!r}") from error
        except trio.ClosedResourceError as error:
            raise Away("the connection is closed") from error

    async def _hear(self) -> dict[str, Any]:
        try:
            with trio.fail_after(self._answer_seconds_max):
                message = await self._connection.get_message()
        except (ConnectionClosed, trio.BrokenResourceError, trio.TooSlowError) as error:
            raise Away(f"no answer: {error!r}") from error
        try:
            if isinstance(message, str):
                return msgspec.json.decode(message, type=dict[str, Any])
            return msgspec.msgpack.decode(message, type=dict[str, Any])
        except ValueError as error:
            self._ledger.differ(Difference.PROTOCOL, f"not a message: {message[:200]!r}")
            raise Refused(f"not a message: {error}") from error


class HttpClient:
    """Publishing by `POST /v1/events`, in one body form after the other, and by beacon."""

    def __init__(
        self,
        base: str,
        token: str,
        ledger: Ledger,
        clock: Clock,
        *,
        encoding: str = "json",
        clock_off_seconds: float = 0.0,
        answer_seconds_max: float = 30.0,
    ) -> None:
        self._base = base
        self._token = token
        self._ledger = ledger
        self._clock = clock
        self._binary = encoding == "messagepack"
        self._off = timedelta(seconds=clock_off_seconds)
        self._answer_seconds_max = answer_seconds_max
        self._number = 0

    async def publish(self, batch: Sequence[Sent]) -> Again:
        """Post one batch, every other time compressed."""
        self._number += 1
        body: dict[str, Any] = self._body(batch)
        packed = msgspec.msgpack.encode(body) if self._binary else msgspec.json.encode(body)
        headers: tuple[tuple[str, str], ...] = ()
        if self._number % 2:
            packed, headers = gzip.compress(packed, 1), (("Content-Encoding", "gzip"),)
        kind = "application/msgpack" if self._binary else "application/json"
        return await self._post("/v1/events", batch, packed, kind, headers, token=self._token)

    async def beacon(self, batch: Sequence[Sent]) -> Again:
        """Send what is left at the end of a page, as `navigator.sendBeacon` does."""
        body = msgspec.json.encode(self._body(batch) | {"token": self._token})
        return await self._post("/v1/beacon", batch, body, "text/plain;charset=UTF-8")

    async def close(self) -> None:
        """Nothing is kept open."""

    async def cut(self) -> None:
        """Nothing is kept open."""

    def _body(self, batch: Sequence[Sent]) -> dict[str, Any]:
        sent_at = rfc3339(self._clock.now() + self._off)
        return {"sent_at": sent_at, "events": [sent.event for sent in batch]}

    async def _post(
        self,
        path: str,
        batch: Sequence[Sent],
        body: bytes,
        content_type: str,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        token: str | None = None,
    ) -> Again:
        for sent in batch:
            self._ledger.leave(sent)
        answer = await request(
            self._base,
            "POST",
            path,
            token=token,
            body=body,
            content_type=content_type,
            headers=headers,
            seconds_max=self._answer_seconds_max,
        )
        if answer.status in {429, 503} and b'"receipts"' not in answer.body:
            return Again(batch, answer.retry_after_seconds)
        if answer.status not in {200, 503}:
            raise Refused(f"{path}: {answer.status} {answer.body[:300]!r}", status=answer.status)
        return take_ack(self._ledger, batch, answer.json(), whole=False)


def take_ack(ledger: Ledger, batch: Sequence[Sent], ack: dict[str, Any], *, whole: bool) -> Again:
    """Judge one ack: its counts, its receipts. Return what must be sent again.

    `whole`: every receipt was asked for; else those not listed are stored or duplicates.
    """
    counts = {outcome: _count(ack.get(outcome)) for outcome in Outcome}
    if sum(counts.values()) != len(batch):
        ledger.differ(Difference.PROTOCOL, f"{len(batch)} events, but the ack counts {counts}")
    listed = {}
    for receipt in ack.get("receipts") or ():
        listed[receipt.get("index")] = receipt
    if whole and len(listed) != len(batch):
        ledger.differ(Difference.PROTOCOL, f"{len(batch)} events, {len(listed)} receipts")
    spare = counts[Outcome.DUPLICATE]  # duplicates that are not listed: copies first
    copies = sum(sent.copy for position, sent in enumerate(batch) if position not in listed)
    again: list[Sent] = []
    for position, sent in enumerate(batch):
        receipt = listed.get(position)
        if receipt is None:
            old = spare > 0 if sent.copy else spare > copies and sent.sent > 1
            spare -= old
            copies -= sent.copy
            ledger.receive(sent, Outcome.DUPLICATE if old else Outcome.STORED)
            continue
        outcome = _outcome(receipt.get("outcome"))
        if outcome is None or receipt.get("event_id") not in {sent.event_id, _own_id(sent)}:
            ledger.differ(Difference.PROTOCOL, f"a receipt of {sent.event_id}: {receipt}")
            continue
        ledger.receive(sent, outcome, receipt.get("reason") or "", receipt.get("detail") or "")
        if outcome is Outcome.RETRY:
            again.append(sent)
    if not whole and spare > 0:
        ledger.differ(Difference.PROTOCOL, f"{spare} duplicates among events sent once: {ack}")
    return Again(again, _seconds(ack.get("retry_after_ms")))


def _own_id(sent: Sent) -> Any:
    return sent.event.get("event_id") if isinstance(sent.event, dict) else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _outcome(value: Any) -> Outcome | None:
    try:
        return Outcome(value)
    except ValueError:
        return None


def _seconds(milliseconds: Any) -> float:
    if not isinstance(milliseconds, int | float):
        return RETRY_SECONDS
    return max(0.0, min(RETRY_SECONDS_MAX, milliseconds / 1000))
