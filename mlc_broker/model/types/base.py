"""What the standard types are made of: an event type, its base struct, and values with limits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import force_setattr

from mlc_broker.model.event import Privacy, Retention
from mlc_broker.model.jsoncheck import Checked, Shape, camel
from mlc_broker.model.principal import PERFORMANCE

Sampling: TypeAlias = Literal["never", "performance", "high_volume", "debug"]

DAY_MS = 86_400_000

Ident = Annotated[str, Meta(min_length=1, max_length=64)]
Word = Annotated[str, Meta(max_length=64)]  # a value out of a set that the sender knows
Label = Annotated[str, Meta(max_length=256)]
Url = Annotated[str, Meta(max_length=2048)]
FreeText = Annotated[str, Meta(max_length=4096, extra_json_schema={"x-text": True})]
Stack = Annotated[str, Meta(max_length=16_384, extra_json_schema={"x-text": True})]
Date = Annotated[
    str, Meta(min_length=10, max_length=40, description="An RFC 3339 date or date-time.")
]
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Bytes = Annotated[int, Meta(ge=0, le=2**50)]
Version = Annotated[int, Meta(ge=0, le=1_000_000)]
GameVersion = Version | Annotated[str, Meta(max_length=64)]  # a number, or 1.2.3
StageType = Literal["learn", "play", "quiz", "challenge", "review"]
PlayContext = Literal["free_play", "assigned"]
Duration = Annotated[int, Meta(ge=0, le=DAY_MS)]  # within one sitting
LongDuration = Annotated[int, Meta(ge=0, le=3660 * DAY_MS)]  # over a school career
Score = Annotated[int, Meta(ge=0, le=1_000_000)]  # raw: real targets reach 9,000
MaxScore = Annotated[int, Meta(ge=1, le=1_000_000)]
Percent = Annotated[int, Meta(ge=0, le=100)] | Annotated[float, Meta(ge=0, le=100)]
Ratio = Annotated[int, Meta(ge=0, le=1)] | Annotated[float, Meta(ge=0, le=1)]
Number = Annotated[int, Meta(ge=0, le=10**12)] | Annotated[float, Meta(ge=0, le=1e12)]
Millis = Annotated[int, Meta(ge=0, le=DAY_MS)] | Annotated[float, Meta(ge=0, le=DAY_MS)]
Status = Annotated[int, Meta(ge=0, le=599)]  # of HTTP; 0: no answer came
Money = Annotated[int, Meta(ge=0, le=10**12)]  # in the currency's smallest unit
Words = Annotated[tuple[Word, ...], Meta(max_length=32)]

DEFAULT_MAX_SCORE = 100


class Properties(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The known properties of a type. All may be missing but what `needs` asks for.

    Unknown keys are kept. No field has a default but None, so that nothing that was sent is
    left out when it is written again: the fast way of the check stands on that.
    """

    needs: ClassVar[tuple[tuple[str, ...], ...]] = ()  # of each group at least one

    assignment_id: Ident | None = None
    sequence_id: Ident | None = None


class EventType(Struct, frozen=True, kw_only=True, eq=False):
    """An event type: what it is called, what it may carry, and how it is treated."""

    name: str
    category: str  # one of principal.CATEGORIES
    group: str  # the specification's sub-heading
    title: str
    properties: type[Properties]
    privacy: Privacy = "standard"
    sampling: Sampling = "never"
    aliases: tuple[str, ...] = ()  # besides the camelCase spelling
    environments: frozenset[str] | None = None  # where it is collected; None: everywhere
    text: frozenset[str] = frozenset()  # properties of free text by or about people
    check: Callable[[Raw], Checked[Any]] = Shape(Properties, "$.properties").check

    def __post_init__(self) -> None:
        # A field, not a method: the hot path saves a call an event.
        force_setattr(self, "check", Shape(self.properties, "$.properties").check)
        force_setattr(self, "text", self.text | free_text(self.properties))

    @property
    def retention(self) -> Retention:
        """The retention class: `system` for system performance, else the privacy level."""
        return "system" if self.category == PERFORMANCE else self.privacy

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every name that means this type: its own, the camelCase one, the aliases."""
        return tuple(dict.fromkeys((self.name, camel(self.name), *self.aliases)))

    def properties_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of `properties`, with references into `#/$defs/`."""
        schema = properties_schema(self.properties)
        if self.properties.needs:
            schema["allOf"] = [
                {"anyOf": [{"required": [name]} for name in group]}
                for group in self.properties.needs
            ]
        return schema


def properties_schema(struct: type[Struct]) -> dict[str, Any]:
    """Return the struct's JSON Schema, its nested structs under `$defs`."""
    [_], parts = msgspec.json.schema_components((struct,), ref_template="#/$defs/{name}")
    for part in parts.values():
        for field in part["properties"].values():
            if field.get("default", 0) is None:
                del field["default"]
    schema: dict[str, Any] = parts.pop(struct.__name__)
    if parts:
        schema["$defs"] = parts
    return schema


def free_text(struct: type[Struct]) -> frozenset[str]:
    """Return the names of the fields that are marked as free text."""
    fields = properties_schema(struct)["properties"]
    return frozenset(name for name, schema in fields.items() if "x-text" in repr(schema))


def check_needs(properties: Properties) -> None:
    """Raise ValueError where a group of `needs` has no member in `properties`."""
    for group in properties.needs:
        if all(getattr(properties, name) is None for name in group):
            raise ValueError(f"Object missing required field `{'` or `'.join(group)}`")


def check_date(text: str | None, name: str) -> None:
    """Raise ValueError where `text` is given and is no RFC 3339 date or date-time."""
    if text is None:
        return
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"Invalid RFC 3339 date or date-time - at `$.{name}`") from None


def check_score(score: int | None, max_score: int | None, name: str = "score") -> None:
    """Raise ValueError where the score is over its maximum (100 where none is given)."""
    limit = DEFAULT_MAX_SCORE if max_score is None else max_score
    if score is not None and score > limit:
        raise ValueError(
            f"{name} {score} is over max_score {limit}: expected `{name}` <= {limit} - at `$.{name}`"
        )
