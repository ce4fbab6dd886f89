"""The catalog: every event type that the broker knows, under every name that means it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Raw, Struct

from mlc_broker.model.custom import CustomType
from mlc_broker.model.event import EventId, Id, Moment, Privacy
from mlc_broker.model.jsoncheck import CachedShape, Checked, SchemaError
from mlc_broker.model.types import STANDARD
from mlc_broker.model.types.base import (
    DEFAULT_MAX_SCORE,
    EventType,
    Sampling,
    properties_schema,
)
from mlc_broker.model.types.parts import Context, Device

__all__ = [
    "DEFAULT_MAX_SCORE",
    "AnyType",
    "Catalog",
    "Checked",
    "Context",
    "CustomType",
    "Device",
    "EventType",
    "Sampling",
    "SchemaError",
    "check_context",
    "check_device",
]

AnyType: TypeAlias = EventType | CustomType

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Catalog:
    """The known event types. Never changed: `with_types` makes a new one."""

    def __init__(self, types: Iterable[AnyType]) -> None:
        """Take the types; raises ValueError where two share a name or an alias."""
        self._types: dict[str, AnyType] = {}
        self._by_spelling: dict[str, AnyType] = {}
        for kind in types:
            self._types[kind.name] = kind
            for spelling in kind.spellings:
                other = self._by_spelling.setdefault(spelling, kind)
                if other is not kind:
                    raise ValueError(
                        f'the name "{spelling}" is taken twice, by {other.name} ({other.title}) '
                        f"and {kind.name} ({kind.title}); give one of them another name"
                    )
        self.resolve = self._by_spelling.get  # name or alias: its type, or None

    @classmethod
    def standard(cls) -> Catalog:
        """Return the catalog of the types that come with the broker."""
        return cls(STANDARD)

    @property
    def types(self) -> Mapping[str, AnyType]:
        """The types by their canonical names."""
        return MappingProxyType(self._types)

    def with_types(self, types: Iterable[AnyType]) -> Catalog:
        """Return a catalog with these types too; raises ValueError where a name is taken."""
        return Catalog([*self._types.values(), *types])

    def schema(self, name: str) -> dict[str, Any]:
        """Return the JSON Schema of a whole event of this type; raises KeyError if unknown."""
        return event_schema(self._by_spelling[name])

    def schemas(self) -> dict[str, dict[str, Any]]:
        """Return the JSON Schema of every type, by canonical name."""
        return {name: event_schema(kind) for name, kind in self._types.items()}


def check_context(raw: Raw) -> Checked[Context]:
    """Return the context canonical and typed; raises SchemaError with a path in `$.context`."""
    return _CONTEXT.check(raw)


def check_device(raw: Raw) -> Checked[Device]:
    """Return the device canonical and typed; raises SchemaError with a path in `$.device_info`."""
    return _DEVICE.check(raw)


def event_schema(kind: AnyType) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of an event of this type as a client sends it."""
    properties = kind.properties_schema()
    defs = dict(_core()["$defs"])
    if isinstance(kind, EventType):  # a custom type is a resource of its own, and keeps its own
        defs |= properties.pop("$defs", {})
        if not _required(properties):
            properties["type"] = ["object", "null"]
    return {
        "$schema": DIALECT,
        "$id": f"/v1/schemas/{kind.name}",
        "title": kind.title,
        "description": (
            f"{kind.group}: {kind.title.lower()}. Unknown keys inside `properties`, `device_info` "
            "and `context` are kept; a null means the same as a missing key."
        ),
        "type": "object",
        "required": ["event_id", "event_type", "timestamp", *_required(properties)],
        "properties": {
            **_core()["properties"],
            "event_type": {"const": kind.name},
            "properties": properties,
        },
        "additionalProperties": False,
        "x-category": kind.category,
        "x-group": kind.group,
        "x-privacy": kind.privacy,
        "x-sampling": kind.sampling,
        "x-retention": kind.retention,
        "x-aliases": list(kind.spellings[1:]),
        "$defs": defs,
    }


def _required(properties: dict[str, Any]) -> list[str]:
    """Return `["properties"]` where an event cannot do without: something in it is required."""
    return ["properties"] if properties.get("required") or properties.get("allOf") else []


@cache
def _core() -> dict[str, Any]:
    """Return the fields that all types share, and the definitions they refer to.

    `Event` itself holds raw JSON, which msgspec cannot describe; `_Core` has the same limits.
    """
    schema = properties_schema(_Core)
    fields = schema["properties"]
    fields["event_id"]["pattern"] = "^[A-Za-z0-9_-]{8,64}$"
    return {"properties": fields, "$defs": schema["$defs"]}


class _Core(Struct, kw_only=True):
    event_id: EventId
    timestamp: Moment
    user_id: Id | None = None
    session_id: Id | None = None
    organization_id: Id | None = None
    device_info: Device | None = None
    context: Context | None = None
    privacy_level: Privacy | None = None
    retention_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None


_CONTEXT = CachedShape(Context, "$.context")
_DEVICE = CachedShape(Device, "$.device_info")
