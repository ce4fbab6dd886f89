"""The events as a FastAPI service would declare them: pydantic v2, one class a type."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Id = Annotated[str, Field(min_length=1, max_length=64)]
Word = Annotated[str, Field(max_length=64)]
Score = Annotated[int, Field(ge=0, le=1_000_000)]
Duration = Annotated[int, Field(ge=0, le=86_400_000)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Percent = Annotated[float, Field(ge=0, le=100)]
StageType = Literal["learn", "play", "quiz", "challenge", "review"]


class Open(BaseModel):
    """Unknown keys are kept."""

    model_config = ConfigDict(extra="allow")


class Device(Open):
    user_agent: Annotated[str, Field(max_length=512)] | None = None
    platform: Literal["desktop", "mobile", "tablet"] | None = None
    browser: Word | None = None
    version: Word | None = None
    screen_resolution: Word | None = None
    timezone: Word | None = None


class Context(Open):
    page_url: Annotated[str, Field(max_length=2048)] | None = None
    referrer: Annotated[str, Field(max_length=2048)] | None = None
    assignment_id: Id | None = None
    sequence_id: Id | None = None
    class_id: Id | None = None
    teacher_id: Id | None = None


class Play(Open):
    game_id: Id | None = None
    stage_id: Id | None = None
    stage_type: StageType | None = None
    score: Score | None = None
    max_score: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    target_score: Score | None = None
    duration_ms: Duration | None = None
    passed: bool | None = None
    attempt_number: Count | None = None


class Assignment(Open):
    assignment_id: Id | None = None
    status: Word | None = None
    step_count: Count | None = None
    completion_percentage: Percent | None = None


class PageView(Open):
    page_url: Annotated[str, Field(max_length=2048)] | None = None
    title: Annotated[str, Field(max_length=256)] | None = None


class Envelope(BaseModel):
    model_config = ConfigDict(extra="forbid")

    event_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
    timestamp: datetime
    user_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    session_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    organization_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    device_info: Device | None = None
    context: Context | None = None
    privacy_level: Literal["standard", "sensitive", "pii"] | None = None
    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = None


class Played(Envelope):
    event_type: Literal["game_stage_start", "game_stage_complete", "game_stage_quit", "target_met"]
    properties: Play


class Assigned(Envelope):
    event_type: Literal["assignment_open", "assignment_started", "assignment_completed"]
    properties: Assignment


class Viewed(Envelope):
    event_type: Literal["page_view"]
    properties: PageView


AnyEvent = Annotated[Played | Assigned | Viewed, Field(discriminator="event_type")]
ONE: TypeAdapter[Any] = TypeAdapter(AnyEvent)
MANY: TypeAdapter[Any] = TypeAdapter(Annotated[list[AnyEvent], Field(max_length=1000)])


class Publish(BaseModel):
    op: Literal["publish"]
    id: str | int
    events: Annotated[list[AnyEvent], Field(max_length=1000)]


COLUMNS = (
    "organization_id, event_id, event_type, ts, received_at, user_id, session_id, class_id, "
    "teacher_id, body"
)


def row(event: Any, organization_id: str, received_at: datetime) -> tuple[Any, ...]:
    """An event as a row of COLUMNS; ValueError where it is not the credential's."""
    if event.organization_id not in (None, organization_id):
        raise ValueError("organization_id is not the credential's")
    context = event.context
    return (
        organization_id,
        event.event_id,
        event.event_type,
        event.timestamp,
        received_at,
        event.user_id,
        event.session_id,
        context.class_id if context else None,
        context.teacher_id if context else None,
        event.model_dump_json(include=_BODY, exclude_none=True),
    )


_BODY = {"device_info", "context", "properties", "privacy_level", "retention_days"}
