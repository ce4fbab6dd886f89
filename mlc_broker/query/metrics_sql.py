"""A question about a metric as SQL over the cells: scope, filters, grouping, and the two sides."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from mlc_broker.model.metric import Condition, Metric, Term
from mlc_broker.model.principal import LEARNING, Grant, Scope
from mlc_broker.store.rollups_file import alive
from mlc_broker.store.rollups_pick import RATIO
from mlc_broker.store.rollups_schema import (
    CLASS,
    CONCEPT,
    EXPERIMENT,
    OF_CONTEXT,
    TEACHER,
    WEIGHT,
)
from mlc_broker.store.rollups_words import word_id

TABLE = {
    "events": "activity",
    "sessions": "session",
    "plays": "play",
    "marks": "mark",
    "samples": "sample",
    "receipts": "receipt",
}
_COLUMN = {
    "organization_id": "s.org",
    "user_id": "s.user",
    "game_id": "s.game",
    "stage_type": "s.stage_type",
    "assignment_id": "s.assignment",
    "sequence_id": "s.sequence",
    "endpoint": "s.endpoint",
    "event_type": "s.type",
    "category": "k.category",
    "platform": "st.platform",
    "browser": "st.browser",
    "outcome": "s.outcome",
    "reason": "s.reason",
}
_SETS = {  # dimensions of which one row may have several
    "class_id": ("standing", CLASS),
    "teacher_id": ("standing", TEACHER),
    "experiment": ("standing", EXPERIMENT),
    "concept": ("concepts", CONCEPT),
}
_FIELD = {
    "user_id": "nullif(s.user, 0)",
    "event_type": "s.type",
    "category": "k.category",
    "error": "k.error",
    "user_day": "s.user || ':' || s.at / 1440",
    "kind": "s.kind",
    "run_id": "s.run",
    "game_id": "nullif(s.game, 0)",
    "stage_type": "s.stage_type",
    "score": "nullif(s.score, -1)",
    "max_score": "s.max_score",
    "score_ratio": f"iif(s.score < 0, NULL, (s.score * {RATIO} + s.max_score / 2) / s.max_score)",
    "passed": "nullif(s.passed, -1)",
    "attempt": "nullif(s.attempt, -1)",
    "duration_ms": "s.duration_ms",
    "user_game": "iif(s.game = 0, NULL, s.user || ':' || s.game)",
    "subject": "nullif(s.subject, 0)",
    "user_subject": "s.user || ':' || s.subject",
    "outcome": "s.outcome",
    "reason": "s.reason",
}
_KINDS = {"start": 0, "complete": 1, "quit": 2}
_WORDS = {"event_type", "category", "stage_type", "game_id", "outcome", "reason"}
_BUCKET = {
    "minute": "s.at",
    "hour": "s.at - s.at % 60",
    "day": "s.at - s.at % 1440",
    "week": "s.at - s.at % 1440 - (s.at / 1440 + 3) % 7 * 1440",  # Monday
    "month": "CAST(strftime('%s', s.at * 60, 'unixepoch', 'start of month') AS INTEGER) / 60",
    "total": "0",
}


class Asked(Struct, frozen=True, kw_only=True):
    """One question, made plain. Minutes are by the organization's wall clock since 1970."""

    metric: Metric
    scope: Scope
    grain: str
    group_by: tuple[str, ...]
    filters: Mapping[str, frozenset[str]]
    begin: int | None
    end: int | None
    now: int  # minute, UTC
    categories: Mapping[str, str]  # of event types


class Query(Struct):
    """SQL in the making."""

    columns: list[str]
    joins: dict[str, str]
    where: list[str]
    values: dict[str, Any]
    group: list[str]
    table: str

    @property
    def text(self) -> str:
        """The statement."""
        joins = " ".join(self.joins.values())
        where = " AND ".join(self.where) or "1"
        group = f" GROUP BY {', '.join(self.group)}" if self.group else ""
        return f"SELECT {', '.join(self.columns)} FROM {self.table} {joins} WHERE {where}{group}"

    def bind(self, value: Any) -> str:
        """Return the name of a bound value."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f":{name}"

    def listed(self, numbers: Iterable[int]) -> str:
        """Return the SQL of a list of numbers."""
        return f"(SELECT value FROM json_each({self.bind(json.dumps(sorted(numbers)))}))"


def grouped(asked: Asked, sides: Iterable[Term]) -> Query:
    """Return the query for the bucket, the groups, how many people, and each side.

    For a percentile metric the bin comes last, and a group has a row for each.
    """
    query = filtered(asked)
    bucket = _BUCKET[asked.grain]
    query.columns = [bucket, *(_dimension(query, name, asked) for name in asked.group_by)]
    query.group = [str(i + 1) for i in range(len(query.columns))]
    if asked.metric.of == "sessions":
        return _of_sessions(query, sides)
    people = "0" if asked.metric.of == "receipts" else "count(DISTINCT nullif(s.user, 0))"
    query.columns.append(people)
    if asked.metric.of == "samples":
        query.columns += _of_samples(asked.metric, query)
    else:
        query.columns += [_side(query, asked.metric, side) for side in sides]
    return query


def _of_sessions(query: Query, sides: Iterable[Term]) -> Query:
    """Each session once in each group, from its first to its last event there."""
    width = len(query.columns)
    inner = [f"{column} AS c{i}" for i, column in enumerate(query.columns)]
    inner += ["s.user AS person", "s.session", "min(s.first) AS a", "max(s.last) AS b"]
    query.columns, query.group = inner, [str(i + 1) for i in range(width + 2)]
    what = {"sum": "sum(b - a)", "max": "max(b - a)"}
    columns = [f"c{i}" for i in range(width)]
    columns += ["count(DISTINCT nullif(person, 0))"]
    columns += [what.get(side.total, "count(*)") for side in sides]
    group = [str(i + 1) for i in range(width)]
    return Query(columns, {}, [], query.values, group, f"({query.text})")


def filtered(asked: Asked) -> Query:
    """Return the rows in scope and asked for, alive, of whom the metric counts; no columns yet."""
    metric = asked.metric
    query = Query([], {}, [], {"now": asked.now}, [], f"{TABLE[metric.of]} s")
    if metric.of != "receipts":
        query.where.append(alive("s."))
    if metric.of == "samples":
        query.where.append(f"s.metric = {query.bind(word_id(metric.name))}")
    if metric.counts != "everybody":
        _standing(query)
        query.where.append("st.learner" if metric.counts == "students" else "st.person")
        query.where.append("s.user != 0")
    if metric.organization_id is not None:
        query.where.append(f"s.org = {query.bind(word_id(metric.organization_id))}")
    if asked.begin is not None:
        query.where.append(f"s.at >= {query.bind(asked.begin)}")
    if asked.end is not None:
        query.where.append(f"s.at < {query.bind(asked.end)}")
    _in_scope(query, asked)
    for name, values in asked.filters.items():
        _filter(query, name, values)
    return query


def _in_scope(query: Query, asked: Asked) -> None:
    scope = asked.scope
    if scope.organization_id is not None:
        query.where.append(f"s.org = {query.bind(word_id(scope.organization_id))}")
    clauses = [_granted(query, grant, asked) for grant in scope.grants]
    query.where.append(f"({' OR '.join(clauses) or '0'})")


def _granted(query: Query, grant: Grant, asked: Asked) -> str:
    metric, clauses = asked.metric, ["1"]
    if metric.of == "receipts":  # of no person: for administrators, who have no limits
        return "1" if grant == Grant() else "0"
    if grant.user_ids is not None:
        clauses.append(f"s.user IN {query.listed(map(word_id, grant.user_ids))}")
    if grant.class_ids is not None:
        clauses.append(_member(query, "standing", CLASS, grant.class_ids))
    if grant.teacher_ids is not None:
        clauses.append(_member(query, "standing", OF_CONTEXT, grant.teacher_ids))
    if grant.roles is not None:
        roles = query.listed(map(word_id, grant.roles))
        _standing(query)
        clauses.append(f"st.role IN {roles}")
    if grant.categories is not None:
        clauses.append(_of_category(query, grant.categories, asked))
    return f"({' AND '.join(clauses)})"


def _of_category(query: Query, categories: frozenset[str], asked: Asked) -> str:
    metric = asked.metric
    if metric.of == "events":
        _kind(query)
        return f"k.category IN {query.listed(map(word_id, categories))}"
    if metric.of == "sessions":
        return f"s.category IN {query.listed(map(word_id, categories))}"
    if metric.of == "samples":
        own = {asked.categories.get(name) for name in metric.event_types}
        return "1" if own <= categories else "0"
    return "1" if LEARNING in categories else "0"


def _filter(query: Query, name: str, values: frozenset[str]) -> None:
    if name in _SETS:
        column, axis = _SETS[name]
        if f"m_{name}" in query.joins:
            numbers = query.listed(map(word_id, values))
            query.where.append(f"m_{name}.word IN {numbers}")
        query.where.append(_member(query, column, axis, values))
        return
    _joined(query, name)
    query.where.append(f"{_COLUMN[name]} IN {query.listed(map(word_id, values))}")


def _dimension(query: Query, name: str, asked: Asked) -> str:
    if name not in _SETS:
        _joined(query, name)
        return _COLUMN[name]
    column, axis = _SETS[name]
    query.joins[f"m_{name}"] = (
        f"LEFT JOIN member m_{name} ON m_{name}.id = s.{column} AND m_{name}.axis = {axis}"
    )
    allowed = asked.filters.get(name)
    if name == "class_id":  # a teacher's students may have other classes too, which are not theirs
        granted = [grant.class_ids for grant in asked.scope.grants if grant.class_ids is not None]
        if granted:
            own = frozenset[str]().union(*granted)
            allowed = own if allowed is None else allowed & own
    if allowed is not None:
        query.where.append(f"m_{name}.word IN {query.listed(map(word_id, allowed))}")
    return f"m_{name}.word"


def _member(query: Query, column: str, axis: int, names: Iterable[str]) -> str:
    numbers = query.listed(map(word_id, names))
    return f"s.{column} IN (SELECT id FROM member WHERE axis = {axis} AND word IN {numbers})"


def _joined(query: Query, name: str) -> None:
    if name == "category":
        _kind(query)
    if name in ("platform", "browser"):
        _standing(query)


def _standing(query: Query) -> None:
    query.joins["st"] = "JOIN standing st ON st.id = s.standing"


def _kind(query: Query) -> None:
    query.joins["k"] = "JOIN kind k ON k.type = s.type"


def _side(query: Query, metric: Metric, term: Term) -> str:
    holds = " AND ".join(_condition(query, condition) for condition in (*metric.where, *term.where))
    if term.field is not None:
        _needs(query, term.field)
    field = _FIELD.get(term.field or "", "")
    scale = f" / {RATIO}.0" if term.field == "score_ratio" else ""
    chosen = f"iif({holds or 1}, {{}}, NULL)"
    match term.total:
        case "count":
            return f"coalesce(sum({chosen.format('s.n')}), 0) / {WEIGHT}.0"
        case "sum":
            return f"coalesce(sum({chosen.format(f'({field}) * s.n')}), 0) / {WEIGHT}.0{scale}"
        case "max":
            return f"max({chosen.format(field)}){scale}"
        case "distinct":
            return f"count(DISTINCT {chosen.format(field)})"
    return "0"  # of the roster or the calendar: see metrics.py


def _of_samples(metric: Metric, query: Query) -> list[str]:
    match metric.kind:
        case "count":
            return [f"sum(s.n) / {WEIGHT}.0"]
        case "sum":
            return [f"sum(s.num) / {WEIGHT}.0"]
        case "max":
            return [f"max(s.top) / {WEIGHT}.0"]
        case "distinct":
            return ["count(DISTINCT s.subject)"]
        case "percentile":
            query.group.append("s.bin")
            return [f"sum(s.num) / {WEIGHT}.0", f"sum(s.n) / {WEIGHT}.0", "s.bin"]
    return [f"sum(s.num) / {WEIGHT}.0", f"sum(s.den) / {WEIGHT}.0"]


def _condition(query: Query, condition: Condition) -> str:
    _needs(query, condition.field)
    field = _FIELD[condition.field]
    match condition.op:
        case "given":
            return f"({field}) IS NOT NULL"
        case "missing":
            return f"({field}) IS NULL"
        case "in":
            values = condition.value if isinstance(condition.value, list) else [condition.value]
            return f"({field}) IN {query.listed(_number(condition.field, v) for v in values)}"
    operator = {"is": "=", "is_not": "IS NOT", "at_least": ">=", "at_most": "<="}[condition.op]
    return f"({field}) {operator} {query.bind(_number(condition.field, condition.value))}"


def _needs(query: Query, field: str) -> None:
    if field in ("category", "error"):
        _kind(query)


def _number(field: str, value: Any) -> Any:
    if field == "kind":
        return _KINDS.get(str(value), -1)
    if isinstance(value, str) and field in _WORDS:
        return word_id(value)
    return int(value) if isinstance(value, bool) else value
