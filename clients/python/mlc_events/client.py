"""The client: takes events at any time, sends them when it can."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import trio
from trio_websocket import ConnectionClosed

from mlc_events.queue import Queue, Row
from mlc_events.wire import Refused, Wire

QUICK_RETRIES = 3
TOO_MUCH = {"malformed", "too_large", "too_many", "413"}
#: Types that leave at once: what somebody learnt, and what went wrong.
AT_ONCE = ("game_stage_", "target_met", "concept_mastered", "assignment_", "challenge_")


@dataclass(frozen=True)
class Receipt:
    """The last word on an event: the broker's, or `full` where it never left."""

    event_id: str
    outcome: str
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Limits:
    """Every limit has a unit in its name."""

    batch_events: int = 100
    batch_seconds: float = 30.0
    answer_seconds_max: float = 10.0
    retry_seconds: float = 1.0
    offline_seconds: float = 60.0


@dataclass
class Client:
    """Report events; `async with Client(...).open():` sends them while the block runs.

    `token` is an ingest key or a user token; `stream` the WebSocket's address where it is not
    `/v1/stream` at `url`. Events that are not sent when the block ends stay in the queue.
    """

    url: str
    token: str
    queue: Queue = field(default_factory=Queue)
    stream: str | None = None
    limits: Limits = field(default_factory=Limits)
    on_receipt: Callable[[Receipt], None] = lambda _: None
    chance: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._wire = Wire(self.url, self.token, self.stream, self.limits.answer_seconds_max)
        self._news = trio.Event()
        self._urgent = len(self.queue) > 0
        self._failures = 0
        self._wait_seconds = 0.0

    def track(self, event_type: str, properties: dict[str, Any], **fields: Any) -> str:
        """Keep an event on disk and send it soon; its id. `fields`: user_id, context and the like."""
        event_id = str(uuid.uuid4())
        event = {
            "event_id": event_id,
            "event_type": event_type,
            "timestamp": datetime.now(UTC).isoformat(),
            "properties": properties,
        } | fields
        critical = event_type.startswith(AT_ONCE) or event_type.endswith("_error")
        for lost in self.queue.put(event["event_id"], json.dumps(event), critical=critical):
            self.on_receipt(Receipt(lost, "dropped", "full"))
        self._urgent |= critical or len(self.queue) >= self.limits.batch_events
        if self._urgent:
            self._news.set()
        return str(event["event_id"])

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Client]:
        """Send while the block runs, then try once more; what is left stays in the queue."""
        async with trio.open_nursery() as nursery:
            sending = trio.CancelScope()
            nursery.start_soon(self._run, nursery, sending)
            try:
                yield self
            finally:
                sending.cancel()
                with (
                    trio.CancelScope(shield=True),
                    trio.move_on_after(self.limits.answer_seconds_max),
                ):
                    await self._send_all(nursery)
                    await self._wire.close()
                nursery.cancel_scope.cancel()

    async def _run(self, nursery: trio.Nursery, sending: trio.CancelScope) -> None:
        with sending:
            while True:
                if not self._urgent:
                    with trio.move_on_after(self.limits.batch_seconds):
                        await self._news.wait()
                self._news, self._urgent = trio.Event(), False
                while not await self._send_all(nursery):  # noqa: ASYNC110 (a pause, not a poll)
                    await trio.sleep(self._pause())

    async def _send_all(self, nursery: trio.Nursery) -> bool:
        """Publish until the queue is empty; False at the first failure."""
        while rows := self.queue.take(self.limits.batch_events):
            try:
                kept = await self._publish(nursery, rows)
            except (Refused, OSError, ConnectionClosed, trio.TooSlowError) as error:
                kept, self._wait_seconds = True, getattr(error, "wait_seconds", 0.0)
            if kept:
                self._failures += 1
                return False
        self._failures = 0
        return True

    async def _publish(self, nursery: trio.Nursery, rows: list[Row]) -> bool:
        """Publish once and settle what is answered; True where something is to be sent again."""
        try:
            ack = await self._wire.publish(nursery, [body for _, body in rows])
        except Refused as error:
            if error.code not in TOO_MUCH:
                raise
            if len(rows) == 1:
                self._settle([Receipt(rows[0][0], "rejected", error.code)])
                return False
            return any([await self._publish(nursery, [row]) for row in rows])
        answers = {id_: Receipt(id_, "stored") for id_, _ in rows}
        for said in ack["receipts"]:
            words = (said["outcome"], said.get("reason", ""), said.get("detail", ""))
            answers[rows[said["index"]][0]] = Receipt(rows[said["index"]][0], *words)
        self._settle([answer for answer in answers.values() if answer.outcome != "retry"])
        self._wait_seconds = ack.get("retry_after_ms", 0) / 1000
        return any(answer.outcome == "retry" for answer in answers.values())

    def _settle(self, receipts: list[Receipt]) -> None:
        self.queue.remove(receipt.event_id for receipt in receipts)
        for receipt in receipts:
            self.on_receipt(receipt)

    def _pause(self) -> float:
        """Three quick retries with full jitter, then slowly; never sooner than the broker asks."""
        if self._failures <= QUICK_RETRIES:
            pause = self.chance.random() * self.limits.retry_seconds * 2**self._failures
        else:
            pause = self.limits.offline_seconds * (0.5 + self.chance.random() / 2)
        return float(max(pause, self._wait_seconds))
