"""What a `put` or a `delete` means for the roster: checks, and the changes that follow. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, assert_never
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import structs

from mlc_broker.model.errors import Forbidden, Malformed, NotFound
from mlc_broker.model.person import (
    KINDS,
    RECORD_TYPES,
    Class,
    Enrollment,
    Kind,
    Organization,
    Record,
    User,
    reduced,
)
from mlc_broker.model.principal import Role
from mlc_broker.store.roster_memory import Change, Memory

YEARS = range(1900, 2200)  # what a school year can be; a begin before it or an end after it is open


def change_for(
    memory: Memory,
    kind: str,
    key: str,
    record: Mapping[str, Any] | Record,
    *,
    within: str | None,
    today: date,
    enrollments_per_user_max: int,
) -> Change:
    """Check a record and return the change that putting it is.

    `within` is the one organization that the caller may write; None: all. Raises `NotFound` for a
    kind that there is not, `Malformed`, and `Forbidden` for what is not the caller's to write.
    """
    known = checked_kind(kind)
    checked_id(key)
    put = parsed(known, record, within)
    match put:
        case Organization():
            _check_zone(put)
            _check_within(key, within)
            return Change(kind=known, organization_id=key, id=key, record=put)
        case User():
            org = put.organization_id
            _check_within(org, within)
            if within is not None and put.role is Role.SYSTEM_ADMIN:
                raise Forbidden("Only a System Admin makes a system_admin; choose another role.")
            old = _left(memory, key, org) if within is None else None
            return Change(
                kind=known, organization_id=org, id=key, record=reduced(put, today), moved_from=old
            )
        case Class():
            _check_within(put.organization_id, within)
            return Change(kind=known, organization_id=put.organization_id, id=key, record=put)
        case Enrollment():
            org = within if within is not None else _organization_of(memory, put)
            _check_days(put)
            mine = memory.enrollments_of(org, put.user_id)
            if len(mine) >= enrollments_per_user_max and key not in mine:
                raise Malformed(
                    f"{put.user_id} has {enrollments_per_user_max} enrolments already, which is"
                    " the most; delete some that are over."
                )
            return Change(kind=known, organization_id=org, id=key, record=put)
        case _:
            assert_never(put)


def checked_kind(kind: str) -> Kind:
    """Return the kind; `NotFound` where there is none of that name."""
    for known in KINDS:
        if kind == known:
            return known
    raise NotFound(f"The roster has no {kind!r}; it has {', '.join(KINDS)}.")


def checked_id(key: str) -> str:
    """Return the id; `Malformed` where it is not 1 to 128 printable characters."""
    if not 0 < len(key) <= 128 or not key.isprintable() or key != key.strip():
        raise Malformed("An id is 1 to 128 printable characters, with no space at its ends.")
    return key


def parsed(kind: Kind, record: Mapping[str, Any] | Record, within: str | None = None) -> Record:
    """Return the record of that kind; `Malformed` names the field and what was expected."""
    if isinstance(record, Organization | User | Class | Enrollment):
        return record
    values: Any = record
    if isinstance(record, Mapping):
        values = {name: value for name, value in record.items() if value is not None}
        if within is not None and kind in {"users", "classes"}:
            values.setdefault("organization_id", within)
    try:
        return msgspec.convert(values, RECORD_TYPES[kind])
    except (msgspec.ValidationError, UnicodeError) as error:
        raise Malformed(f"This is not a record of {kind}: {error}.") from error


def _left(memory: Memory, key: str, org: str) -> str | None:
    """The organization that a person leaves by being put into `org`.

    None where the person was there already, or where several others use the id for people of
    their own: then it is not known who moved.
    """
    before = memory.organizations_of("users", key)
    return before[0] if len(before) == 1 and before[0] != org else None


def _organization_of(memory: Memory, enrollment: Enrollment) -> str:
    classes = memory.organizations_of("classes", enrollment.class_id)
    if len(classes) > 1:
        users = memory.organizations_of("users", enrollment.user_id)
        classes = [org for org in classes if org in users]
    if len(classes) == 1:
        return classes[0]
    if classes:
        raise Malformed(
            f"Class {enrollment.class_id!r} is in several organizations; put the enrolment with a"
            " credential of the right one."
        )
    raise Malformed(f"Class {enrollment.class_id!r} is not in the roster; put the class first.")


def _check_within(org: str, within: str | None) -> None:
    checked_id(org)
    if within is not None and org != within:
        raise Forbidden(f"This credential writes the roster of {within!r} alone.")


def _check_zone(organization: Organization) -> None:
    try:
        ZoneInfo(organization.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Malformed(
            f"time_zone: {organization.time_zone!r} is no IANA name; write one like Europe/Berlin."
        ) from error


def _check_days(enrollment: Enrollment) -> None:
    begin, end = enrollment.begin, enrollment.end
    if begin is not None and begin.year >= YEARS.stop:
        raise Malformed(f"begin: {begin} is too far away; leave it out for no beginning.")
    if end is not None and end.year < YEARS.start:
        raise Malformed(f"end: {end} is too long ago; leave it out for no end.")
    if begin is not None and end is not None and end < begin:
        raise Malformed(f"The enrolment ends on {end}, before it begins on {begin}.")


def without_person(memory: Memory, org: str, user_id: str) -> list[Change]:
    """Return the changes that take a person's id out of everybody else's records."""
    changes: list[Change] = []
    for key, each in memory.classes.get(org, {}).copy().items():
        if user_id in each.teacher_ids:
            left = tuple(other for other in each.teacher_ids if other != user_id)
            record: Record = structs.replace(each, teacher_ids=left)
            changes.append(Change(kind="classes", organization_id=org, id=key, record=record))
    for key, user in memory.users.get(org, {}).copy().items():
        if user_id in user.manages and key != user_id:
            left = tuple(other for other in user.manages if other != user_id)
            record = structs.replace(user, manages=left)
            changes.append(Change(kind="users", organization_id=org, id=key, record=record))
    return changes
