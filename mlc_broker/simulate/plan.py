"""What to simulate, against whom, and within which limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from mlc_broker.model.principal import Role

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
# (user id, role) → a bearer token, or an ingest key that speaks for anybody of the organization.
TokenFor: TypeAlias = Callable[[str, Role], str]

STUDENTS_MAX = 5_000
CLASSES_MAX = 500
MINUTES_MAX = 24 * 60.0


class Plan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A lesson: who plays, how long, how fast, and how much goes wrong. Shares are 0 to 1."""

    organization_id: str = "org_demo"
    students: Annotated[int, Meta(ge=1, le=STUDENTS_MAX)] = 30
    classes: Annotated[int, Meta(ge=1, le=CLASSES_MAX)] = 2
    lesson_minutes: Annotated[float, Meta(gt=0, le=MINUTES_MAX)] = 30.0
    speed: Annotated[float, Meta(ge=0)] = 60.0  # simulated seconds a second; 0: as fast as it goes
    seed: int = 0
    run: str = "run"  # 1 to 24 characters of an event id: no two runs may share it
    batch_events_max: Annotated[int, Meta(ge=1, le=1000)] = 100
    batch_seconds_max: float = 30.0  # of simulated time
    messagepack_share: Share = 0.2
    http_share: Share = 0.1
    offline_share: Share = 0.1  # of students: they bring old events, and lose their network
    wrong_clock_share: Share = 0.1
    bad_share: Share = 0.01  # of events: each kind of bad event in turn
    resend_share: Share = 0.03  # of batches: the connection is cut before the ack is read
    ledger_events_max: int = 1_000_000  # events of a run that are compared one by one
    answer_seconds_max: float = 30.0
    connect_seconds_max: float = 10.0
    reconnect_seconds_max: float = 20.0  # trying to reach a daemon that is away
    tries_max: int = 8  # sendings of one batch


class Access(Struct, frozen=True, kw_only=True):
    """Where the daemon is, and how to speak to it."""

    ws_url: str
    http_url: str
    token_for: TokenFor
    as_users: bool = True  # tokens of persons; False: one ingest key for all
    may_read: bool = True  # `token_for` can make a subscriber admin's token
