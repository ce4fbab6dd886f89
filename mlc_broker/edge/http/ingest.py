"""`POST /v1/events` and `/v1/beacon`, in front of Quart: as little as possible stands in the way."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeAlias

import msgspec
import trio
from msgspec import Meta, Struct

from mlc_broker.edge import bodies, codec
from mlc_broker.edge.house import House
from mlc_broker.edge.mailbox import WHOLE
from mlc_broker.edge.messages import Counts, Submission
from mlc_broker.edge.problems import Problem, headers_of, problem, problem_of, unforeseen_problem
from mlc_broker.edge.routes import Route, Says
from mlc_broker.edge.server import where
from mlc_broker.model.batch import Outcome
from mlc_broker.model.errors import ClientError, Malformed, TooLarge
from mlc_broker.model.principal import Principal

Scope: TypeAlias = Any
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Tell: TypeAlias = Callable[[Any], Awaitable[None]]
log = logging.getLogger("mlc_broker.edge")


class Ingest:
    """Both routes as plain ASGI applications."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def events(self, scope: Scope, receive: Receive, send: Tell) -> None:
        """Serve `POST /v1/events`."""
        await self._serve(self._publish, scope, receive, send)

    async def beacon(self, scope: Scope, receive: Receive, send: Tell) -> None:
        """Serve `POST /v1/beacon`."""
        await self._serve(self._beacon, scope, receive, send)

    async def _publish(
        self, headers: dict[bytes, bytes], scope: Scope, receive: Receive
    ) -> Counts | Problem:
        principal = self._house.credentials.authorization(_text(headers, b"authorization"))
        kind = _text(headers, b"content-type")
        data = await self._body(headers, scope, receive)
        submission = bodies.read_body(data, kind, self._house.limits)
        return await self._submit(submission, principal, len(data), scope, "http")

    async def _beacon(
        self, headers: dict[bytes, bytes], scope: Scope, receive: Receive
    ) -> Counts | Problem:
        kind = _text(headers, b"content-type")
        data = await self._body(headers, scope, receive)
        token, submission = bodies.read_beacon(data, kind, self._house.limits)
        principal = self._house.credentials.verify(token)
        return await self._submit(submission, principal, len(data), scope, "beacon")

    async def _submit(
        self, submission: Submission, principal: Principal, size: int, scope: Scope, transport: str
    ) -> Counts | Problem:
        house = self._house
        if house.limiter is not None:
            client = scope.get("client")
            address = client[0] if client else None
            house.limiter.take(principal, address, events=len(submission.events), bytes_=size)
        batch = house.admission.admit(submission, principal, transport)
        receipts = await house.submit(batch)
        if receipts and all(receipt.outcome is Outcome.RETRY for receipt in receipts):
            reason = receipts[0].detail or receipts[0].reason
            return problem(
                503,
                "unavailable",
                f"No event could be stored now{f' ({reason})' if reason else ''}: send all again later.",
                retry_after_ms=house.retry_after_ms,
            )
        return codec.counts(
            receipts,
            batch.event_ids,
            receipts_all=submission.receipts_all,
            retry_after_ms=house.retry_after_ms,
        )

    async def _body(self, headers: dict[bytes, bytes], scope: Scope, receive: Receive) -> bytes:
        bytes_max = self._house.limits.body_bytes_max
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > bytes_max:
            raise TooLarge(
                f"The body has {length.decode()[:20]} bytes; at most {bytes_max} are taken."
            )
        is_here = (scope.get("extensions") or {}).get(WHOLE)
        if is_here is not None and is_here():
            data = await _collect(receive, bytes_max)  # without a clock, which costs something
        else:
            with trio.move_on_after(self._house.body_seconds_max) as patience:
                data = await _collect(receive, bytes_max)
            if patience.cancelled_caught:
                raise _TooSlow("The body did not come in time: send smaller ones.")
        return bodies.inflate(data, _text(headers, b"content-encoding"), bytes_max)

    async def _serve(
        self,
        answer: Callable[[dict[bytes, bytes], Scope, Receive], Awaitable[Counts | Problem]],
        scope: Scope,
        receive: Receive,
        send: Tell,
    ) -> None:
        told: Counts | Problem
        try:
            told = await answer(dict(scope["headers"]), scope, receive)
        except ClientError as error:
            told = problem_of(error)
        except _Gone:
            return
        except Exception as error:  # noqa: BLE001 - one request's trouble, never the door's
            log.error("a request failed: %s", where(error))  # noqa: TRY400 - its words may be a sender's
            told = unforeseen_problem()
        await _reply(send, told)


class Envelope(Struct, frozen=True):
    """Events with the sender's own time, so that its clock can be corrected."""

    events: list[dict[str, Any]]
    sent_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})] | None = None
    receipts: Annotated[str, Meta(description='"all" asks for every receipt')] | None = None


class BeaconEnvelope(Struct, frozen=True):
    """What a page sends when it is closed."""

    token: str
    events: list[dict[str, Any]]
    sent_at: str | None = None


_ANSWERS = {
    200: Says(Counts, "What became of the events; the counts add up to those sent"),
    429: Says(Problem),
    503: Says(Problem, "No event of the body could be stored now: send all again later"),
}
ROUTES = [
    Route(
        "POST",
        "/v1/events",
        "Publish events",
        bodies={
            bodies.JSON: dict[str, Any] | list[dict[str, Any]],
            bodies.LINES: None,
            bodies.MSGPACK: None,
        },
        answers=_ANSWERS,
        description="One event, an array, or an object with `sent_at` and `events`; one a line, or "
        "MessagePack; `Content-Encoding: gzip` or `zstd`. GET /v1/schemas tells what an event is.",
    ),
    Route(
        "POST",
        "/v1/beacon",
        "Publish events as the page is closed",
        bodies={bodies.TEXT: str},
        answers={**_ANSWERS, 401: Says(Problem), 403: Says(Problem)},
        open=True,
        description="For `navigator.sendBeacon`: the body is the JSON object "
        '`{"token", "sent_at", "events"}`, the credential stands in it.',
    ),
]


class _Gone(Exception):
    """The client left before its body was complete."""


class _TooSlow(Malformed):
    """The body did not come in time."""

    code = "timeout"
    status = 408


async def _collect(receive: Receive, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        part = message.get("body", b"")
        size += len(part)
        if size > bytes_max:
            raise TooLarge(f"The body has more than {bytes_max} bytes.")
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _reply(send: Tell, told: Counts | Problem) -> None:
    body = msgspec.json.encode(told)
    if isinstance(told, Problem):
        status, headers = told.status, headers_of(told)
    else:
        status, headers = 200, {"content-type": "application/json", "cache-control": "no-store"}
        if isinstance(told.retry_after_ms, int):
            headers["retry-after"] = str(max(1, -(-told.retry_after_ms // 1000)))
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _text(headers: dict[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")
