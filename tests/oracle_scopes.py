"""Who may read what, once more: written from the table of the protocol, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

LEARNING, INTERACTION = "learning_progress", "user_interaction"


class School:
    """Two organizations whose people and classes bear the same names on purpose."""

    teaches: ClassVar[Mapping[str, Mapping[str, set[str]]]] = {
        "north": {"tess": {"c1", "c3"}, "tom": {"c2"}, "tina": set()},
        "south": {"tess": {"c2"}, "tom": {"c1"}},
    }
    manages: ClassVar[Mapping[str, Mapping[str, set[str]]]] = {
        "north": {"thea": {"tess", "tina"}},
        "south": {"thea": {"tom"}},
    }

    def classes_taught_by(
        self, organization_id: str, teacher_ids: frozenset[str]
    ) -> frozenset[str]:
        taught = self.teaches.get(organization_id, {})
        return frozenset(c for teacher in teacher_ids for c in taught.get(teacher, ()))

    def teachers_managed_by(self, organization_id: str, user_id: str) -> frozenset[str]:
        return frozenset(self.manages.get(organization_id, {}).get(user_id, ()))


def may_see(
    school: School,
    role: str | None,
    me: str,
    mine: str,
    event: Mapping[str, Any],
    category: str | None,
    named: str | None = None,
) -> bool:
    """Whether `me` of organization `mine` may see an event; `named`: what a System Admin names."""
    if role is None:
        return False
    if role == "system_admin":
        return named is None or event.get("organization_id") == named
    if event.get("organization_id") != mine:
        return False
    if role == "subscriber_admin":
        return True
    user = event.get("user_id")
    teacher = (event.get("context") or {}).get("teacher_id")
    was_student = event["meta"].get("role") == "student"
    classes = set(event["meta"].get("class_ids", ()))
    if role == "student":
        return user == me and category in (LEARNING, INTERACTION)
    if role == "teacher":
        in_my_class = was_student and classes & school.teaches[mine].get(me, set())
        return me in (user, teacher) or bool(in_my_class and category == LEARNING)
    assert role == "teacher_admin"
    managed = school.manages[mine].get(me, set())
    for one in managed:
        if one in (user, teacher):
            return True
        if was_student and classes & school.teaches[mine].get(one, set()):
            return True
    return user == me
