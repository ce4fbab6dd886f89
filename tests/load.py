"""Real load on a real daemon: writers that keep publishing and reconnect, and remember every ack."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from itertools import count

import trio

from mlc_broker.model.event import rfc3339
from mlc_broker.model.principal import Role
from mlc_broker.runtime.clock import SystemClock
from mlc_broker.simulate.compare import Comparer
from mlc_broker.simulate.ledger import KEPT, Ledger, Sent
from mlc_broker.simulate.people import ADMIN_ID
from mlc_broker.simulate.plan import Access
from mlc_broker.simulate.web import Away, Refused
from mlc_broker.simulate.wire import WebSocketClient
from tests.daemon import Daemon

ORGANIZATION = "org_load"


class Load:
    """`run()` until `stop` is set; then everything sent has been answered. `compare()` at the end.

    A batch whose ack did not come is sent again over the next connection, so that its events may
    rightly be duplicates.
    """

    def __init__(
        self,
        daemon: Daemon,
        *,
        writers: int = 4,
        batch_events: int = 20,
        window: int = 3,
        run: str = "load",
    ) -> None:
        self.daemon = daemon
        self.ledger = Ledger()
        self.stop = trio.Event()
        self.acks = 0
        self._key = daemon.key(ORGANIZATION)
        self._reader = daemon.token(ADMIN_ID, ORGANIZATION, Role.SUBSCRIBER_ADMIN)
        self._writers = writers
        self._batch_events = batch_events
        self._window = window
        self._run = run

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(self._writers):
                nursery.start_soon(self._write, number)

    async def compare(self) -> dict[str, int]:
        """Return the differences by kind: none, if the daemon keeps its word."""
        access = Access(
            ws_url=self.daemon.ws, http_url=self.daemon.http, token_for=lambda *_: self._reader
        )
        comparer = Comparer(self.ledger, access, organization_id=ORGANIZATION, run=f"{self._run}")
        how = await comparer.compare()
        print(
            f"{len(self.ledger.events)} events, {self.ledger.sent} sendings, {self.acks} acks; "
            f"{comparer.read} read back by {how}; {self.ledger.examples}"
        )
        return {str(kind): number for kind, number in self.ledger.differences.items()}

    async def _write(self, number: int) -> None:
        serial = count()
        pending: deque[list[Sent]] = deque()
        async with trio.open_nursery() as nursery:
            while not self.stop.is_set() or pending:
                client = None
                try:
                    client = await self._connect(nursery)
                    await self._publish(client, number, serial, pending)
                except Away:
                    await trio.sleep(0.02)
                finally:
                    if client is not None:
                        await client.cut()
            nursery.cancel_scope.cancel()

    async def _connect(self, nursery: trio.Nursery) -> WebSocketClient:
        try:
            return await WebSocketClient.connect(
                nursery, self.daemon.ws, self._key, self.ledger, SystemClock(),
                answer_seconds_max=20,
            )  # fmt: skip
        except Refused as error:  # it is stopping
            raise Away(str(error)) from error

    async def _publish(
        self, client: WebSocketClient, number: int, serial: count[int], pending: deque[list[Sent]]
    ) -> None:
        for batch in pending:
            await client.send(batch)
        while True:
            while len(pending) < self._window and not self.stop.is_set():
                batch = [self._event(number, next(serial)) for _ in range(self._batch_events)]
                pending.append(batch)
                await client.send(batch)
            if not pending:
                return
            again = await client.answer()
            self.acks += 1
            pending.popleft()
            if again.batch:
                await trio.sleep(again.after_seconds)
                pending.append(list(again.batch))
                await client.send(again.batch)

    def _event(self, number: int, serial: int) -> Sent:
        event_id = f"{self._run}-{number}-{serial:07d}"
        now = datetime.now(UTC)
        event = {
            "event_id": event_id,
            "event_type": "game_stage_complete",
            "timestamp": rfc3339(now),
            "user_id": f"usr_{number}",
            "session_id": f"sess_{number}",
            "properties": {
                "game_id": "G-00120",
                "stage_id": "G-00120-quiz",
                "stage_type": "quiz",
                "score": serial % 9000,
                "max_score": 9000,
            },
        }
        sent = Sent(event=event, event_id=event_id, fate=KEPT, at=now)
        self.ledger.expect(sent)
        return sent
