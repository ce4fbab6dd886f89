"""Who asks, as what, and which rows they may see: the permission matrix of the protocol."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol, assert_never

from msgspec import Struct

LEARNING = "learning_progress"
INTERACTION = "user_interaction"
PERFORMANCE = "system_performance"
BUSINESS = "business_intelligence"
CATEGORIES = (INTERACTION, LEARNING, PERFORMANCE, BUSINESS)


class Role(StrEnum):
    """What a person is in an organization."""

    SYSTEM_ADMIN = "system_admin"
    SUBSCRIBER_ADMIN = "subscriber_admin"
    TEACHER_ADMIN = "teacher_admin"
    TEACHER = "teacher"
    STUDENT = "student"


class Principal(Struct, frozen=True, kw_only=True):
    """Who a credential speaks for."""

    kind: Literal["user", "ingest", "anonymous"]
    id: str  # the user's id, or the key's
    organization_id: str | None = None
    role: Role | None = None  # of a user; keys have none and read nothing
    categories: frozenset[str] | None = None  # what an anonymous key may publish
    may_write_roster: bool = False
    expires_at: datetime | None = None


class Grant(Struct, frozen=True, kw_only=True):
    """One clause of a scope: all of its axes must hold. None: no limit; empty: nobody."""

    user_ids: frozenset[str] | None = None
    class_ids: frozenset[str] | None = None  # the user's class when the event happened
    teacher_ids: frozenset[str] | None = None  # `context.teacher_id`
    categories: frozenset[str] | None = None
    roles: frozenset[str] | None = None  # the user's role when the event happened


class Scope(Struct, frozen=True, kw_only=True):
    """The rows a principal may see: those of the organization for which any grant holds."""

    organization_id: str | None  # None: every organization
    grants: tuple[Grant, ...]
    pseudonymous: bool = False  # user ids are hashed: across organizations


EVERYTHING = Scope(organization_id=None, grants=(Grant(),))
NOTHING = Scope(organization_id="", grants=())


class Hierarchy(Protocol):
    """What the roster knows about who teaches and manages whom."""

    def classes_taught_by(
        self, organization_id: str, teacher_ids: frozenset[str]
    ) -> frozenset[str]:
        """Return the ids of the classes that any of these people teach now."""

    def teachers_managed_by(self, organization_id: str, user_id: str) -> frozenset[str]:
        """Return the teachers in a teacher-admin's scope; `["*"]` is already spelled out."""


def scope_for(
    principal: Principal, hierarchy: Hierarchy, *, organization_id: str | None = None
) -> Scope:
    """Return what `principal` may read; `organization_id` is the one a System Admin names."""
    role, org = principal.role, principal.organization_id
    if principal.kind != "user" or role is None or org is None:
        return NOTHING
    me = frozenset({principal.id})
    match role:
        case Role.SYSTEM_ADMIN:
            return Scope(
                organization_id=organization_id,
                grants=(Grant(),),
                pseudonymous=organization_id is None,
            )
        case Role.SUBSCRIBER_ADMIN:
            return Scope(organization_id=org, grants=(Grant(),))
        case Role.TEACHER_ADMIN:
            teachers = hierarchy.teachers_managed_by(org, principal.id)
            classes = hierarchy.classes_taught_by(org, teachers)
            return Scope(
                organization_id=org,
                grants=(
                    Grant(user_ids=teachers | me),
                    Grant(class_ids=classes, roles=frozenset({Role.STUDENT})),
                    Grant(teacher_ids=teachers),
                ),
            )
        case Role.TEACHER:
            classes = hierarchy.classes_taught_by(org, me)
            learning = frozenset({LEARNING})
            return Scope(
                organization_id=org,
                grants=(
                    Grant(user_ids=me),
                    Grant(class_ids=classes, categories=learning, roles=frozenset({Role.STUDENT})),
                    Grant(teacher_ids=me),
                ),
            )
        case Role.STUDENT:
            own = Grant(user_ids=me, categories=frozenset({LEARNING, INTERACTION}))
            return Scope(organization_id=org, grants=(own,))
        case _:
            assert_never(role)
