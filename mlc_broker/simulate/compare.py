"""What was sent, what was acknowledged, what is stored: find every difference."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec
import trio

from mlc_broker.model.batch import Outcome
from mlc_broker.model.principal import Role
from mlc_broker.simulate.ledger import Difference, Ledger, Sent, essence
from mlc_broker.simulate.people import ADMIN_ID
from mlc_broker.simulate.plan import Access
from mlc_broker.simulate.web import Answer, Refused, asked, lines, request

COMPARE_SECONDS_MAX = 600.0
RECEIPTS_AT_ONCE_MAX = 16
# A clock that is off by less than 5 s stays as it is, and a batch may wait on its way.
TIME_OFF_SECONDS_MAX = 40.0

KEPT_OUTCOMES = frozenset({Outcome.STORED, Outcome.DUPLICATE})
GONE_OUTCOMES = frozenset({Outcome.DROPPED, Outcome.REJECTED})


class Comparer:
    """Reads a run's events back and writes what is wrong into the ledger: `await compare()`."""

    def __init__(self, ledger: Ledger, access: Access, *, organization_id: str, run: str) -> None:
        self.read = 0  # events of this run that were read back
        self._ledger = ledger
        self._access = access
        self._organization_id = organization_id
        self._prefix = f"{run}-"

    async def compare(self) -> str:
        """Read back by export, or receipt by receipt where there is none; say which.

        Raise Away when the daemon is not there, Refused when it lets nobody read.
        """
        if not self._access.may_read:
            return "not read back: no credential that may read"
        with trio.fail_after(COMPARE_SECONDS_MAX):
            if await self._by_export():
                self._judge(self._ledger.events.values())
                return "export"
            await self._by_receipts()
            return "receipts"

    def found(self, event: dict[str, Any]) -> None:
        """Take one stored event of this organization."""
        event_id = event.get("event_id")
        if not isinstance(event_id, str) or not event_id.startswith(self._prefix):
            return
        self.read += 1
        sent = self._ledger.events.get(event_id)
        if sent is None:
            if not self._ledger.beyond:
                self._ledger.differ(Difference.STRANGER, event_id)
            return
        sent.found += 1
        if wrong := _changed(sent, event):
            self._ledger.differ(Difference.CHANGED, f"{event_id}: {wrong}")

    async def _by_export(self) -> bool:
        path = f"/v1/export?format=jsonl&organization_id={quote(self._organization_id)}"
        token = self._access.token_for(ADMIN_ID, Role.SUBSCRIBER_ADMIN)
        async with asked(self._access.http_url, "GET", path, token=token) as (status, _, parts):
            if status != 200:
                return False
            await _take_lines(parts, self.found)
        return True

    async def _by_receipts(self) -> None:
        """Ask for every event's receipt; only presence can be judged this way."""
        token = self._access.token_for(ADMIN_ID, Role.SUBSCRIBER_ADMIN)
        slots = trio.CapacityLimiter(RECEIPTS_AT_ONCE_MAX)
        first = next(iter(self._ledger.events.values()), None)
        if first is None:
            return
        answer = await self._receipt(first, token)
        if answer.status not in {200, 404}:
            raise Refused(
                f"neither /v1/export nor /v1/receipts may be read: {answer.status}",
                status=answer.status,
            )

        async def look(sent: Sent) -> None:
            async with slots:
                answer = await self._receipt(sent, token)
            outcome = answer.json().get("outcome") if answer.status == 200 else None
            if outcome in KEPT_OUTCOMES:
                sent.found = 1
                self.read += 1

        async with trio.open_nursery() as nursery:
            for sent in self._ledger.events.values():
                nursery.start_soon(look, sent)
        self._judge(self._ledger.events.values())

    async def _receipt(self, sent: Sent, token: str) -> Answer:
        path = f"/v1/receipts/{sent.event_id}"
        return await request(self._access.http_url, "GET", path, token=token)

    def _judge(self, events: Iterable[Sent]) -> None:
        for sent in events:
            what = f"{sent.event_id} ({essence(sent.event)[0]}): {sent.outcome} {sent.reason}"
            if sent.found > 1:
                self._ledger.differ(Difference.TWICE, f"{what}, {sent.found} times")
            elif sent.outcome in KEPT_OUTCOMES and not sent.found:
                self._ledger.differ(Difference.LOST, what)
            elif sent.outcome in GONE_OUTCOMES and sent.found:
                self._ledger.differ(Difference.UNDEAD, what)


async def _take_lines(parts: AsyncIterator[bytes], take: Callable[[dict[str, Any]], None]) -> None:
    async with aclosing(lines(parts)) as each:
        async for line in each:
            try:
                event = msgspec.json.decode(line, type=dict[str, Any])
            except ValueError as error:
                raise Refused(f"the export has a line that is not JSON: {line[:200]!r}") from error
            take(event)


def _changed(sent: Sent, event: dict[str, Any]) -> str:
    """Say what is different in an event read back, or nothing."""
    names = ("event_type", "user_id", "score")
    for name, before, after in zip(names, sent.essence, essence(event), strict=True):
        if before is not None and before != after:
            return f"{name} was {before!r} and is {after!r}"
    if sent.at is None:
        return ""
    try:
        off = (datetime.fromisoformat(str(event.get("timestamp"))) - sent.at).total_seconds()
    except (ValueError, TypeError):
        return f"timestamp is {event.get('timestamp')!r}"
    return f"its time is off by {off:.1f} s" if abs(off) > TIME_OFF_SECONDS_MAX else ""
