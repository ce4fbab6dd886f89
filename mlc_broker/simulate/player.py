"""One person at a screen: batches by the clock, sends them, loses the line, sends them again."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol, TypeAlias

import trio

from mlc_broker.model.batch import Outcome
from mlc_broker.runtime.clock import Clock
from mlc_broker.simulate.ledger import Difference, Ledger, Sent
from mlc_broker.simulate.people import Person
from mlc_broker.simulate.plan import Access, Plan
from mlc_broker.simulate.script import Script
from mlc_broker.simulate.web import Away, Refused
from mlc_broker.simulate.wire import HttpClient, WebSocketClient

Client: TypeAlias = WebSocketClient | HttpClient


class Watcher(Protocol):
    """Who is told how it goes."""

    def acknowledged(self, events: int, seconds: float) -> None:
        """Take note of one ack and the time it took."""


class Player:
    """Plays one script to its end: `await play()`. Differences go to the ledger, never raised."""

    def __init__(
        self,
        person: Person,
        script: Script,
        plan: Plan,
        access: Access,
        *,
        ledger: Ledger,
        watcher: Watcher,
        clock: Clock,
        random: Random,
    ) -> None:
        self.refused = ""  # why nothing more was sent
        self._person = person
        self._script = script
        self._plan = plan
        self._access = access
        self._ledger = ledger
        self._watcher = watcher
        self._clock = clock
        self._random = random
        self._client: Client | None = None

    async def play(self) -> None:
        """Play the lesson in its own time."""
        async with trio.open_nursery() as nursery:
            try:
                if self._person.offline:
                    await self._bring_old_events(nursery)
                await self._walk(nursery)
            except Refused as error:
                self.refused = str(error)
                self._ledger.differ(Difference.PROTOCOL, f"{self._person.user_id}: {error}")
            finally:
                await self._hang_up()
                nursery.cancel_scope.cancel()

    async def _walk(self, nursery: trio.Nursery) -> None:
        began, speed = trio.current_time(), self._plan.speed
        batch: list[Sent] = []
        opened = 0.0
        for at, sent in self._script.lesson():
            late = at - opened >= self._plan.batch_seconds_max
            if batch and (late or len(batch) >= self._plan.batch_events_max):
                await self._deliver(nursery, batch)
                batch = []
            if not batch:
                opened = at
                # A pause between batches, not between events: the clock of a lesson is coarse.
                await trio.sleep_until(began + at / speed if speed else began)
            self._ledger.expect(sent)
            batch.append(sent)
        await self._deliver(nursery, batch, last=True)

    async def _bring_old_events(self, nursery: trio.Nursery) -> None:
        burst = self._script.old_events()
        size = self._plan.batch_events_max
        for sent in burst:
            self._ledger.expect(sent)
        for begin in range(0, len(burst), size):
            await self._deliver(nursery, burst[begin : begin + size])

    async def _deliver(
        self, nursery: trio.Nursery, batch: Sequence[Sent], *, last: bool = False
    ) -> None:
        """Send a batch until every event of it is settled, or the tries are over."""
        left = batch
        for number in range(self._plan.tries_max):
            try:
                left = await self._try(nursery, left, first=number == 0, last=last)
            except Away:
                await self._hang_up()
                await trio.sleep(min(2.0, 0.05 * 2**number) * self._random.uniform(0.5, 1))
            if not left:
                return
        for sent in left:
            given_up = sent.outcome is Outcome.RETRY
            kind = Difference.GIVEN_UP if given_up else Difference.UNANSWERED
            self._ledger.differ(kind, f"{sent.event_id} of {self._person.user_id}")

    async def _try(
        self, nursery: trio.Nursery, batch: Sequence[Sent], *, first: bool, last: bool
    ) -> Sequence[Sent]:
        client = await self._connected(nursery)
        unlucky = first and self._random.random() < self._plan.resend_share
        if unlucky and isinstance(client, WebSocketClient):
            await client.send(batch)
            await client.cut()
            raise Away("cut on purpose before the ack")
        began = trio.current_time()
        if last and isinstance(client, HttpClient):
            again = await client.beacon(batch)
        else:
            again = await client.publish(batch)
        self._watcher.acknowledged(len(batch) - len(again.batch), trio.current_time() - began)
        if again.batch:
            await trio.sleep(again.after_seconds * self._random.uniform(1, 2))
        return again.batch

    async def _connected(self, nursery: trio.Nursery) -> Client:
        if self._client is not None:
            return self._client
        token = self._access.token_for(self._person.user_id, self._person.role)
        encoding, off = self._person.encoding, self._person.clock_off_seconds
        patience = self._plan.answer_seconds_max
        if self._person.wire == "http":
            self._client = HttpClient(
                self._access.http_url,
                token,
                self._ledger,
                self._clock,
                encoding=encoding,
                clock_off_seconds=off,
                answer_seconds_max=patience,
            )
            return self._client
        deadline = trio.current_time() + self._plan.reconnect_seconds_max
        while True:
            try:
                self._client = await WebSocketClient.connect(
                    nursery,
                    self._access.ws_url,
                    token,
                    self._ledger,
                    self._clock,
                    connect_seconds_max=self._plan.connect_seconds_max,
                    encoding=encoding,
                    clock_off_seconds=off,
                    answer_seconds_max=patience,
                )
            except Away:
                if trio.current_time() > deadline:
                    raise
                await trio.sleep(self._random.uniform(0.1, 0.5))
            else:
                return self._client

    async def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with trio.move_on_after(2, shield=True):
                await client.close()
