"""Events as rows: `properties.score` is a column, what is a list stays JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

CORE = (
    "event_id",
    "event_type",
    "timestamp",
    "organization_id",
    "user_id",
    "session_id",
    "privacy_level",
    "retention_days",
)
PARTS = ("context", "properties", "device_info", "meta")
REST = "more"  # JSON of what has no column
COLUMNS_MAX = 1000
DEPTH_MAX = 4
SHAPES_MAX = 10_000
KINDS = ("bool", "int", "float", "text")  # each holds the ones before it, but text holds all
_INT64 = 2**63

_decode_lines = msgspec.json.Decoder().decode_lines
_encode = msgspec.json.Encoder().encode


def rows_of(body: bytes) -> Iterator[dict[str, Any]]:
    """Yield each event of whole lines as a flat row."""
    for event in _decode_lines(body):
        yield flattened(event)


def flattened(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event as one row: keys joined by dots, lists and what is too deep as JSON."""
    row: dict[str, Any] = {}
    for key, value in event.items():
        if type(value) is not dict:
            _put(row, key, value, 0)
            continue
        for inner_key, inner in value.items():  # the common depth, without a call for each value
            if isinstance(inner, dict | list):
                _put(row, f"{key}.{inner_key}", inner, 1)
            elif inner is not None:
                row[f"{key}.{inner_key}"] = inner
    return row


class Columns:
    """Which columns there are, learnt from a first look at all events.

    `kinds`: also what they hold; without, an event of a shape seen before costs little.
    """

    def __init__(self, *, kinds: bool = True) -> None:
        self._kinds: dict[str, str] = {}
        self._shapes: set[tuple[Any, ...]] | None = None if kinds else set()
        self.has_rest = False

    def learn(self, body: bytes) -> None:
        """Note the columns of these events."""
        kinds = self._kinds
        for event in _decode_lines(body):
            if self._shapes is not None:
                shape = _shape(event)
                if shape in self._shapes:
                    continue
                if len(self._shapes) < SHAPES_MAX:
                    self._shapes.add(shape)
            row = flattened(event)
            for name, value in row.items():
                known = kinds.get(name)
                if known == "text":
                    continue
                if known is None and len(kinds) >= COLUMNS_MAX:
                    self.has_rest = True
                    continue
                kinds[name] = _wider(known, value)

    @property
    def kinds(self) -> dict[str, str]:
        """The columns in their order, and what they hold."""
        by_part = {part: number for number, part in enumerate(PARTS)}
        core = {name: self._kinds.get(name, "text") for name in CORE}
        others = sorted(
            (name for name in self._kinds if name not in core),
            key=lambda name: (by_part.get(name.partition(".")[0], len(PARTS)), name),
        )
        found = core | {name: self._kinds[name] for name in others}
        return found | {REST: "text"} if self.has_rest else found

    def values(self, row: dict[str, Any], names: Mapping[str, str]) -> list[Any]:
        """Return a row's values in the order of the columns; what has none goes into the rest."""
        if self.has_rest and (rest := {k: v for k, v in row.items() if k not in names}):
            row = row | {REST: _encode(rest).decode()}
        return [row.get(name) for name in names]


def _shape(event: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what two events share when they have the same columns."""
    return tuple(
        (key, tuple((k, _shape(v) if type(v) is dict else v is None) for k, v in value.items()))
        if type(value) is dict
        else (key, value is None)
        for key, value in event.items()
    )


def _put(row: dict[str, Any], name: str, value: Any, depth: int) -> None:
    if isinstance(value, dict) and depth < DEPTH_MAX:
        for key, inner in value.items():
            _put(row, f"{name}.{key}", inner, depth + 1)
    elif isinstance(value, dict | list):
        row[name] = _encode(value).decode()
    elif value is not None:
        row[name] = value


def _wider(known: str | None, value: Any) -> str:
    match value:
        case bool():
            kind = "bool"
        case int() if -_INT64 <= value < _INT64:
            kind = "int"
        case float():
            kind = "float"
        case _:
            kind = "text"
    if known is None or known == kind:
        return kind
    return "float" if {known, kind} == {"int", "float"} else "text"
