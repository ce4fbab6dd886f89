"""From what SQL finds to the rows of an answer: values, percentiles, and the period before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mlc_broker.model.sketch import quantiles
from mlc_broker.query.metrics_sql import Asked
from mlc_broker.query.metrics_time import Calendar

RANKS = (0.5, 0.75, 0.95, 0.99)
Row = dict[str, Any]


def row_of(values: Sequence[Any], asked: Asked) -> Row:
    """Return the row of what SQL found: the bucket, the groups, people, and the sides."""
    at, rest = values[0], values[1:]
    width = len(asked.group_by)
    row: Row = {"_at": at, **dict(zip(asked.group_by, rest[:width], strict=True))}
    row["_people"] = rest[width]
    row["numerator"] = rest[width + 1]
    if asked.metric.denominator is not None or asked.metric.kind in ("ratio", "mean"):
        row["denominator"] = rest[width + 2] if len(rest) > width + 2 else None
    return row


def value(row: Row, asked: Asked) -> None:
    """Turn the two sides into what is shown."""
    if asked.metric.kind == "percentile":
        return
    over = row.pop("numerator")
    if "denominator" not in row:
        row["value"] = _whole(over)
        row["_counts"] = bool(over)
        return
    under = row.pop("denominator")
    row["value"] = over / under if under else None
    row["numerator"], row["denominator"] = _whole(over), _whole(under)
    row["_counts"] = bool(over) if _only_part(asked) else bool(over or under)


def _only_part(asked: Asked) -> bool:
    """Whether rows without a numerator are other things altogether: types that are no errors."""
    term = asked.metric.denominator
    return term is not None and any(name in term.apart for name in asked.group_by)


def percentiles(found: Iterable[Sequence[Any]], asked: Asked) -> list[Row]:
    """Return a row for each group: its bins are rows of SQL."""
    width = len(asked.group_by) + 1
    groups: dict[tuple[Any, ...], tuple[dict[int, float], list[float], list[int]]] = {}
    for values in found:
        key = tuple(values[:width])
        people, total, count, number = values[width:]
        bins, sums, most = groups.setdefault(key, ({}, [0.0], [0]))
        bins[number] = bins.get(number, 0) + count
        sums[0] += total
        most[0] = max(most[0], people)  # at least so many: a group is rather left out
    rows = []
    for key, (bins, sums, most) in groups.items():
        p50, p75, p95, p99 = quantiles(bins, RANKS)
        count = sum(bins.values())
        rows.append(
            {
                "_at": key[0],
                **dict(zip(asked.group_by, key[1:], strict=True)),
                "_people": most[0],
                "value": p50,
                "count": _whole(count),
                "mean": sums[0] / count if count else None,
                "p50": p50,
                "p75": p75,
                "p95": p95,
                "p99": p99,
            }
        )
    return rows


def key_of(row: Row, asked: Asked, apart: Iterable[str]) -> tuple[Any, ...]:
    """Return the bucket and those groups by which the other side is grouped too."""
    return (row["_at"], *(row[name] for name in asked.group_by if name not in apart))


def beside(
    rows: list[Row], earlier: list[Row], asked: Asked, before: Asked, calendar: Calendar
) -> None:
    """Put each value of the period before beside its match: the same place in the period."""
    known = {
        (calendar.place(row["_at"], before), *(row[name] for name in asked.group_by)): row["value"]
        for row in earlier
    }
    for row in rows:
        key = (calendar.place(row["_at"], asked), *(row[name] for name in asked.group_by))
        row["previous"] = known.get(key)


def _whole(number: Any) -> Any:
    return int(number) if isinstance(number, float) and number.is_integer() else number
