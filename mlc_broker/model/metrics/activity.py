"""Who was there, how long, and how often."""

from __future__ import annotations

from mlc_broker.model.metric import FROM_DAY, PERSON, Condition, Metric, Term

_WHAT = ("event_type", "category")

ACTIVITY = (
    Metric(
        name="events",
        title="Events",
        unit="count",
        kind="count",
        of="events",
        formula="events stored, each weighed by 1 / sample_rate",
        numerator=Term("count"),
        dimensions=(*PERSON, *_WHAT),
    ),
    Metric(
        name="active_users",
        title="Active users",
        unit="people",
        kind="distinct",
        of="events",
        formula="distinct users with an event (day: DAU, week: WAU, month: MAU)",
        numerator=Term("distinct", "user_id"),
        dimensions=(*PERSON, *_WHAT),
        counts="people",
    ),
    Metric(
        name="sessions",
        title="Sessions",
        unit="count",
        kind="distinct",
        of="sessions",
        formula="distinct sessions with an event in the period",
        numerator=Term("distinct", "session_id"),
        periods=FROM_DAY,
    ),
    Metric(
        name="session_length",
        title="Session length",
        unit="ms",
        kind="mean",
        of="sessions",
        formula="mean over sessions of last minus first event within the period",
        numerator=Term("sum", "length_ms"),
        denominator=Term("count"),
        periods=FROM_DAY,
    ),
    Metric(
        name="engagement",
        title="Engagement",
        unit="ratio",
        kind="ratio",
        of="events",
        formula="active days / days in the period; a group sums both over its active students. "
        "Days that have not come yet do not count",
        numerator=Term("distinct", "user_day"),
        denominator=Term("people_days"),
        periods=FROM_DAY,
        counts="students",
    ),
    Metric(
        name="streak_days",
        title="Streak",
        unit="days",
        kind="mean",
        of="rules",
        rule="streak_days",
        formula="consecutive active days up to today in the organization's time zone; a day missed "
        "by less than 6 hours breaks nothing; a group shows the mean over its students",
        dimensions=("organization_id", "class_id", "teacher_id", "user_id"),
        periods=("total",),
        counts="students",
    ),
    Metric(
        name="seat_utilization",
        title="Seats in use",
        unit="ratio",
        kind="ratio",
        of="events",
        formula="distinct users with an event / seats of the roster",
        numerator=Term("distinct", "user_id"),
        denominator=Term("seats"),
        dimensions=("organization_id",),
        periods=FROM_DAY,
        counts="people",
    ),
    Metric(
        name="error_rate",
        title="Error rate",
        unit="ratio",
        kind="ratio",
        of="events",
        formula="error events / all events, each weighed by 1 / sample_rate; by type: errors of the "
        "type / all events",
        numerator=Term("count", where=(Condition("error", "is", True),)),
        denominator=Term("count", apart=_WHAT),
        dimensions=(*PERSON, *_WHAT),
    ),
)
