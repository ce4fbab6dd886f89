"""The roster in memory: what the pipeline asks for every event, and no call waits for a disk.

A change of one record is made in place, step by step, each step whole under the GIL. A change of
many is made in a copy, and the copy takes its place in one assignment.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import TypeAlias, assert_never
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from mlc_broker.model.person import Class, Enrollment, Kind, Organization, Record, User
from mlc_broker.model.principal import Role

Person: TypeAlias = tuple[str, str]  # organization, user
Membership: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]  # class ids, teacher ids
Intervals: TypeAlias = tuple[int, tuple[datetime, ...], tuple[Membership, ...]]

NOBODY: Membership = ((), ())


class Change(Struct, frozen=True, kw_only=True):
    """One record put, or deleted (`record` is None) with all that hangs on it."""

    kind: Kind
    organization_id: str
    id: str
    record: Record | None
    moved_from: str | None = None  # the organization that a person left
    from_feed: bool = False  # a OneRoster file said so


class Memory:
    """People and places, with the indexes that make the pipeline's questions cheap."""

    def __init__(self, *, people_cached_max: int = 200_000) -> None:
        self.organizations: dict[str, Organization] = {}
        self.users: dict[str, dict[str, User]] = {}
        self.classes: dict[str, dict[str, Class]] = {}
        self.enrollments: dict[str, dict[str, Enrollment]] = {}
        self._enrollments_of: dict[Person, tuple[str, ...]] = {}
        self._taught: dict[Person, frozenset[str]] = {}
        self._cache: dict[Person, Intervals] = {}
        self._people_cached_max = people_cached_max
        self._generation = 0

    def membership(self, organization_id: str, user_id: str, at: datetime) -> Membership:
        """Return the person's classes at that time and who teach them; both sorted."""
        person = (organization_id, user_id)
        found = self._cache.get(person)
        if found is None or found[0] != self._generation:
            found = self._remember(person)
        return found[2][bisect_right(found[1], at)] if found[1] else found[2][0]

    def classes_taught_by(self, organization_id: str, teacher_ids: Iterable[str]) -> frozenset[str]:
        """Return the classes that any of these people teach."""
        none: frozenset[str] = frozenset()
        return none.union(*(self._taught.get((organization_id, key), none) for key in teacher_ids))

    def teachers_managed_by(self, organization_id: str, user_id: str) -> frozenset[str]:
        """Return a teacher-admin's teachers, `*` spelled out; nobody for anyone else."""
        user = self.users.get(organization_id, {}).get(user_id)
        if user is None or user.role is not Role.TEACHER_ADMIN or not user.active:
            return frozenset()
        return self._teachers(organization_id) if "*" in user.manages else frozenset(user.manages)

    def enrollments_of(self, organization_id: str, user_id: str) -> tuple[str, ...]:
        """Return the ids of a person's enrolments, past ones included."""
        return self._enrollments_of.get((organization_id, user_id), ())

    def organizations_of(self, kind: Kind, key: str) -> list[str]:
        """Return the organizations that have a record of this kind and id."""
        match kind:
            case "organizations":
                return [key] if key in self.organizations else []
            case "users":
                return [org for org, users in self.users.copy().items() if key in users]
            case "classes":
                return [org for org, classes in self.classes.copy().items() if key in classes]
            case "enrollments":
                return [org for org, rows in self.enrollments.copy().items() if key in rows]
            case _:
                assert_never(kind)

    def copy(self) -> Memory:
        """Return a copy to change, which shares the records and nothing else."""
        other = Memory(people_cached_max=self._people_cached_max)
        other.organizations = self.organizations.copy()
        other.users = {org: users.copy() for org, users in self.users.items()}
        other.classes = {org: classes.copy() for org, classes in self.classes.items()}
        other.enrollments = {org: rows.copy() for org, rows in self.enrollments.items()}
        other._enrollments_of = self._enrollments_of.copy()
        other._taught = self._taught.copy()
        return other

    def apply(self, change: Change) -> None:
        """Make one change; the next question sees it."""
        org, key, record = change.organization_id, change.id, change.record
        match record:
            case None:
                self._delete(change.kind, org, key)
            case Organization():
                self.organizations[key] = record
            case User():
                self.users.setdefault(org, {})[key] = record
                if change.moved_from is not None:
                    self._delete("users", change.moved_from, key)
            case Class():
                self._put_class(org, key, record)
            case Enrollment():
                self._put_enrollment(org, key, record)
            case _:
                assert_never(record)
        # Last: what a reader cached from half of a change is thrown away with it.
        self._generation += 1

    def _put_class(self, org: str, key: str, record: Class) -> None:
        before = self.classes.get(org, {}).get(key)
        self.classes.setdefault(org, {})[key] = record
        was = set(before.teacher_ids) if before is not None else set()
        now = set(record.teacher_ids)
        for teacher in now - was:
            self._teach(org, teacher, self._taught.get((org, teacher), frozenset()) | {key})
        for teacher in was - now:
            self._teach(org, teacher, self._taught[org, teacher] - {key})

    def _teach(self, org: str, teacher: str, class_ids: frozenset[str]) -> None:
        if class_ids:
            self._taught[org, teacher] = class_ids
        else:
            self._taught.pop((org, teacher), None)

    def _put_enrollment(self, org: str, key: str, record: Enrollment) -> None:
        before = self.enrollments.get(org, {}).get(key)
        self.enrollments.setdefault(org, {})[key] = record
        if before is not None and before.user_id == record.user_id:
            return
        if before is not None:
            self._forget_enrollment(org, before.user_id, key)
        ids = self._enrollments_of.get((org, record.user_id), ())
        self._enrollments_of[org, record.user_id] = (*ids, key)

    def _forget_enrollment(self, org: str, user_id: str, key: str) -> None:
        left = tuple(other for other in self._enrollments_of[org, user_id] if other != key)
        if left:
            self._enrollments_of[org, user_id] = left
        else:
            del self._enrollments_of[org, user_id]

    def _delete(self, kind: Kind, org: str, key: str) -> None:
        match kind:
            case "enrollments":
                gone = self.enrollments.get(org, {}).pop(key, None)
                if gone is not None:
                    self._forget_enrollment(org, gone.user_id, key)
            case "users":
                self.users.get(org, {}).pop(key, None)
                for enrollment in self.enrollments_of(org, key):
                    self._delete("enrollments", org, enrollment)
            case "classes":
                self._delete_class(org, key)
            case "organizations":
                for enrollment in tuple(self.enrollments.get(org, ())):
                    self._delete("enrollments", org, enrollment)
                for each in tuple(self.classes.get(org, ())):
                    self._delete("classes", org, each)
                self.users.pop(org, None)
                self.organizations.pop(key, None)
            case _:
                assert_never(kind)

    def _delete_class(self, org: str, key: str) -> None:
        if key in self.classes.get(org, {}):
            self._put_class(org, key, Class(organization_id=org))  # nobody teaches it any more
            del self.classes[org][key]
        rows = self.enrollments.get(org, {})
        for enrollment in [each for each, row in rows.items() if row.class_id == key]:
            self._delete("enrollments", org, enrollment)

    def _teachers(self, organization_id: str) -> frozenset[str]:
        users = self.users.get(organization_id, {}).copy()
        by_role = {key for key, user in users.items() if user.role is Role.TEACHER}
        classes = self.classes.get(organization_id, {}).copy().values()
        named = {key for each in classes for key in each.teacher_ids if key not in users}
        return frozenset(by_role | named)

    def _remember(self, person: Person) -> Intervals:
        generation = self._generation  # before reading: what is read meanwhile is older than it
        if len(self._cache) >= self._people_cached_max:
            self._cache.clear()
        found = (generation, *self._intervals(*person))
        self._cache[person] = found
        return found

    def _intervals(
        self, org: str, user_id: str
    ) -> tuple[tuple[datetime, ...], tuple[Membership, ...]]:
        """Cut time where a membership begins or ends; each piece has one answer."""
        rows, classes = self.enrollments.get(org, {}), self.classes.get(org, {})
        mine = [rows.get(key) for key in self.enrollments_of(org, user_id)]
        zone = time_zone(self.organizations.get(org))
        spans = [
            (midnight(row.begin, zone), midnight(_day_after(row.end), zone), row.class_id)
            for row in mine
            if row is not None and row.class_id in classes
        ]
        if not spans:
            return (), (NOBODY,)
        cuts = sorted({cut for begin, end, _ in spans for cut in (begin, end) if cut is not None})
        pieces = []
        for since in (None, *cuts):
            ids = {key for begin, end, key in spans if _covers(begin, end, since)}
            held = [classes.get(key) for key in ids]
            teachers = {key for each in held if each is not None for key in each.teacher_ids}
            pieces.append((tuple(sorted(ids)), tuple(sorted(teachers))))
        return tuple(cuts), tuple(pieces)


def time_zone(organization: Organization | None) -> ZoneInfo:
    """Return the organization's time zone; UTC where none is known."""
    try:
        return ZoneInfo(organization.time_zone if organization is not None else "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def midnight(day: date | None, zone: ZoneInfo) -> datetime | None:
    """Return when that day begins there, in UTC; None for no day, or one at the end of time."""
    if day is None or not 1 < day.year < date.max.year:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def _day_after(day: date | None) -> date | None:
    return None if day is None or day == date.max else day + timedelta(days=1)


def _covers(begin: datetime | None, end: datetime | None, since: datetime | None) -> bool:
    """Whether a span covers the piece of time that begins at `since` (None: the beginning)."""
    if since is None:
        return begin is None
    return (begin is None or begin <= since) and (end is None or since < end)
