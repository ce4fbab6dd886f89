"""A session over a connection: one task reads, one writes.

A publish has a task only where it cannot travel with others; its receipts come to the writer. The
writer sends what is ready in one go of its task. A guest who does not read fills the outbox;
then nothing more is read from them, and the connection's own send limit ends it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, aclosing
from functools import partial
from typing import Any, Protocol, TypeAlias

import trio
from msgspec import Raw, Struct

from mlc_broker.edge import codec
from mlc_broker.edge.admission import Admission
from mlc_broker.edge.codec import WireLimits
from mlc_broker.edge.limits import Limiter
from mlc_broker.edge.messages import EventsMessage, MessageId, MetricMessage
from mlc_broker.edge.session import (
    Action,
    Authority,
    Close,
    Send,
    Session,
    Submit,
    Subscribe,
    Unsubscribe,
    Watch,
)
from mlc_broker.edge.websocket import Closed
from mlc_broker.model.batch import Batch, Receipt
from mlc_broker.model.errors import ClientError, Unavailable
from mlc_broker.model.event import rfc3339
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Principal
from mlc_broker.runtime.clock import Clock

CHECK_SECONDS = 0.4  # between two looks at the credentials of all open sockets
FEED_MESSAGES_MAX = 2  # of a feed, waiting to go out: what waits longer waits in the feed, counted

SubmitBatch: TypeAlias = Callable[[Batch], Awaitable[list[Receipt]]]
BoardBatch: TypeAlias = Callable[[Batch, Callable[[list[Receipt]], None]], bool]
"""Submit without a task, where that can be done; the call gets the receipts, if True came back."""
Lines: TypeAlias = tuple[Sequence[bytes], int]  # events as JSON, and how many were missed before
Value: TypeAlias = tuple[Any, list[dict[str, Any]]]  # as of (a datetime), and the rows


class Guest(Protocol):
    """A connection as the WebSocket door hands it over. Receiving and sending raise Closed."""

    authorization: str | None  # the handshake's header
    address: str
    stopping: trio.Event  # set: the daemon stops

    async def receive(self) -> str | bytes:
        """Return the next message; raises Closed, or TooLarge."""

    def listening(self) -> AbstractContextManager[None]:
        """Receive many messages inside, for less; a stop leaves the block."""

    async def send(self, data: str | bytes) -> None:
        """Send a message, within a limit of time."""

    async def close(self, code: int = ..., reason: str = ...) -> None:
        """Say goodbye."""


class LiveFeed(Protocol):
    """Where committed events and changing metrics come from. Both calls raise ClientError."""

    async def subscribe(self, principal: Principal, filter_: Filter) -> AsyncIterator[Lines]:
        """Begin a subscription: from this call's return on nothing is left out but by `missed`."""

    async def watch(
        self, principal: Principal, metric: str, group_by: list[str], window: str, filter_: Filter
    ) -> AsyncIterator[Value]:
        """Begin to watch a metric: the value at once, and again after every change."""


class Talk(Struct, frozen=True, kw_only=True):
    """What every conversation needs."""

    submit: SubmitBatch
    board: BoardBatch = lambda _batch, _told: False
    credentials: Authority
    admission: Admission
    clock: Clock
    server: str  # "mlc-broker/0.1.0"
    limits: WireLimits = WireLimits()
    limiter: Limiter | None = None
    live: LiveFeed | None = None
    hello_seconds_max: float = 5.0
    outbox_messages_max: int = 64
    subscriptions_max: int = 32


class Conversations:
    """All open conversations. Hand `converse` to the WebSocket door, and run `run` beside it."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._open: set[Conversation] = set()

    def __len__(self) -> int:
        """How many guests there are."""
        return len(self._open)

    async def converse(self, connection: Guest) -> None:
        """Hold one conversation to its end."""
        conversation = Conversation(self._talk, connection)
        self._open.add(conversation)
        try:
            await conversation.run()
        finally:
            self._open.discard(conversation)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """End conversations whose token has expired or whose key was revoked, until cancelled.

        One task for all: a timer for each of ten thousand quiet guests would cost more.
        """
        task_status.started()
        while True:
            await trio.sleep(CHECK_SECONDS)
            for conversation in list(self._open):
                conversation.check()


class Conversation:
    """One guest."""

    def __init__(self, talk: Talk, connection: Guest) -> None:
        self._talk = talk
        self._connection = connection
        limiter, address = talk.limiter, connection.address
        self._session = Session(
            talk.credentials,
            talk.admission,
            talk.limits,
            talk.clock,
            server=talk.server,
            charge=None
            if limiter is None
            else lambda who, events, bytes_: limiter.take(
                who, address, events=events, bytes_=bytes_
            ),
            subscriptions_max=talk.subscriptions_max,
        )
        self._outbox: deque[Send | Close] = deque()
        self._answers: deque[tuple[int, list[Receipt]]] = deque()  # tickets and their receipts
        self._wake = trio.Event()  # for the writer: there is something to send
        self._room = trio.lowlevel.ParkingLot()  # for whoever waits until something was sent
        self._reading = trio.CancelScope()
        self._feeds: dict[MessageId, trio.CancelScope] = {}
        self._over = False  # nothing more is sent: we said goodbye, or the guest has left

    async def run(self) -> None:
        """Talk until either side ends it; what was read is answered first where the guest is there."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, nursery.cancel_scope)
            if self._connection.authorization is not None:
                self._do(self._session.authorize(self._connection.authorization), nursery)
            with self._reading:
                try:
                    await self._read(nursery)
                except Closed:
                    await self._finish(nursery)

    def check(self) -> None:
        """End the conversation when its credential has ended."""
        actions = self._session.check()
        if actions:
            self._send(actions)
            self._reading.cancel()

    # ── reading ───────────────────────────────────────────────────────────────────────────────

    async def _read(self, nursery: trio.Nursery) -> None:
        with trio.move_on_after(self._talk.hello_seconds_max) as opening:
            while not self._session.opened and not self._session.closed:
                await self._take_one(nursery)
        if opening.cancelled_caught:
            self._do(self._session.late(), nursery)
        while not self._session.closed:
            with self._connection.listening():  # left once, when the daemon stops
                while not self._session.closed:
                    while self._session.full or len(self._outbox) >= self._talk.outbox_messages_max:
                        await self._room.park()
                    await self._take_one(nursery)

    async def _take_one(self, nursery: trio.Nursery) -> None:
        self._do(self._session.receive(await self._connection.receive()), nursery)

    async def _finish(self, nursery: trio.Nursery) -> None:
        """The guest has left, or the daemon stops: finish what was read; the door says goodbye."""
        for feed in self._feeds.values():
            feed.cancel()
        while self._session.in_flight or self._outbox:
            await self._room.park()
        nursery.cancel_scope.cancel()

    def _do(self, actions: list[Action], nursery: trio.Nursery) -> None:
        for action in actions:
            match action:
                case Submit():
                    told = partial(self._answered, action.ticket)
                    if not self._talk.board(action.batch, told):
                        nursery.start_soon(self._submit, action)
                case Subscribe() | Watch():
                    scope = self._feeds[action.id] = trio.CancelScope()
                    nursery.start_soon(self._feed, action, scope)
                case Unsubscribe():
                    feed = self._feeds.pop(action.id, None)
                    if feed is not None:
                        feed.cancel()
                case Send() | Close():
                    self._send([action])

    async def _submit(self, action: Submit) -> None:
        try:
            receipts = await self._talk.submit(action.batch)
        except ClientError as error:
            self._send(self._session.failed(action.ticket, error))
            self._room.unpark_all()
        else:
            self._answered(action.ticket, receipts)

    def _answered(self, ticket: int, receipts: list[Receipt]) -> None:
        self._answers.append((ticket, receipts))
        self._wake.set()

    # ── writing ───────────────────────────────────────────────────────────────────────────────

    def _send(self, actions: Sequence[Action]) -> None:
        self._take_answers()  # they came before
        self._put_out(actions)
        self._wake.set()

    def _take_answers(self) -> None:
        while self._answers:
            self._put_out(self._session.answered(*self._answers.popleft()))

    def _put_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if self._over:
                return
            if isinstance(action, Send | Close):
                self._outbox.append(action)
                self._over = isinstance(action, Close)

    async def _write(self, everything: trio.CancelScope) -> None:
        while True:
            while self._outbox or self._answers:
                self._take_answers()
                if not self._outbox:  # nothing for a guest who has left, or not their turn yet
                    self._room.unpark_all()
                    break
                action = self._outbox[0]
                if isinstance(action, Close):
                    await self._connection.close(action.code, action.reason)
                    everything.cancel()
                    return
                try:
                    await self._connection.send(action.data)
                except Closed:  # the reader hears of it too, and lets what was read be finished
                    self._over = True
                    self._outbox.clear()
                else:
                    self._outbox.popleft()
                self._room.unpark_all()
            self._wake = trio.Event()
            await self._wake.wait()

    # ── feeds ─────────────────────────────────────────────────────────────────────────────────

    async def _feed(self, action: Subscribe | Watch, scope: trio.CancelScope) -> None:
        with scope:
            try:
                if isinstance(action, Subscribe):
                    await self._send_events(action)
                else:
                    await self._send_metric(action)
                ended: ClientError = Unavailable("The feed has ended: subscribe again.")
            except ClientError as error:
                ended = error
            if self._feeds.get(action.id) is scope:
                del self._feeds[action.id]
                self._send(self._session.unsubscribed(action.id, ended, binary=action.binary))

    async def _send_events(self, action: Subscribe) -> None:
        live = self._live()
        pages = await live.subscribe(action.principal, action.filter)
        self._send(self._session.subscribed(action.id, binary=action.binary))
        async with aclosing(_closeable(pages)):
            async for lines, missed in pages:
                message = EventsMessage(action.id, [Raw(line) for line in lines], missed)
                await self._push(codec.encode(message, binary=action.binary))

    async def _send_metric(self, action: Watch) -> None:
        live = self._live()
        values = await live.watch(
            action.principal, action.metric, action.group_by, action.window, action.filter
        )
        async with aclosing(_closeable(values)):
            async for as_of, rows in values:
                message = MetricMessage(action.id, rfc3339(as_of), rows)
                await self._push(codec.encode(message, binary=action.binary))

    async def _push(self, data: str | bytes) -> None:
        """Send when there is room: meanwhile the feed counts what this guest misses."""
        while len(self._outbox) >= FEED_MESSAGES_MAX:
            await self._room.park()
        self._send([Send(data)])

    def _live(self) -> LiveFeed:
        if self._talk.live is None:
            raise Unavailable("There is no live feed here.", retry_after_ms=60_000)
        return self._talk.live


class _closeable:  # noqa: N801 - used as a function
    """An iterator's `aclose`, where it has one."""

    def __init__(self, iterator: Any) -> None:
        self.aclose = getattr(iterator, "aclose", partial(trio.lowlevel.checkpoint_if_cancelled))
