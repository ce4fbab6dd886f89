"""Frames to messages, receipts to acks: bytes in, bytes out, no waiting.

A publish is decoded whole and typed, in one call. Only when that fails is each event read alone,
so that one bad event costs the others nothing: it becomes a `Reject` at its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, cast

import msgspec
import numpy as np
from msgspec import UNSET, Raw, Struct

from mlc_broker.edge import splitter
from mlc_broker.edge.messages import (
    OPERATIONS,
    Ack,
    Counts,
    Message,
    MessageId,
    Publish,
    PublishMessage,
    ReceiptRow,
    Refused,
    Said,
    Submission,
    UnknownOp,
)
from mlc_broker.edge.transcode import Rejects, message_to_json
from mlc_broker.model.batch import DUPLICATE, STORED, Outcome, Receipt
from mlc_broker.model.errors import ClientError, Malformed, TooMany
from mlc_broker.model.event import Event, Moment
from mlc_broker.model.verdict import Reject


class WireLimits(Struct, frozen=True, kw_only=True):
    """What one message, body or event may be at most."""

    message_bytes_max: int = 1_048_576  # one WebSocket message
    body_bytes_max: int = 4_194_304  # one HTTP body, before and after inflation
    batch_events_max: int = 1_000  # events of one publish or body
    event_bytes_max: int = 65_536  # device_info, context and properties of one event together
    depth_max: int = 32  # levels of nesting in each of those three
    in_flight_max: int = 16  # unacknowledged publishes of one connection
    detail_chars_max: int = 500  # of a receipt's or an error's detail


def read_message(frame: str | bytes, limits: WireLimits) -> Message:
    """Return what a WebSocket message says; what cannot be carried out is a `Refused`.

    Text is JSON, binary is MessagePack.
    """
    rejects: Rejects = {}
    text: str | bytes = frame
    if not isinstance(frame, str):
        try:
            text, rejects = message_to_json(frame, depth_max=limits.depth_max)
        except Malformed as error:
            return Refused(None, error)
    if not rejects:
        try:
            said = _SAID.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
        else:
            return _publish(said, text, limits) if type(said) is PublishMessage else said
    return _read_slowly(_as_bytes(text), rejects, limits)


def read_events(
    parts: Mapping[str, Raw | bytes],
    limits: WireLimits,
    *,
    rejects: Rejects | None = None,
    suspect: bool = False,
) -> Submission:
    """Read `sent_at`, `receipts` and each of the `events` alone; raises Malformed or TooMany.

    `suspect` text is not known to be valid UTF-8: each event is checked for it.
    """
    envelope = _ENVELOPE.decode(
        msgspec.json.encode({k: Raw(parts[k]) for k in ("sent_at", "receipts") if k in parts})
    )
    if "events" not in parts:
        raise Malformed('There is no "events": send a list of events under that name.')
    submission = read_each(raw_items(parts["events"]), limits, rejects=rejects, suspect=suspect)
    submission.sent_at = envelope.sent_at
    submission.receipts_all = envelope.receipts == "all"
    return submission


def read_each(
    raws: Sequence[Raw | bytes],
    limits: WireLimits,
    *,
    rejects: Rejects | None = None,
    suspect: bool = False,
) -> Submission:
    """Read events one by one. Those in `rejects` were found bad before."""
    check_count(len(raws), limits)
    events: list[Event | Reject] = []
    event_ids: list[str | None] = []
    originals: dict[int, bytes] = {}
    for index, raw in enumerate(raws):
        if rejects and index in rejects:
            event: Event | Reject
            event, event_id = rejects[index]
        else:
            event = read_event(raw, limits, suspect=suspect)
            event_id = event.event_id if isinstance(event, Event) else _event_id(raw)
        if isinstance(event, Reject):
            originals[index] = bytes(raw)[: limits.event_bytes_max]
        events.append(event)
        event_ids.append(event_id)
    return Submission(events, event_ids, originals=originals)


def read_event(raw: Raw | bytes, limits: WireLimits, *, suspect: bool = False) -> Event | Reject:
    """Return the event in `raw`, or why it is none."""
    try:
        if suspect:
            bytes(raw).decode()
        event = _EVENT.decode(raw)
    except UnicodeDecodeError:
        return Reject("malformed", "Not valid UTF-8.")
    except RecursionError:
        return Reject("malformed", f"Nested deeper than {limits.depth_max} levels.")
    except msgspec.ValidationError as error:
        if not bytes(raw).lstrip().startswith(b"{"):
            return Reject("malformed", "An event is an object.")
        return Reject("schema", shortened(str(error), limits))
    except msgspec.DecodeError as error:
        return Reject("malformed", shortened(why_not_json(error), limits))
    return _over_limit(event, limits) or event


def within_limits(
    events: list[Event], text: str | bytes, limits: WireLimits
) -> list[Event] | list[Event | Reject]:
    """Return the events of `text`, a `Reject` in the place of each that is too large or too deep.

    A look at the whole text shows for nearly every message that none can be.
    """
    if openings(text) - 4 * len(events) <= limits.depth_max and (
        3 * len(text) <= limits.event_bytes_max  # a character is at most three bytes a code unit
        or sum(max(map(len, map(part, events)), default=0) for part in _PARTS)
        <= limits.event_bytes_max  # the largest of each, as if one event had them all
    ):
        return events
    return [_over_limit(event, limits) or event for event in events]


def openings(text: str | bytes) -> int:
    """Return at least how many brackets and braces open in `text`: no value is nested deeper."""
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) < 4_096:
        return raw.count(b"{") + raw.count(b"[")
    # `[` and `{` differ in one bit. NumPy looks at 32 bytes at a time, `count` at one.
    codes = np.frombuffer(raw, np.uint8)
    return int(np.count_nonzero((codes & 0xDF) == 0x5B))


def check_count(count: int, limits: WireLimits) -> None:
    """Raise TooMany when a batch holds more than `batch_events_max`."""
    if count > limits.batch_events_max:
        raise TooMany(
            f"{count} events in one batch; at most {limits.batch_events_max} are taken: send several."
        )


def raw_items(raw: Raw | bytes) -> Sequence[Raw | bytes]:
    """Return the items of a JSON array, unread; raises Malformed."""
    try:
        return _RAWS.decode(raw)
    except msgspec.ValidationError:
        raise Malformed('"events" is not a list.') from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        parts = splitter.array_parts(bytes(raw))
        if parts is None or not all(map(splitter.is_json, parts)):
            raise Malformed(f"Not valid JSON: {why_not_json(error)}") from None
        return parts


def raw_fields(text: bytes) -> Mapping[str, Raw | bytes]:
    """Return the fields of a JSON object, unread; raises Malformed."""
    try:
        return _FIELDS.decode(text)
    except msgspec.ValidationError:
        raise Malformed("Not a JSON object.") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        parts = splitter.object_parts(text)
        if parts is None or not splitter.is_json(text):
            raise Malformed(f"Not valid JSON: {why_not_json(error)}") from None
        return parts


def ack(
    message_id: MessageId,
    receipts: Sequence[Receipt],
    event_ids: Sequence[str | None],
    *,
    receipts_all: bool = False,
    retry_after_ms: int = 1_000,
) -> Ack:
    """Return the answer to a publish."""
    return Ack(id=message_id, **_summary(receipts, event_ids, receipts_all, retry_after_ms))


def counts(
    receipts: Sequence[Receipt],
    event_ids: Sequence[str | None],
    *,
    receipts_all: bool = False,
    retry_after_ms: int = 1_000,
) -> Counts:
    """Return the body that answers a publish over HTTP."""
    return Counts(**_summary(receipts, event_ids, receipts_all, retry_after_ms))


def encode(message: Struct, *, binary: bool) -> str | bytes:
    """Return a message as the frame that carries it."""
    if not binary:
        return _TO_JSON.encode(message).decode()
    return _TO_MSGPACK.encode(msgspec.json.decode(_TO_JSON.encode(message)))


def shortened(text: str, limits: WireLimits) -> str:
    """Return `text`, cut at `detail_chars_max`: it may quote what the sender sent."""
    chars_max = limits.detail_chars_max
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def why_not_json(error: BaseException) -> str:
    """Return a decoder's complaint in words that help the sender."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeError):
        return "not valid UTF-8"
    text = str(error)
    # msgspec says "truncated" of half a surrogate pair, for it looks for the other half.
    return f"{text} (or half of a surrogate pair)" if "truncated" in text else text


# ── helpers ───────────────────────────────────────────────────────────────────────────────────


class _Envelope(Struct, frozen=True):
    sent_at: Moment | None = None
    receipts: str | None = None


class _Named(Struct, frozen=True):
    event_id: Any = None


def _publish(said: PublishMessage, text: str | bytes, limits: WireLimits) -> Publish | Refused:
    try:
        check_count(len(said.events), limits)
    except TooMany as error:
        return Refused(said.id, error, "publish")
    events = within_limits(said.events, text, limits)
    return Publish(
        said.id, Submission(events, _ids(events, said.events), said.sent_at, said.receipts == "all")
    )


def _ids(events: Sequence[Event | Reject], read: list[Event]) -> list[str | None] | None:
    return None if events is read else [event.event_id for event in read]


def _read_slowly(text: bytes, rejects: Rejects, limits: WireLimits) -> Message:
    message_id: MessageId | None = None
    op: str | None = None
    try:
        fields = raw_fields(text)
        message_id = _message_id(fields)
        op = _op(fields)
        if op != "publish":
            return cast("Message", _SAID.decode(text))
        if message_id is None:
            raise Malformed(
                'A publish needs an "id" (text or an integer), so that its ack can name it.'
            )
        return Publish(message_id, read_events(fields, limits, rejects=rejects))
    except ClientError as error:
        return Refused(message_id, error, op)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return Refused(message_id, Malformed(shortened(why_not_json(error), limits)), op)


def _op(fields: Mapping[str, Raw | bytes]) -> str:
    if "op" not in fields:
        raise Malformed('There is no "op": say what the message is.')
    op = msgspec.json.decode(fields["op"], type=str)
    if op not in OPERATIONS:
        raise UnknownOp(f'There is no operation "{op[:64]}"; there are {", ".join(OPERATIONS)}.')
    return op


def _message_id(fields: Mapping[str, Raw | bytes]) -> MessageId | None:
    try:
        return msgspec.json.decode(fields["id"], type=MessageId)  # type: ignore[no-any-return]
    except (LookupError, msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _over_limit(event: Event, limits: WireLimits) -> Reject | None:
    size = _bytes_of(event)
    if size > limits.event_bytes_max:
        return Reject(
            "malformed",
            f"The event holds {size} bytes; at most {limits.event_bytes_max} are taken.",
        )
    for part in (event.properties_json, event.context_json, event.device_json):
        if (
            len(part) > 2 * limits.depth_max
            and _depth(bytes(part), limits.depth_max) > limits.depth_max
        ):
            return Reject("malformed", f"Nested deeper than {limits.depth_max} levels.")
    return None


def _bytes_of(event: Event) -> int:
    return len(event.properties_json) + len(event.context_json) + len(event.device_json)


def _depth(text: bytes, enough: int) -> int:
    """Return the depth of valid JSON, or anything over `enough` as soon as it is reached."""
    if text.count(b"{") + text.count(b"[") <= enough:
        return 0
    depth = deepest = 0
    for match in splitter.MARK.finditer(text):
        mark = match.group()
        if mark in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > enough:
                break
        elif mark in b"]}":
            depth -= 1
    return deepest


def _event_id(raw: Raw | bytes) -> str | None:
    try:
        event_id = _NAMED.decode(raw).event_id
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return event_id if isinstance(event_id, str) and 0 < len(event_id) <= 64 else None


def _summary(
    receipts: Sequence[Receipt],
    event_ids: Sequence[str | None],
    receipts_all: bool,  # noqa: FBT001 - private, and both callers hand it on
    retry_after_ms: int,
) -> dict[str, Any]:
    number = dict.fromkeys((outcome.value for outcome in Outcome), 0)
    rows: list[ReceiptRow] = []
    for index, receipt in enumerate(receipts):
        number[receipt.outcome] += 1
        if receipts_all or (receipt is not STORED and receipt is not DUPLICATE and _told(receipt)):
            rows.append(_row(index, event_ids[index], receipt))
    summary: dict[str, Any] = {**number, "receipts": rows}
    if number[Outcome.RETRY]:
        summary["retry_after_ms"] = retry_after_ms
    return summary


def _told(receipt: Receipt) -> bool:
    return receipt.outcome is not Outcome.STORED and receipt.outcome is not Outcome.DUPLICATE


def _row(index: int, event_id: str | None, receipt: Receipt) -> ReceiptRow:
    return ReceiptRow(
        index,
        UNSET if event_id is None else event_id,
        receipt.outcome,
        receipt.reason or UNSET,
        receipt.detail or UNSET,
    )


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8", "replace") if isinstance(text, str) else text


_PARTS = tuple(map(attrgetter, ("properties_json", "context_json", "device_json")))
_SAID = msgspec.json.Decoder(Said)
_EVENT = msgspec.json.Decoder(Event)
_RAWS = msgspec.json.Decoder(list[Raw])
_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_NAMED = msgspec.json.Decoder(_Named)
_TO_JSON = msgspec.json.Encoder()
_TO_MSGPACK = msgspec.msgpack.Encoder()
