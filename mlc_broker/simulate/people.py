"""The made-up school: its classes, teachers and students, as the roster takes them."""

from __future__ import annotations

from random import Random
from typing import Any

from msgspec import Struct

from mlc_broker.model.principal import Role
from mlc_broker.simulate.plan import Plan

ADMIN_ID = "usr_admin"
TEACHER_ADMIN_ID = "usr_teacher_admin"
SYSTEM_ADMIN_ID = "usr_sysadmin"


class Person(Struct, frozen=True, kw_only=True):
    """Somebody who sends events, and how."""

    user_id: str
    role: Role
    class_id: str
    teacher_id: str
    skill: float = 0.7  # how near to a target a first try comes
    wire: str = "websocket"  # or http
    encoding: str = "json"  # or messagepack
    clock_off_seconds: float = 0.0
    offline: bool = False  # brings old events along


def make_people(plan: Plan, random: Random) -> list[Person]:
    """Return a teacher a class, and the students, spread evenly over the classes."""
    teachers = [
        Person(
            user_id=f"usr_teacher_{number + 1}",
            role=Role.TEACHER,
            class_id=f"cls_{number + 1}",
            teacher_id=f"usr_teacher_{number + 1}",
        )
        for number in range(plan.classes)
    ]
    students = [_student(plan, random, number) for number in range(plan.students)]
    return teachers + students


def roster_of(plan: Plan, people: list[Person]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the roster's records, `{kind: {id: record}}`, in the order in which they can be put."""
    org = plan.organization_id
    users: dict[str, dict[str, Any]] = {
        ADMIN_ID: {"organization_id": org, "role": "subscriber_admin", "age_band": "16_plus"},
        TEACHER_ADMIN_ID: {
            "organization_id": org,
            "role": "teacher_admin",
            "age_band": "16_plus",
            "manages": ["*"],
        },
    }
    classes: dict[str, dict[str, Any]] = {}
    enrollments: dict[str, dict[str, Any]] = {}
    for person in people:
        student = person.role is Role.STUDENT
        users[person.user_id] = {
            "organization_id": org,
            "role": str(person.role),
            "age_band": "under_13" if student else "16_plus",
            "parental_consent": "certified_by_school" if student else "not_required",
        }
        if student:
            enrollments[f"enr_{person.user_id}"] = {
                "class_id": person.class_id,
                "user_id": person.user_id,
            }
        else:
            classes[person.class_id] = {
                "organization_id": org,
                "name": f"Class {person.class_id.removeprefix('cls_')}",
                "teacher_ids": [person.user_id],
            }
    school = {"name": "Demo School", "subscription": "ensemble", "seats": plan.students}
    return {
        "organizations": {org: school},
        "users": users,
        "classes": classes,
        "enrollments": enrollments,
    }


def _student(plan: Plan, random: Random, number: int) -> Person:
    at = number % plan.classes + 1
    off = 0.0
    if random.random() < plan.wrong_clock_share:
        off = random.choice((-3 * 86_400.0, -7_200.0, -90.0, 90.0, 7_200.0, 40 * 86_400.0))
    return Person(
        user_id=f"usr_student_{number + 1}",
        role=Role.STUDENT,
        class_id=f"cls_{at}",
        teacher_id=f"usr_teacher_{at}",
        skill=random.uniform(0.55, 0.95),
        wire="http" if random.random() < plan.http_share else "websocket",
        encoding="messagepack" if random.random() < plan.messagepack_share else "json",
        clock_off_seconds=off,
        offline=random.random() < plan.offline_share,
    )
