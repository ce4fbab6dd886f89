"""What a reader asks for: the filters of `GET /v1/events`, of exports, streams and drill-downs."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct


class Filter(Struct, frozen=True, kw_only=True):
    """Rows asked for. None: no limit on that axis; within an axis any value fits, axes are ANDed."""

    begin: datetime | None = None  # inclusive, on `timestamp`
    end: datetime | None = None  # exclusive
    event_type: frozenset[str] | None = None
    category: frozenset[str] | None = None
    user_id: frozenset[str] | None = None
    class_id: frozenset[str] | None = None  # the user's classes at the time, or `context.class_id`
    teacher_id: frozenset[str] | None = None  # `context.teacher_id`
    assignment_id: frozenset[str] | None = None
    sequence_id: frozenset[str] | None = None
    game_id: frozenset[str] | None = None
    session_id: frozenset[str] | None = None
    organization_id: frozenset[str] | None = None


AXES = Filter.__struct_fields__[2:]  # those that take a set of values
