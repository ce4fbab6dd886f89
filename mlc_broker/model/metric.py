"""What a metric is: a declaration. The built-in ones, plugins' and organizations' are all made so.

A metric counts rows of one *source*. Sources are what the rollups keep, each row of one person:

| source | a row | fields |
|---|---|---|
| `events` | the events of a type in a minute | `user_id`, `event_type`, `category`, `error` |
| `sessions` | a session on a day | `user_id`, `session_id`, `length_ms` |
| `plays` | a play of a stage, once a run | see `FIELDS` |
| `marks` | assignment and mastery events | `user_id`, `event_type`, `subject` |
| `samples` | what the metric itself picks from the properties of its `event_types` | any property |
| `receipts` | what became of what was sent | `outcome`, `reason` |
| `rules` | a rule of the platform, computed per student when it is asked for | |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

Source: TypeAlias = Literal["events", "sessions", "plays", "marks", "samples", "receipts", "rules"]
Kind: TypeAlias = Literal["count", "sum", "mean", "max", "ratio", "distinct", "percentile", "rank"]
Grain: TypeAlias = Literal["minute", "hour", "day", "week", "month", "total"]
Rule: TypeAlias = Literal[
    "streak_days", "review_compliance", "retention_score", "at_risk_students", "leaderboard"
]
Operator: TypeAlias = Literal["is", "is_not", "in", "at_least", "at_most", "given", "missing"]
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_.]{0,63}$")]

GRAINS: tuple[Grain, ...] = ("minute", "hour", "day", "week", "month", "total")
FROM_DAY: tuple[Grain, ...] = ("day", "week", "month", "total")
DIMENSIONS = (
    "organization_id",
    "class_id",
    "teacher_id",
    "user_id",
    "game_id",
    "stage_type",
    "assignment_id",
    "sequence_id",
    "concept",
    "event_type",
    "category",
    "platform",
    "browser",
    "endpoint",
    "experiment",
    "outcome",
    "reason",
)
PERSON = (
    "organization_id",
    "class_id",
    "teacher_id",
    "user_id",
    "platform",
    "browser",
    "experiment",
)
SCENE = ("game_id", "stage_type", "assignment_id", "sequence_id", "concept")
FIELDS: Mapping[Source, frozenset[str]] = MappingProxyType(
    {
        "events": frozenset({"user_id", "event_type", "category", "error", "user_day"}),
        "sessions": frozenset({"user_id", "session_id", "length_ms"}),
        "plays": frozenset(
            {
                "user_id", "kind", "run_id", "game_id", "stage_type", "score_ratio", "score",
                "max_score", "passed", "attempt", "duration_ms", "user_game",
            }
        ),
        "marks": frozenset({"user_id", "event_type", "subject", "user_subject"}),
        "samples": frozenset(),  # any property of the event
        "receipts": frozenset({"outcome", "reason"}),
        "rules": frozenset(),
    }
)  # fmt: skip
ALLOWED: Mapping[Source, frozenset[str]] = MappingProxyType(
    {
        "events": frozenset({*PERSON, "event_type", "category"}),
        "sessions": frozenset(PERSON),
        "plays": frozenset({*PERSON, *SCENE}),
        "marks": frozenset({*PERSON, *SCENE}) - {"stage_type"},
        "samples": frozenset({*PERSON, *SCENE, "endpoint"}),
        "receipts": frozenset({"organization_id", "outcome", "reason"}),
        "rules": frozenset({"organization_id", "class_id", "teacher_id", "user_id", "game_id"}),
    }
)
GRAINS_OF: Mapping[Source, tuple[Grain, ...]] = MappingProxyType(
    {
        "events": GRAINS,
        "sessions": FROM_DAY,
        "plays": GRAINS,
        "marks": GRAINS,
        "samples": GRAINS,
        "receipts": GRAINS,
        "rules": ("total",),
    }
)
_OF_PROPERTIES = frozenset({"sum", "mean", "max", "distinct", "percentile"})


class Condition(Struct, frozen=True, forbid_unknown_fields=True):
    """One test of a field: `{field = "score", op = "at_least", value = 80}`."""

    field: Name
    op: Operator = "is"
    value: str | int | float | bool | list[str | int] | None = None

    def holds(self, properties: Mapping[str, Any]) -> bool:
        """Return whether it holds of an event's properties."""
        found = properties.get(self.field)
        match self.op:
            case "given":
                return found is not None
            case "missing":
                return found is None
            case "is":
                return bool(found == self.value)
            case "is_not":
                return bool(found != self.value)
            case "in":
                return isinstance(self.value, list) and found in self.value
        if not isinstance(found, int | float) or not isinstance(self.value, int | float):
            return False
        return found >= self.value if self.op == "at_least" else found <= self.value


class Term(Struct, frozen=True, forbid_unknown_fields=True):
    """One side of a metric: rows counted, a field summed, its largest, or its different values."""

    total: Literal["count", "sum", "max", "distinct", "people_days", "seats"] = "count"
    field: Name | None = None  # of `sum`, `max` and `distinct`
    where: tuple[Condition, ...] = ()
    apart: tuple[str, ...] = ()  # dimensions over which this side is summed when grouped


class Metric(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One metric. `check` says what is wrong with it, naming the field."""

    name: Name
    title: Annotated[str, Meta(min_length=1, max_length=200)]
    unit: Annotated[str, Meta(min_length=1, max_length=32)]
    kind: Kind
    formula: Annotated[str, Meta(min_length=1, max_length=1000)]
    of: Source = "samples"
    event_types: tuple[Name, ...] = ()  # of `samples`; empty elsewhere: all
    where: tuple[Condition, ...] = ()
    value: Name | None = None  # of `samples`: the property that is summed, or whose values count
    endpoint: tuple[Name, ...] = ()  # of `samples`: properties of which the first given is it
    numerator: Term = Term()
    denominator: Term | None = None
    rule: Rule | None = None
    dimensions: tuple[str, ...] = PERSON
    periods: tuple[Grain, ...] = GRAINS
    counts: Literal["everybody", "people", "students"] = "everybody"
    organization_id: str | None = None  # whose own it is; None: everybody's

    def check(self) -> None:
        """Raise ValueError, naming the field, where the parts do not fit together."""
        for field, problem in self._problems():
            raise ValueError(f"metric {self.name}: {field}: {problem}")

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from self._of_dimensions()
        if (self.of == "rules") != (self.rule is not None):
            yield "rule", 'goes with `of = "rules"`, and that with it'
        if self.of == "samples":
            if not self.event_types:
                yield "event_types", "name the types that are counted"
            if self.kind in _OF_PROPERTIES and self.value is None:
                yield "value", f"name the property of which this is the {self.kind}"
        elif self.value is not None:
            yield "value", 'is for `of = "samples"`; here `numerator.field` says it'
        if self.kind == "ratio" and self.denominator is None and self.of != "rules":
            yield "denominator", "a ratio needs one"
        for side, term in (("numerator", self.numerator), ("denominator", self.denominator)):
            if term is not None:
                yield from self._of_term(side, term)

    def _of_dimensions(self) -> Iterator[tuple[str, str]]:
        for name in self.dimensions:
            if name not in ALLOWED[self.of]:
                known = ", ".join(sorted(ALLOWED[self.of]))
                yield "dimensions", f'`{self.of}` has no "{name}"; it has {known}'
        for grain in self.periods:
            if grain not in GRAINS_OF[self.of]:
                yield "periods", f'`{self.of}` has no "{grain}"; it has {GRAINS_OF[self.of]}'

    def _of_term(self, side: str, term: Term) -> Iterator[tuple[str, str]]:
        if term.total in {"sum", "max", "distinct"} and term.field is None and self.of != "samples":
            yield f"{side}.field", f"name what `{term.total}` is taken of"
        if self.of in {"samples", "rules"}:
            return
        fields = [condition.field for condition in term.where]
        for name in [*fields, *([term.field] if term.field else [])]:
            if name not in FIELDS[self.of]:
                known = ", ".join(sorted(FIELDS[self.of]))
                yield f"{side}", f'`{self.of}` has no field "{name}"; it has {known}'


class Metrics:
    """The declared metrics by name. Never changed: `with_metrics` makes a new catalogue."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        """Take and check them; raises ValueError for a bad one, and where two share a name."""
        self._by_name: dict[str, Metric] = {}
        for metric in metrics:
            metric.check()
            if metric.name in self._by_name:
                raise ValueError(f"metric {metric.name}: name: it is taken; choose another")
            self._by_name[metric.name] = metric

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._by_name.values())

    def get(self, name: str, organization_id: str | None = None) -> Metric | None:
        """Return the metric of that name, unless it is another organization's own."""
        found = self._by_name.get(name)
        if found is None or found.organization_id not in (None, organization_id):
            return None
        return found

    @property
    def samplers(self) -> list[Metric]:
        """Those that pick something from the properties of events."""
        return [metric for metric in self if metric.of == "samples"]

    def with_metrics(self, more: Iterable[Metric]) -> Metrics:
        """Return a catalogue with these too."""
        return Metrics([*self, *more])


def load_metrics(folder: Path) -> list[Metric]:
    """Return the metrics that the TOML and JSON files of a folder declare, one or a list a file.

    An organization's own are named `org.<what>` and carry `organization_id`. Raises ValueError that
    names the file and the field.
    """
    found: list[Metric] = []
    for path in sorted([*folder.glob("*.toml"), *folder.glob("*.json")]):
        decode = msgspec.toml.decode if path.suffix == ".toml" else msgspec.json.decode
        try:
            said = decode(path.read_bytes())
            listed = said["metric"] if isinstance(said, dict) and "metric" in said else said
            some = msgspec.convert(listed if isinstance(listed, list) else [listed], list[Metric])
            for metric in some:
                check_own(metric)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ValueError(f"{path.name}: {error}") from error
        found += some
    return found


def check_own(metric: Metric) -> None:
    """Check what the house did not declare itself; raises ValueError that names the field."""
    if not metric.name.startswith("org."):
        raise ValueError(f'metric {metric.name}: name: begin it with "org."')
    metric.check()


def check_made(metric: Metric) -> None:
    """Check a metric that was made in Python, where no decoder looked at its fields."""
    try:
        msgspec.convert(msgspec.to_builtins(metric), Metric)
    except (msgspec.ValidationError, TypeError) as error:
        raise ValueError(f"metric {metric.name}: {error}") from error
    check_own(metric)
