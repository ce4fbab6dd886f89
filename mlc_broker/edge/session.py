"""The WebSocket conversation, without the socket: frames in, actions out.

The session decides, `conversation.py` obeys. Every publish takes a place in the line when it is
read, and answers leave in that order, whether they are acks or errors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

from msgspec import UNSET, Struct

from mlc_broker.edge import codec
from mlc_broker.edge.admission import Admission
from mlc_broker.edge.codec import WireLimits
from mlc_broker.edge.messages import (
    ErrorMessage,
    FilterMessage,
    Hello,
    Message,
    MessageId,
    Publish,
    Refused,
    Subscribed,
    SubscribeMessage,
    Unsubscribed,
    UnsubscribeMessage,
    WatchMessage,
    Welcome,
)
from mlc_broker.model.batch import Batch, Receipt
from mlc_broker.model.errors import (
    ClientError,
    Forbidden,
    Malformed,
    TooLarge,
    TooMany,
    Unauthenticated,
)
from mlc_broker.model.event import rfc3339
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Principal
from mlc_broker.runtime.clock import Clock

POLICY = 1008  # the closing code for whoever may not stay


class Authority(Protocol):
    """Who knows credentials: `Credentials` fits."""

    def verify(self, bearer: str | None) -> Principal:
        """Return whom a credential speaks for; raises Unauthenticated."""

    def authorization(self, header: str | None) -> Principal:
        """Return whom an `Authorization` header speaks for; raises Unauthenticated."""

    def is_current(self, principal: Principal) -> bool:
        """Tell whether a credential verified before still stands."""


Charge: TypeAlias = Callable[[Principal, int, int], None]
"""Count events and bytes for a principal; raises RateLimited."""


# ── actions ───────────────────────────────────────────────────────────────────────────────────


class Send(Struct, frozen=True):
    """Send this message."""

    data: str | bytes


class Close(Struct, frozen=True):
    """Say goodbye with this code, after what was sent."""

    code: int
    reason: str


class Submit(Struct, frozen=True):
    """Bring this batch to the pipeline, and its receipts to `Session.answered`."""

    ticket: int
    batch: Batch


class Subscribe(Struct, frozen=True):
    """Begin to send committed events; then say `Session.subscribed`."""

    id: MessageId
    principal: Principal
    filter: Filter
    binary: bool


class Watch(Struct, frozen=True):
    """Begin to send a metric."""

    id: MessageId
    principal: Principal
    metric: str
    group_by: list[str]
    window: str
    filter: Filter
    binary: bool


class Unsubscribe(Struct, frozen=True):
    """Stop what runs under this id."""

    id: MessageId


Action: TypeAlias = Send | Close | Submit | Subscribe | Watch | Unsubscribe


class Session:
    """One connection's side of the protocol."""

    def __init__(
        self,
        authority: Authority,
        admission: Admission,
        limits: WireLimits,
        clock: Clock,
        *,
        server: str,
        charge: Charge | None = None,
        subscriptions_max: int = 32,
    ) -> None:
        """`server` is what `welcome` says of us: `mlc-broker/0.1.0`."""
        self.principal: Principal | None = None
        self.opened = False  # an opening message was taken
        self.closed = False
        self._authority = authority
        self._admission = admission
        self._limits = limits
        self._clock = clock
        self._server = server
        self._charge = charge
        self._subscriptions_max = subscriptions_max
        self._subscriptions: set[MessageId] = set()
        self._line: deque[_Place] = deque()
        self._places: dict[int, _Place] = {}
        self._tickets = 0
        self._binary = False  # the encoding of the last message
        self._ends_at: datetime | None = None

    def authorize(self, header: str) -> list[Action]:
        """Take the `Authorization` header of the handshake; a wrong one closes the connection."""
        try:
            self._settle_in(self._authority.authorization(header))
        except ClientError as error:
            return self._refuse(Refused(None, error), binary=False)
        return []

    def receive(self, frame: str | bytes) -> list[Action]:
        """Take a message and say what to do. Whatever it is, there is an answer or a goodbye."""
        if self.closed:
            return []
        binary = self._binary = not isinstance(frame, str)
        if len(frame) > self._limits.message_bytes_max:
            over = TooLarge(f"A message has at most {self._limits.message_bytes_max} bytes.")
            return self._refuse(Refused(None, over), binary=binary)
        message = codec.read_message(frame, self._limits)
        try:
            return self._act(message, len(frame), binary=binary)
        except ClientError as error:
            op = "publish" if isinstance(message, Publish) else None
            return self._refuse(Refused(message.id, error, op), binary=binary)

    def answered(self, ticket: int, receipts: Sequence[Receipt]) -> list[Action]:
        """Take the receipts of a batch; return the acks whose turn has come."""
        place = self._places.pop(ticket)
        message = codec.ack(
            place.id,
            receipts,
            place.event_ids,
            receipts_all=place.receipts_all,
        )
        place.reply = codec.encode(message, binary=place.binary)
        return self._flush()

    def failed(self, ticket: int, error: ClientError) -> list[Action]:
        """Take the word that a batch could not be carried out as a whole."""
        place = self._places.pop(ticket)
        place.reply = _error(place.id, error, binary=place.binary)
        return self._flush()

    def subscribed(self, message_id: MessageId, *, binary: bool) -> list[Action]:
        """Take the word that a subscription has begun."""
        return [Send(codec.encode(Subscribed(message_id), binary=binary))]

    def unsubscribed(
        self, message_id: MessageId, error: ClientError, *, binary: bool
    ) -> list[Action]:
        """Take the word that a subscription or a watch could not begin, or ended."""
        self._subscriptions.discard(message_id)
        return [Send(_error(message_id, error, binary=binary))]

    def check(self) -> list[Action]:
        """Look whether the credential still stands; ask every half second."""
        if self.principal is None or self.closed or self._is_current(self.principal):
            return []
        return self._refuse(Refused(None, _ENDED), binary=self._binary)

    def late(self) -> list[Action]:
        """Take the word that no hello came in time."""
        error = Unauthenticated("The first message is `hello`, and it did not come in time.")
        return self._refuse(Refused(None, error), binary=False)

    @property
    def in_flight(self) -> int:
        """How many publishes have no answer yet."""
        return len(self._line)

    @property
    def full(self) -> bool:
        """Whether the connection should not be read for now."""
        return len(self._line) >= self._limits.in_flight_max

    # ── one function a kind of message ────────────────────────────────────────────────────────

    def _act(self, message: Message, size: int, *, binary: bool) -> list[Action]:
        if isinstance(message, Refused):
            if message.op not in (None, "hello"):
                self._known()
            return self._refuse(message, binary=binary)
        if isinstance(message, Hello):
            return self._hello(message, binary=binary)
        principal = self._known()
        self.opened = True
        match message:
            case Publish():
                return self._publish(message, principal, size, binary=binary)
            case SubscribeMessage():
                self._admit_subscription(message.id, principal)
                return [Subscribe(message.id, principal, _filter(message.filter), binary)]
            case WatchMessage():
                self._admit_subscription(message.id, principal)
                return [
                    Watch(
                        message.id,
                        principal,
                        message.metric,
                        message.group_by,
                        message.window,
                        _filter(message.filter),
                        binary,
                    )
                ]
            case UnsubscribeMessage():
                self._subscriptions.discard(message.id)
                reply = codec.encode(Unsubscribed(message.id), binary=binary)
                return [Unsubscribe(message.id), Send(reply)]

    def _hello(self, message: Hello, *, binary: bool) -> list[Action]:
        if message.token is not None or self.principal is None:
            self._settle_in(self._authority.verify(message.token))
        self._known()
        self.opened = True
        welcome = Welcome(
            server=self._server,
            time=rfc3339(self._clock.now()),
            max_batch=self._limits.batch_events_max,
            max_in_flight=self._limits.in_flight_max,
            max_message_bytes=self._limits.message_bytes_max,
            id=UNSET if message.id is None else message.id,
        )
        return [Send(codec.encode(welcome, binary=binary))]

    def _publish(
        self, message: Publish, principal: Principal, size: int, *, binary: bool
    ) -> list[Action]:
        if self._charge is not None:
            self._charge(principal, len(message.submission.events), size)
        batch = self._admission.admit(message.submission, principal, "websocket")
        self._tickets += 1
        place = _Place(message.id, batch.event_ids, message.submission.receipts_all, binary)
        self._line.append(place)
        self._places[self._tickets] = place
        return [Submit(self._tickets, batch)]

    def _admit_subscription(self, message_id: MessageId, principal: Principal) -> None:
        if principal.kind != "user":
            raise Forbidden("A key publishes and reads nothing: subscribe with a user's token.")
        if message_id in self._subscriptions:
            raise Malformed(f'"{message_id}" runs already: unsubscribe it, or take another id.')
        if len(self._subscriptions) >= self._subscriptions_max:
            raise TooMany(f"At most {self._subscriptions_max} subscriptions a connection.")
        self._subscriptions.add(message_id)

    # ── who is there ──────────────────────────────────────────────────────────────────────────

    def _known(self) -> Principal:
        if self.principal is None:
            raise Unauthenticated("Say hello first, with a token.")
        if not self._is_current(self.principal):
            raise _ENDED
        return self.principal

    def _settle_in(self, principal: Principal) -> None:
        before = self.principal
        if before is not None and _who(before) != _who(principal):
            raise Forbidden("A connection stays with whom it was opened for: open another one.")
        self.principal = principal
        self._ends_at = principal.expires_at
        now = self._clock.now()
        if self._ends_at is not None and self._ends_at <= now:
            self._ends_at = now + _GRACE  # it came inside the leeway for clocks that differ

    def _is_current(self, principal: Principal) -> bool:
        if self._ends_at is not None and self._clock.now() >= self._ends_at:
            return False
        return self._authority.is_current(principal)

    # ── answers ───────────────────────────────────────────────────────────────────────────────

    def _refuse(self, refused: Refused, *, binary: bool) -> list[Action]:
        """Answer with an error; it waits its turn when it answers a publish."""
        error = refused.error
        reply = _error(refused.id, error, binary=binary)
        code = error.close_code
        if code is None and not self.opened and error.code in ("malformed", "unknown_op"):
            code = POLICY
        if refused.op == "publish" and code is None:
            self.opened = True
            self._line.append(_Place(0, (), False, binary, reply))
            return self._flush()
        if code is None:
            return [Send(reply)]
        self.closed = True
        return [Send(reply), Close(code, error.code)]

    def _flush(self) -> list[Action]:
        actions: list[Action] = []
        while self._line and self._line[0].reply is not None:
            actions.append(Send(self._line.popleft().reply or ""))
        return actions


class _Place:
    """A publish's place in the line."""

    __slots__ = ("binary", "event_ids", "id", "receipts_all", "reply")

    def __init__(
        self,
        message_id: MessageId,
        event_ids: Sequence[str | None],
        receipts_all: bool,  # noqa: FBT001
        binary: bool,  # noqa: FBT001
        reply: str | bytes | None = None,
    ) -> None:
        self.id = message_id
        self.event_ids = event_ids
        self.receipts_all = receipts_all
        self.binary = binary
        self.reply = reply


def _error(message_id: MessageId | None, error: ClientError, *, binary: bool) -> str | bytes:
    message = ErrorMessage(
        code=error.code,
        detail=str(error),
        id=UNSET if message_id is None else message_id,
        retry_after_ms=UNSET if error.retry_after_ms is None else error.retry_after_ms,
    )
    return codec.encode(message, binary=binary)


def _filter(said: FilterMessage | None) -> Filter:
    return Filter() if said is None else said.as_filter()


def _who(principal: Principal) -> tuple[str, str, str | None, str | None]:
    return principal.kind, principal.id, principal.organization_id, principal.role


_GRACE = timedelta(seconds=30)
_ENDED = Unauthenticated("The credential has expired or was revoked: connect with a new one.")
