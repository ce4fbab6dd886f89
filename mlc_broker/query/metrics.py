"""Metrics for those who may see them: `ask` gives rows out of what is counted up to this moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import trio
from msgspec import Struct

from mlc_broker.model.errors import (
    Forbidden,
    Malformed,
    NotFound,
    StoreError,
    TooLarge,
    Unavailable,
)
from mlc_broker.model.metric import Metric, Metrics, Term
from mlc_broker.model.person import Organization
from mlc_broker.model.principal import Hierarchy, Principal, Scope, scope_for
from mlc_broker.query import metrics_rules
from mlc_broker.query.metrics_rows import Row, beside, key_of, percentiles, row_of, value
from mlc_broker.query.metrics_sql import Asked, filtered, grouped
from mlc_broker.query.metrics_time import Calendar
from mlc_broker.query.scopes import Asker, ferpa_class
from mlc_broker.query.suppression import suppress
from mlc_broker.runtime.clock import Clock
from mlc_broker.store.audit_entry import Entry

ROWS_MAX = 10_000
READS_AT_ONCE_MAX = 2
InThread = Callable[..., Any]


class Counted(Protocol):
    """The rollups, as far as a reader needs them."""

    @property
    def read(self) -> Callable[[str, dict[str, Any]], list[tuple[Any, ...]]]:
        """Return what gives the rows of a query; for threads."""

    async def caught_up(self) -> None:
        """Return when all that was committed before this call can be read."""


class Places(Hierarchy, Protocol):
    """The roster, as far as metrics need it."""

    def organization(self, organization_id: str) -> Organization | None:
        """Return the organization's record."""


class AccessLog(Protocol):
    """Who keeps the access log."""

    async def record(self, *entries: Entry) -> None:
        """Commit entries; StoreError where they cannot be written."""


class Question(Struct, frozen=True, kw_only=True):
    """What is asked. Times are instants; they count from the bucket that they fall into."""

    name: str
    grain: str = "day"
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, frozenset[str]] = {}
    begin: datetime | None = None  # inclusive
    end: datetime | None = None  # exclusive
    previous: bool = False  # beside each value, the one of the period before
    purpose: str = ""


class Told(Struct, frozen=True):
    """The answer."""

    metric: str
    unit: str
    rows: list[Row]


class MetricBook:
    """All reading of metrics goes through here."""

    def __init__(
        self,
        metrics: Metrics,
        rollups: Counted,
        places: Places,
        *,
        clock: Clock,
        categories: Mapping[str, str],
        pseudonym: Callable[[str | None, str], str],
        access_log: AccessLog | None = None,
        minimum_group: int = 10,
        in_thread: InThread = trio.to_thread.run_sync,
    ) -> None:
        self.metrics = metrics
        self._rollups = rollups
        self._places = places
        self._clock = clock
        self._categories = categories
        self._pseudonym = pseudonym
        self._access_log = access_log
        self._minimum_group = minimum_group
        self._in_thread = in_thread
        self._room = trio.CapacityLimiter(READS_AT_ONCE_MAX)

    def catalogue(self, principal: Principal) -> list[Metric]:
        """Return the metrics that this person may ask for."""
        own = principal.organization_id
        return [metric for metric in self.metrics if metric.organization_id in (None, own)]

    def zone(self, principal: Principal, filters: Mapping[str, frozenset[str]]) -> ZoneInfo:
        """Return the time zone in which this person's days begin."""
        return self._zone(self._scope(principal, filters))

    async def ask(self, principal: Principal, question: Question, *, log: bool = True) -> Told:
        """Return the rows; raises ClientError. `log`: whether a read of persons is noted."""
        asked, calendar = self._understood(principal, question)
        await self._rollups.caught_up()
        rows = await self._rows(asked, calendar)
        if question.previous:
            before = calendar.before(asked)
            earlier = await self._rows(before, calendar)
            beside(rows, earlier, asked, before, calendar)
        rows = self._shown(rows, asked, calendar)
        if len(rows) > ROWS_MAX:
            raise TooLarge(f"That is {len(rows)} rows; at most {ROWS_MAX} are given: narrow it.")
        if log:
            await self._note(principal, asked, question, rows)
        return Told(asked.metric.name, asked.metric.unit, rows)

    # --- understanding ---

    def _understood(self, principal: Principal, question: Question) -> tuple[Asked, Calendar]:
        scope = self._scope(principal, question.filters)
        metric = self.metrics.get(question.name, scope.organization_id)
        if metric is None:
            raise NotFound("There is no metric of this name: GET /v1/metrics lists them.")
        _check(metric, question)
        calendar = Calendar(self._zone(scope), self._clock.now())
        begin, end = calendar.window(question.begin, question.end, question.grain)
        if question.previous and begin is None:
            raise Malformed("`compare=previous` needs `from`: the period before it is as long.")
        group_by = question.group_by
        if metric.kind == "rank":  # a place is somebody's, in a game
            group_by = tuple(dict.fromkeys((*group_by, "game_id", "user_id")))
        asked = Asked(
            metric=metric,
            scope=scope,
            grain=question.grain,
            group_by=group_by,
            filters=question.filters,
            begin=begin,
            end=end,
            now=calendar.now_utc,
            categories=self._categories,
        )
        return asked, calendar

    def _scope(self, principal: Principal, filters: Mapping[str, frozenset[str]]) -> Scope:
        if principal.kind != "user":
            raise Forbidden("A key publishes and reads nothing: ask with a user's token.")
        named = filters.get("organization_id")
        one = next(iter(named)) if named is not None and len(named) == 1 else None
        return scope_for(principal, self._places, organization_id=one)

    def _zone(self, scope: Scope) -> ZoneInfo:
        known = scope.organization_id and self._places.organization(scope.organization_id)
        try:
            return ZoneInfo(known.time_zone if known else "UTC")
        except (ZoneInfoNotFoundError, ValueError):
            return ZoneInfo("UTC")

    # --- counting ---

    async def _rows(self, asked: Asked, calendar: Calendar) -> list[Row]:
        if asked.metric.rule is not None:
            rules = partial(metrics_rules.rows, asked, calendar, self._read_now)
            made: list[Row] = await self._in_thread_soon(rules)
            return made
        if _wants_begin(asked):
            asked = await self._from_first_day(asked)
        sides = [asked.metric.numerator]
        if asked.metric.denominator is not None:
            sides.append(asked.metric.denominator)
        query = grouped(asked, sides)
        found = await self._in_thread_soon(partial(self._read_now, query.text, query.values))
        rows = (
            percentiles(found, asked)
            if asked.metric.kind == "percentile"
            else [row_of(values, asked) for values in found]
        )
        await self._complete(rows, asked, calendar)
        return [row for row in rows if row.pop("_counts", True)]

    async def _complete(self, rows: list[Row], asked: Asked, calendar: Calendar) -> None:
        """Work out the denominators that are not simply of the same rows; then the values."""
        term = asked.metric.denominator
        if term is not None and term.apart and asked.metric.of != "samples":
            totals = await self._apart(term, asked)
            for row in rows:
                row["denominator"] = totals.get(key_of(row, asked, term.apart), 0)
        for row in rows:
            if term is not None and term.total == "people_days":
                row["denominator"] = row["_people"] * calendar.days_of(row["_at"], asked)
            elif term is not None and term.total == "seats":
                row["denominator"] = self._seats(asked)
            value(row, asked)

    async def _from_first_day(self, asked: Asked) -> Asked:
        """Return the question from the first day on of which anything is counted."""
        query = filtered(asked)
        query.columns = ["min(s.at - s.at % 1440)"]
        found = await self._in_thread_soon(partial(self._read_now, query.text, query.values))
        return msgspec.structs.replace(asked, begin=found[0][0])

    async def _apart(self, term: Term, asked: Asked) -> dict[tuple[Any, ...], float]:
        kept = tuple(name for name in asked.group_by if name not in term.apart)
        filters = {k: v for k, v in asked.filters.items() if k not in term.apart}
        whole = msgspec.structs.replace(asked, group_by=kept, filters=filters)
        query = grouped(whole, [term])
        found = await self._in_thread_soon(partial(self._read_now, query.text, query.values))
        return {tuple(values[: len(kept) + 1]): values[-1] for values in found}

    def _seats(self, asked: Asked) -> int:
        organization = asked.scope.organization_id
        known = None if organization is None else self._places.organization(organization)
        return 0 if known is None else known.seats

    def _read_now(self, query: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        return self._rollups.read(query, values)

    async def _in_thread_soon(self, work: Callable[[], Any]) -> Any:
        async with self._room:
            try:
                return await self._in_thread(work)
            except StoreError as error:
                raise Unavailable(str(error)) from error

    # --- showing ---

    def _shown(self, rows: list[Row], asked: Asked, calendar: Calendar) -> list[Row]:
        if asked.scope.organization_id is None and asked.metric.of != "receipts":
            rows = self._without_small_groups(rows, asked)
        words = self._words(rows, asked)
        rows.sort(
            key=lambda row: (
                row["_at"],
                *(str(words.get(row[n], "")) for n in asked.group_by if n != "user_id"),
                row.get("rank", 0),
                str(words.get(row.get("user_id", 0), "")),
            )
        )
        shown = []
        for row in rows:
            named: Row = {"at": calendar.instant(row["_at"], asked)}
            for name in asked.group_by:
                named[name] = words.get(row[name])
            if asked.scope.pseudonymous and named.get("user_id") is not None:
                named["user_id"] = self._pseudonym(named.get("organization_id"), named["user_id"])
            named |= {k: v for k, v in row.items() if k not in named and not k.startswith("_")}
            shown.append(named)
        return shown

    def _without_small_groups(self, rows: list[Row], asked: Asked) -> list[Row]:
        people = [row for row in rows if row["_people"]]
        dimensions = ("_at", *asked.group_by)
        shown = suppress(people, self._minimum_group, dimensions=dimensions, people="_people")
        return shown + [row for row in rows if not row["_people"]]  # of machines

    def _words(self, rows: list[Row], asked: Asked) -> dict[int, str]:
        numbers = {row[name] for row in rows for name in asked.group_by if row[name]}
        query = "SELECT id, text FROM word WHERE id IN (SELECT value FROM json_each(:ids))"
        ids = "[" + ",".join(map(str, numbers)) + "]"
        return dict(self._read_now(query, {"ids": ids})) if numbers else {}

    async def _note(
        self, principal: Principal, asked: Asked, question: Question, rows: Sequence[Row]
    ) -> None:
        named = {row["user_id"] for row in rows if row.get("user_id")}
        named |= set(question.filters.get("user_id", ())) if rows else set()
        named.discard(principal.id)
        if not named or self._access_log is None:
            return
        organization = asked.scope.organization_id
        asker = Asker(principal=principal, scope=asked.scope)
        entry = Entry(
            who=principal.id,
            role=str(principal.role),
            action="metrics",
            asker_organization_id=principal.organization_id,
            organization_id=organization,
            filters={k: sorted(v) for k, v in question.filters.items()},
            subjects={organization or "": sorted(named)},
            subjects_count=len(named),
            purpose=question.purpose,
            ferpa_class=ferpa_class(asker),
            detail=asked.metric.name,
        )
        try:
            await self._access_log.record(entry)
        except StoreError as error:
            raise Unavailable(str(error)) from error


def _check(metric: Metric, question: Question) -> None:
    if question.grain not in metric.periods:
        known = ", ".join(metric.periods)
        raise Malformed(f"{metric.name} has no grain `{question.grain[:32]}`; it has {known}.")
    for name in (*question.group_by, *question.filters):
        if name not in metric.dimensions and name != "organization_id":
            known = ", ".join(metric.dimensions)
            raise Malformed(f"{metric.name} has no dimension `{name[:64]}`; it has {known}.")


def _wants_begin(asked: Asked) -> bool:
    """Whether the days of a window count that has no begin."""
    term = asked.metric.denominator
    days = term is not None and term.total == "people_days"
    return days and asked.begin is None and asked.grain == "total"
