"""What is said over a WebSocket: one struct an operation, in both directions.

A client's message may carry fields that this version does not know; they are passed over, so that
an older daemon understands a newer client. Inside a `filter` and an event they are mistakes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from mlc_broker.model.batch import Outcome
from mlc_broker.model.errors import ClientError
from mlc_broker.model.event import Event, Moment
from mlc_broker.model.filter import Filter
from mlc_broker.model.verdict import Reject

MessageId: TypeAlias = Annotated[str, Meta(max_length=128)] | int
Names: TypeAlias = Annotated[list[Annotated[str, Meta(max_length=128)]], Meta(max_length=1_000)]


class UnknownOp(ClientError):
    """There is no such operation; the operations are hello, publish, subscribe, watch, unsubscribe."""

    code = "unknown_op"


# ── what clients say ──────────────────────────────────────────────────────────────────────────


class Hello(Struct, frozen=True, tag="hello", tag_field="op"):
    """The first message; later ones renew the token of an open connection."""

    token: Annotated[str, Meta(max_length=8_192)] | None = None
    client: Annotated[str, Meta(max_length=256)] | None = None
    id: MessageId | None = None


class PublishMessage(Struct, frozen=True, tag="publish", tag_field="op"):
    """Events, when every one of them reads well."""

    id: MessageId
    events: list[Event]
    sent_at: Moment | None = None
    receipts: Literal["all"] | None = None


class FilterMessage(
    Struct, frozen=True, forbid_unknown_fields=True, rename={"begin": "from", "end": "to"}
):
    """A filter as clients write it: the names of the query string of `GET /v1/events`."""

    begin: Moment | None = None
    end: Moment | None = None
    event_type: Names | str | None = None
    category: Names | str | None = None
    user_id: Names | str | None = None
    class_id: Names | str | None = None
    teacher_id: Names | str | None = None
    assignment_id: Names | str | None = None
    sequence_id: Names | str | None = None
    game_id: Names | str | None = None
    session_id: Names | str | None = None
    organization_id: Names | str | None = None

    def as_filter(self) -> Filter:
        """Return the same as the model's Filter. One name may stand without its list."""
        values: dict[str, Any] = {}
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, str):
                value = frozenset((value,))
            elif isinstance(value, list):
                value = frozenset(value)
            values[name] = value
        return Filter(**values)


class SubscribeMessage(Struct, frozen=True, tag="subscribe", tag_field="op"):
    """Asks for events as they are committed."""

    id: MessageId
    filter: FilterMessage | None = None


class WatchMessage(Struct, frozen=True, tag="watch", tag_field="op"):
    """Asks for a metric's value, now and at every change."""

    id: MessageId
    metric: Annotated[str, Meta(min_length=1, max_length=128)]
    group_by: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=8)] = []
    window: Annotated[str, Meta(max_length=32)] = "today"
    filter: FilterMessage | None = None


class UnsubscribeMessage(Struct, frozen=True, tag="unsubscribe", tag_field="op"):
    """Ends a subscription or a watch."""

    id: MessageId


Said: TypeAlias = Hello | PublishMessage | SubscribeMessage | WatchMessage | UnsubscribeMessage
OPERATIONS = ("hello", "publish", "subscribe", "watch", "unsubscribe")


class Submission(Struct):
    """The events of one publish or one body, read but not yet admitted."""

    events: list[Event] | list[Event | Reject]
    event_ids: list[str | None] | None = None  # None: every event was read
    sent_at: datetime | None = None
    receipts_all: bool = False
    originals: dict[int, bytes] = {}  # what was no event, as it came: for the quarantine


class Publish(Struct):
    """A publish that was read; some of its events may already be rejected."""

    id: MessageId
    submission: Submission


class Refused(Struct):
    """A message that cannot be carried out."""

    id: MessageId | None
    error: ClientError
    op: str | None = None


Message: TypeAlias = (
    Hello | Publish | SubscribeMessage | WatchMessage | UnsubscribeMessage | Refused
)


# ── what the daemon says ──────────────────────────────────────────────────────────────────────


class Welcome(Struct, frozen=True, tag="welcome", tag_field="op"):
    """The answer to `hello`, with what this connection may do."""

    server: str
    time: str  # RFC 3339, UTC, milliseconds
    max_batch: int  # events
    max_in_flight: int  # publishes
    max_message_bytes: int
    id: MessageId | UnsetType = UNSET


class ReceiptRow(Struct, frozen=True, gc=False):
    """The receipt of the event at `index` of the publish."""

    index: int
    event_id: str | UnsetType = UNSET
    outcome: Outcome = Outcome.STORED
    reason: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET


class Counts(Struct, frozen=True, kw_only=True):
    """The body that answers a publish over HTTP; the counts add up to the events sent."""

    stored: int = 0
    duplicate: int = 0
    dropped: int = 0
    rejected: int = 0
    quarantined: int = 0
    retry: int = 0
    retry_after_ms: int | UnsetType = UNSET
    receipts: list[ReceiptRow] = []


class Ack(Counts, frozen=True, kw_only=True, tag="ack", tag_field="op"):
    """The answer to a publish."""

    id: MessageId


class ErrorMessage(Struct, frozen=True, tag="error", tag_field="op"):
    """The answer to what could not be carried out."""

    code: str
    detail: str
    id: MessageId | UnsetType = UNSET
    retry_after_ms: int | UnsetType = UNSET


class Subscribed(Struct, frozen=True, tag="subscribed", tag_field="op"):
    """From now on committed events come by."""

    id: MessageId


class Unsubscribed(Struct, frozen=True, tag="unsubscribed", tag_field="op"):
    """Nothing more comes under this id."""

    id: MessageId


class EventsMessage(Struct, frozen=True, tag="events", tag_field="op"):
    """Committed events, each the JSON that a query would show."""

    id: MessageId
    events: list[msgspec.Raw]
    missed: int


class MetricMessage(Struct, frozen=True, tag="metric", tag_field="op"):
    """A metric's rows as of a moment."""

    id: MessageId
    as_of: str
    rows: list[dict[str, Any]]
