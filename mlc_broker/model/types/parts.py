"""The two parts that every event may carry beside its properties: the device and the context."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from mlc_broker.model.types.base import Ident, Label, PlayContext, Url, Word

UserAgent = Annotated[str, Meta(max_length=1024)]
Experiments = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=64)], Word], Meta(max_length=32)
]


class Device(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the event was made on. Unknown keys are kept."""

    user_agent: UserAgent | None = None
    platform: Literal["desktop", "mobile", "tablet"] | None = None
    browser: Word | None = None
    version: Word | None = None
    screen_resolution: Word | None = None
    timezone: Word | None = None
    os: Word | None = None
    language: Word | None = None


class Context(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Where in the platform it happened, and for whom. Unknown keys are kept."""

    page_url: Url | None = None
    referrer: Url | None = None
    assignment_id: Ident | None = None
    sequence_id: Ident | None = None
    class_id: Ident | None = None
    teacher_id: Ident | None = None
    experiments: Experiments | None = None  # experiment: variant
    step_id: Ident | None = None
    group_id: Ident | None = None
    play_context: PlayContext | None = None
    run_id: Ident | None = None
    impersonation_id: Ident | None = None  # a support session: not the person's own doing
    actor_id: Ident | None = None  # who acted, where that is not `user_id`
    correlation_id: Label | None = None
