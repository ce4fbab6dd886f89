"""What metrics pick from the properties of an event: plays, marks, and declared samples."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, get_type_hints

import msgspec
from msgspec import Raw, Struct

from mlc_broker.model.event import Event
from mlc_broker.model.metric import Metric, Term
from mlc_broker.model.sketch import bin_of
from mlc_broker.store.rollups_schema import WEIGHT
from mlc_broker.store.rollups_words import Place, Words, word_id

DAY_MS = 86_400_000
RATIO = 1_000_000  # score / max_score is kept in millionths
PLAY_KINDS = {"game_stage_start": 0, "game_stage_complete": 1, "game_stage_quit": 2}
CHALLENGE = "challenge_completed"
MARKS = (
    "assignment_started",
    "assignment_completed",
    "assignment_overdue",
    "concept_mastered",
    "review_scheduled",
    "retention_check",
    CHALLENGE,
)
_ENDPOINT_CHARS_MAX = 128
_VERSION = re.compile(r"v\d{1,3}")
_NONE = -1  # a number that was not given


class Played(Struct, gc=False):
    """The properties that a play is made of."""

    game_id: str | None = None
    stage_id: str | None = None
    stage_type: str | None = None
    run_id: str | None = None
    score: int | None = None
    max_score: int | None = None
    passed: bool | None = None
    target_score: int | None = None
    pass_threshold: int | None = None
    duration_ms: int | None = None
    elapsed_ms: int | None = None
    attempts: int | None = None
    attempt_number: int | None = None
    assignment_progress_after: float | None = None
    concept_tags: tuple[str, ...] = ()


class Learnt(Struct, gc=False):
    """The properties that marks are made of."""

    game_id: str | None = None
    stage_id: str | None = None
    score: int | None = None
    max_score: int | None = None
    completion_percentage: float | None = None
    concept_tags: tuple[str, ...] = ()
    concept_id: str | None = None
    challenge_game_id: str | None = None
    challenge_id: str | None = None
    schedule_id: str | None = None
    review_date: str | None = None
    due_date: str | None = None
    scheduled_for: str | None = None
    assigned_at: str | None = None
    offset_days: int | None = None
    score_achieved: int | None = None


class Plan(Struct):
    """What is done with the events of one type."""

    play: int | None = None
    mark: bool = False
    samples: tuple[Metric, ...] = ()


# organization, at, user, standing, days of retention, weight, epoch ms
Base = tuple[int, int, int, int, int, int, int]
_played = msgspec.json.Decoder(Played).decode
_learnt = msgspec.json.Decoder(Learnt).decode
_any = msgspec.json.Decoder().decode


def plans_of(metrics: Iterable[Metric]) -> dict[str, Plan]:
    """Return what to pick from the events of each type that any metric looks into."""
    plans: dict[str, Plan] = {}
    for name, kind in PLAY_KINDS.items():
        plans.setdefault(name, Plan()).play = kind
    for name in MARKS:
        plans.setdefault(name, Plan()).mark = True
    for metric in metrics:
        if metric.of == "samples":
            for name in metric.event_types:
                plan = plans.setdefault(name, Plan())
                plan.samples += (metric,)
    return plans


class Pick:
    """Makes the cells of one event that stand on its properties."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._types = {name: word_id(name) for name in MARKS}

    def take(self, delta: Any, plan: Plan, event: Event, where: Place, base: Base) -> None:
        """Add what the plan wants of the event."""
        if plan.play is not None:
            self._play(delta.play, plan.play, event, where, base)
        if plan.mark:
            self._mark(delta.mark, event, where, base)
        if plan.samples:
            properties = _properties(event.properties_json)
            for metric in plan.samples:
                if all(condition.holds(properties) for condition in metric.where):
                    self._sample(delta.sample, metric, event, properties, where, base)

    def _play(
        self,
        plays: dict[tuple[int, ...], tuple[int, ...]],
        kind: int,
        event: Event,
        where: Place,
        base: Base,
    ) -> None:
        said = _typed(_played, event.properties_json, Played)
        org, at, user, standing, days, weight, ms = base
        ids = self._words.id
        attempt = said.attempts if said.attempts is not None else said.attempt_number
        run = said.run_id or where.run_id
        if run is None:
            # without a session the event speaks for itself alone
            session = event.session_id or event.event_id
            run = f"{session}\x1f{said.stage_id or said.game_id}\x1f{attempt}"
        passed = said.passed
        goal = said.pass_threshold if said.pass_threshold is not None else said.target_score
        if passed is None and goal is not None and said.score is not None:
            passed = said.score >= goal
        tags = said.concept_tags or event.facts.concepts
        key = (org, user, word_id(run), kind)
        row = (
            at,
            ms,
            standing,
            ids(said.game_id),
            ids(said.stage_id),
            ids(said.stage_type),
            ids(where.assignment_id),
            ids(where.sequence_id),
            self._words.concepts(tags) if tags else 0,
            _NONE if said.score is None else said.score,
            said.max_score or 100,
            _NONE if passed is None else int(passed),
            _NONE if attempt is None else attempt,
            said.duration_ms or said.elapsed_ms or 0,
            _percent(said.assignment_progress_after),
            days,
            weight,
        )
        known = plays.get(key)
        if known is None or row < known:
            plays[key] = row

    def _mark(
        self, marks: dict[tuple[int, ...], int], event: Event, where: Place, base: Base
    ) -> None:
        said = _typed(_learnt, event.properties_json, Learnt)
        org, at, user, standing, days, weight, ms = base
        ids = self._words.id
        kind = event.event_type
        game = ids(said.game_id or said.challenge_game_id)
        tags = said.concept_tags or ((said.concept_id,) if said.concept_id else ())
        v1 = v2 = v3 = _NONE
        subjects: tuple[str | None, ...]
        if kind.startswith("assignment"):
            subjects = (where.assignment_id,)
            v1 = _moment(said.assigned_at)
            v2 = _moment(said.due_date)
            v3 = _percent(said.completion_percentage)
        elif kind == "concept_mastered":
            subjects = tags
        elif kind == CHALLENGE:
            subjects = (said.challenge_id,)
            v1, v2 = _given(said.score), _given(said.max_score)
        else:
            subjects = (said.schedule_id or said.game_id or said.stage_id or "".join(tags[:1]),)
            v1 = _due(said, ms)
            score = said.score_achieved if said.score_achieved is not None else said.score
            v2, v3 = _given(score), said.max_score or 100
        places = (game, ids(where.assignment_id), ids(where.sequence_id))
        for subject in subjects:
            # a mastered concept stands for itself, not for those mastered with it
            own = (subject,) if kind == "concept_mastered" else tags
            concepts = self._words.concepts(tag for tag in own if tag)
            begin = (org, at, user, ids(kind), ids(subject), ms, v1, v2, v3, standing)
            key = (*begin, *places, concepts, days)
            marks[key] = marks.get(key, 0) + weight

    def _sample(
        self,
        samples: dict[tuple[int, ...], tuple[int, int, int, int]],
        metric: Metric,
        event: Event,
        properties: Mapping[str, Any],
        where: Place,
        base: Base,
    ) -> None:
        measured = measure(metric, properties, base[5])
        if measured is None:
            return
        org, at, user, standing, days, _, _ = base
        ids = self._words.id
        subject, number, values = measured
        tags = properties.get("concept_tags") or event.facts.concepts
        key = (
            word_id(metric.name),
            org,
            at,
            user,
            standing,
            ids(subject),
            ids(_text(properties.get("game_id"))),
            ids(_text(properties.get("stage_type"))),
            ids(where.assignment_id),
            ids(where.sequence_id),
            self._words.concepts(map(str, tags)) if isinstance(tags, list | tuple) else 0,
            ids(endpoint_of(metric, properties)),
            number,
            days,
        )
        known = samples.get(key)
        if known is not None:
            n, num, den, top = known
            values = (n + values[0], num + values[1], den + values[2], max(top, values[3]))
        samples[key] = values


def measure(
    metric: Metric, properties: Mapping[str, Any], weight: int
) -> tuple[str | None, int, tuple[int, int, int, int]] | None:
    """Return what an event adds: a subject, a bin, and n, numerator, denominator, largest.

    None: it adds nothing. Values are in thousandths, weighed, and rounded for each event alone.
    """
    if metric.kind == "ratio":
        over, under = (
            _side(term, properties, weight) for term in (metric.numerator, metric.denominator)
        )
        return (None, 0, (weight, over, under, 0)) if over or under else None
    if metric.value is None:
        return None, 0, (weight, weight, weight, 0)
    value = properties.get(metric.value)
    if metric.kind == "distinct":
        return None if value is None else (str(value), 0, (weight, 0, 0, 0))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = bin_of(value) if metric.kind == "percentile" else 0
    exact = round(value * WEIGHT)
    return None, number, (weight, exact * weight // WEIGHT, weight, exact)


def endpoint_of(metric: Metric, properties: Mapping[str, Any]) -> str | None:
    """Return an address without its query, and with `*` where an id stands: few different ones."""
    for name in metric.endpoint:
        value = properties.get(name)
        if isinstance(value, str) and value:
            path = value.partition("?")[0].partition("#")[0][:_ENDPOINT_CHARS_MAX]
            return "/".join("*" if _is_id(part) else part for part in path.split("/"))
    return None


def _is_id(part: str) -> bool:
    return any(map(str.isdigit, part)) and not _VERSION.fullmatch(part)


def _side(term: Term | None, properties: Mapping[str, Any], weight: int) -> int:
    if term is None or not all(condition.holds(properties) for condition in term.where):
        return 0
    if term.total != "sum" or term.field is None:
        return weight
    value = properties.get(term.field)
    return round(value * WEIGHT) * weight // WEIGHT if isinstance(value, int | float) else 0


def _typed(decode: Callable[[Raw], Any], raw: Raw, kind: type[Any]) -> Any:
    """Decode; a value of another type than it should be counts as missing."""
    try:
        return decode(raw)
    except msgspec.MsgspecError:
        found: dict[str, Any] = {}
        hints = get_type_hints(kind)
        for name, value in _properties(raw).items():
            if name in hints:
                with suppress(msgspec.ValidationError):
                    found[name] = msgspec.convert(value, hints[name])
        return kind(**found)


def _properties(raw: Raw) -> Mapping[str, Any]:
    value = _any(raw)
    return value if isinstance(value, dict) else {}


def _due(said: Learnt, ms: int) -> int:
    moment = _moment(said.due_date or said.review_date or said.scheduled_for)
    if moment == _NONE and said.offset_days is not None:
        return ms + said.offset_days * DAY_MS
    return moment


def _moment(text: str | None) -> int:
    """Return epoch ms of a date or a time; a bare date is its first moment in UTC."""
    if text is None:
        return _NONE
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _NONE
    if moment.tzinfo is None:
        moment = datetime.fromisoformat(f"{moment.isoformat()}+00:00")
    return round(moment.timestamp() * 1000)


def _percent(value: float | None) -> int:
    return _NONE if value is None else round(value * 100)


def _given(value: int | None) -> int:
    return _NONE if value is None else value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
