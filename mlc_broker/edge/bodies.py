"""HTTP bodies: inflated within limits, and read as events by their content type."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
from backports import zstd
from msgspec import Raw, Struct

from mlc_broker.edge import codec
from mlc_broker.edge.codec import WireLimits
from mlc_broker.edge.messages import Submission
from mlc_broker.edge.transcode import Rejects, body_to_json
from mlc_broker.model.errors import Malformed, TooLarge, Unauthenticated, Unsupported
from mlc_broker.model.event import Event, Moment
from mlc_broker.model.verdict import Reject

JSON, LINES, MSGPACK, TEXT = (
    "application/json",
    "application/x-ndjson",
    "application/msgpack",
    "text/plain",
)
CODINGS = "gzip, zstd"
ZSTD_WINDOW_LOG_MAX = 23  # 8 MiB: what RFC 8878 asks every decoder to support


def inflate(data: bytes, coding: str | None, bytes_max: int) -> bytes:
    """Undo `Content-Encoding`; raises TooLarge beyond `bytes_max`, Unsupported, Malformed."""
    coding = (coding or "identity").strip().lower()
    try:
        match coding:
            case "identity" | "":
                inflated = data
            case "gzip" | "x-gzip":
                inflated = _gunzip(data, bytes_max)
            case "zstd":
                inflated = _unzstd(data, bytes_max)
            case _:
                raise Unsupported(
                    f"Content-Encoding {coding[:64]} is not read here; {CODINGS} are."
                )
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        raise Malformed(f"The body is not {coding}: {error}") from None
    if len(inflated) > bytes_max:
        raise TooLarge(f"The body has more than {bytes_max} bytes once inflated.")
    return inflated


def read_body(data: bytes, content_type: str | None, limits: WireLimits) -> Submission:
    """Return the events of a body of `POST /v1/events`.

    Raises Unsupported for other types, Malformed when the body is not of its type, TooMany.
    """
    kind = media_type(content_type)
    try:
        match kind:
            case "application/json":
                return _read_json(data, {}, limits)
            case "application/x-ndjson" | "application/ndjson" | "application/jsonl":
                return _read_lines(data, limits)
            case "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack":
                text, rejects = body_to_json(data, depth_max=limits.depth_max)
                return _read_json(text, rejects, limits)
            case _:
                raise Unsupported(
                    f"Content-Type {kind[:64] or '(none)'} is not read here; {JSON}, {LINES} and "
                    f"{MSGPACK} are."
                )
    except msgspec.DecodeError as error:
        raise Malformed(codec.shortened(codec.why_not_json(error), limits)) from None


def read_beacon(
    data: bytes, content_type: str | None, limits: WireLimits
) -> tuple[str, Submission]:
    """Return the token and the events of a beacon's body; raises as `read_body`, Unauthenticated."""
    kind = media_type(content_type)
    if kind not in (TEXT, JSON):
        raise Unsupported(f"Content-Type {kind[:64] or '(none)'} is not read here; {TEXT} is.")
    suspect = not _is_utf8(data)
    fields = codec.raw_fields(data)
    try:
        token = msgspec.json.decode(fields.get("token", b"null"), type=str | None)
        if not token:
            raise Unauthenticated('A beacon carries its credential in "token".')
        return token, codec.read_events(fields, limits, suspect=suspect)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(codec.shortened(codec.why_not_json(error), limits)) from None


def media_type(content_type: str | None) -> str:
    """Return the bare type of a Content-Type; raises Unsupported for another charset than UTF-8."""
    kind, *parameters = (content_type or "").split(";")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip(' "').lower() not in ("utf-8", "utf8"):
            raise Unsupported("Only UTF-8 is read here.")
    return kind.strip().lower()


# ── JSON ──────────────────────────────────────────────────────────────────────────────────────


class _Body(Struct, frozen=True):
    events: list[Event]
    sent_at: Moment | None = None
    receipts: str | None = None


def _read_json(data: bytes, rejects: Rejects, limits: WireLimits) -> Submission:
    suspect = not _is_utf8(data)
    first = data.lstrip()[:1]
    if not rejects and not suspect:
        whole = _read_whole(data, first, limits)
        if whole is not None:
            return whole
    if first == b"[":
        return codec.read_each(codec.raw_items(data), limits, rejects=rejects, suspect=suspect)
    fields = codec.raw_fields(data)
    if "events" in fields or _is_envelope(fields):
        return codec.read_events(fields, limits, rejects=rejects, suspect=suspect)
    return codec.read_each([data], limits, suspect=suspect)


def _read_whole(data: bytes, first: bytes, limits: WireLimits) -> Submission | None:
    """Read everything in one typed decode; None: look at each event alone."""
    try:
        if first == b"[":
            events, sent_at, every = _EVENTS.decode(data), None, False
        elif first == b"\n":
            events, sent_at, every = _EVENT.decode_lines(data), None, False
        else:
            alone = _alone(data)
            body = _Body([alone]) if alone is not None else _BODY.decode(data)
            events, sent_at, every = body.events, body.sent_at, body.receipts == "all"
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    codec.check_count(len(events), limits)
    kept = codec.within_limits(events, data, limits)
    event_ids: list[str | None] | None = None if kept is events else [e.event_id for e in events]
    return Submission(kept, event_ids, sent_at, every)


def _alone(data: bytes) -> Event | None:
    """Return the one event that the body is; None, and soon, where it is something else.

    An event knows no fields but its own, so no envelope passes for one.
    """
    try:
        return _EVENT.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _is_envelope(fields: Mapping[str, Any]) -> bool:
    return "sent_at" in fields and "event_type" not in fields and "event_id" not in fields


def _read_lines(data: bytes, limits: WireLimits) -> Submission:
    lines: list[Raw | bytes] = [line for line in data.split(b"\n") if line.strip()]
    if not lines:
        raise Malformed("There is no line in the body: send one event a line.")
    suspect = not _is_utf8(data)
    if not suspect:
        whole = _read_whole(data, b"\n", limits)
        if whole is not None:
            return whole
    submission = codec.read_each(lines, limits, suspect=suspect)
    if all(
        isinstance(event, Reject) and not _reads(line)
        for event, line in zip(submission.events, lines, strict=True)
    ):
        raise Malformed("No line of the body is JSON.")
    return submission


def _reads(line: Raw | bytes) -> bool:
    try:
        codec.raw_fields(bytes(line))
    except Malformed:
        return False
    return True


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# ── inflation ─────────────────────────────────────────────────────────────────────────────────


def _gunzip(data: bytes, bytes_max: int) -> bytes:
    out = bytearray()
    while data:  # a gzip file may have several members
        member = zlib.decompressobj(wbits=31)
        out += member.decompress(data, bytes_max + 1 - len(out))
        if len(out) > bytes_max:
            return bytes(out)
        if not member.eof:
            raise EOFError("it ends too early")
        data = member.unused_data
    return bytes(out)


def _unzstd(data: bytes, bytes_max: int) -> bytes:
    out = bytearray()
    options = {int(zstd.DecompressionParameter.window_log_max): ZSTD_WINDOW_LOG_MAX}
    while data:
        frame = zstd.ZstdDecompressor(options=options)
        out += frame.decompress(data, bytes_max + 1 - len(out))
        if len(out) > bytes_max:
            return bytes(out)
        if not frame.eof:
            raise EOFError("it ends too early")
        data = frame.unused_data
    return bytes(out)


_BODY = msgspec.json.Decoder(_Body)
_EVENT = msgspec.json.Decoder(Event)
_EVENTS = msgspec.json.Decoder(list[Event])
