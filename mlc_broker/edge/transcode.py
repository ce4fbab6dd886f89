"""MessagePack to JSON, so that there is one way through the house: refusing what JSON cannot say."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec import Raw

from mlc_broker.model.errors import Malformed
from mlc_broker.model.verdict import Reject

KNOWN_BAD = Raw(b"null")  # stands where an event was that cannot be said in JSON

Rejects = dict[int, tuple[Reject, str | None]]


def message_to_json(data: bytes, *, depth_max: int) -> tuple[bytes, Rejects]:
    """Return a MessagePack map as JSON, and the events of it that could not be carried over.

    Raises Malformed when the message around the events cannot be read.
    """
    parts = _as_map(data)
    rejects: Rejects = {}
    said: dict[str, Any] = {}
    for key, raw in parts.items():
        items = _as_list(raw) if key == "events" else None
        if items is None:
            said[key] = _value(raw, depth_max)
        else:
            said[key] = [_event(item, i, rejects, depth_max) for i, item in enumerate(items)]
    return msgspec.json.encode(said), rejects


def body_to_json(data: bytes, *, depth_max: int) -> tuple[bytes, Rejects]:
    """Return an HTTP body (one event, an array, or an object with `events`) as JSON."""
    items = _as_list(data)
    if items is None:
        return message_to_json(data, depth_max=depth_max)
    rejects: Rejects = {}
    said = [_event(item, i, rejects, depth_max) for i, item in enumerate(items)]
    return msgspec.json.encode(said), rejects


def _event(raw: Raw, index: int, rejects: Rejects, depth_max: int) -> Any:
    try:
        return _value(raw, depth_max)
    except Malformed as error:
        rejects[index] = (Reject("malformed", str(error)), _event_id(raw))
        return KNOWN_BAD


def _value(raw: Raw | bytes, depth_max: int) -> Any:
    try:
        value = msgspec.msgpack.decode(raw)
    except RecursionError:
        raise Malformed(f"Nested deeper than {depth_max} levels.") from None
    except UnicodeDecodeError:
        raise Malformed("A text in it is not valid UTF-8.") from None
    except (msgspec.DecodeError, ValueError, OverflowError, TypeError) as error:
        raise Malformed(f"Not valid MessagePack: {error}") from None
    _check(value, depth_max)
    return value


def _check(value: Any, depth_max: int) -> None:
    """Walk through `value`, level by level; raises Malformed at what JSON cannot say."""
    level, depth = [value], 0
    while level:
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str or kind is bool or item is None:
                continue
            if kind is int:
                if not -(2**63) <= item < 2**63:
                    raise Malformed("An integer beyond 64 bits: send it as text.")
            elif kind is float:
                if not math.isfinite(item):
                    raise Malformed("A number that is not finite: leave it out.")
            elif kind is dict:
                for key in item:
                    if type(key) is not str:
                        raise Malformed("A key that is not text: JSON's keys are text.")
                below.extend(item.values())
            elif kind is list:
                below.extend(item)
            else:
                raise Malformed("A binary or extension value: send text, and times as RFC 3339.")
        level, depth = below, depth + 1
        if depth > depth_max + 2:  # the message and its list of events stand around an event
            raise Malformed(f"Nested deeper than {depth_max} levels.")


def _as_map(data: bytes) -> dict[str, Raw]:
    try:
        return _MAP.decode(data)
    except msgspec.ValidationError:
        raise Malformed("Not a MessagePack map with text keys.") from None
    except RecursionError:
        raise Malformed("Nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeError, ValueError, OverflowError) as error:
        raise Malformed(f"Not valid MessagePack: {error}") from None


def _as_list(data: Raw | bytes) -> list[Raw] | None:
    try:
        return _LIST.decode(data)
    except (msgspec.DecodeError, UnicodeError, ValueError, RecursionError):
        return None


def _event_id(raw: Raw) -> str | None:
    try:
        event_id = msgspec.msgpack.decode(_MAP.decode(raw)["event_id"])
    except (msgspec.DecodeError, ValueError, RecursionError, LookupError, TypeError):
        return None
    return event_id if isinstance(event_id, str) and len(event_id) <= 64 else None


_MAP = msgspec.msgpack.Decoder(dict[str, Raw])
_LIST = msgspec.msgpack.Decoder(list[Raw])
