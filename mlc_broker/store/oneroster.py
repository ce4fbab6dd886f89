"""OneRoster 1.1 and 1.2, as schools export it, into the roster.

Kept of a person: id, role, whether active, and when they turn 13 and 16. Names, addresses,
passwords, and all of demographics but the birth date are never looked at.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import TypeAlias

from msgspec import structs

from mlc_broker.model.errors import BrokerError, Malformed
from mlc_broker.model.person import Class, Enrollment, Kind, Organization, Record, User
from mlc_broker.model.principal import Role
from mlc_broker.store.import_report import Findings, ImportReport, Progress
from mlc_broker.store.oneroster_zip import Mode, RosterZip, Row, ZipLimits
from mlc_broker.store.roster import Roster
from mlc_broker.store.roster_memory import Change
from mlc_broker.store.roster_rules import checked_id

Span: TypeAlias = tuple[date | None, date | None]

# Who is not named here (guardians, parents, counselors …) is not kept.
ROLES: Mapping[str, Role] = {
    "student": Role.STUDENT,
    "teacher": Role.TEACHER,
    "aide": Role.TEACHER,
    "administrator": Role.TEACHER_ADMIN,
    "principal": Role.TEACHER_ADMIN,
    "siteadministrator": Role.TEACHER_ADMIN,
    "districtadministrator": Role.SUBSCRIBER_ADMIN,
    "systemadministrator": Role.SUBSCRIBER_ADMIN,
}
RANK = (Role.STUDENT, Role.TEACHER, Role.TEACHER_ADMIN, Role.SUBSCRIBER_ADMIN, Role.SYSTEM_ADMIN)

# A bulk file that lacks more than half of whom we knew is more likely cut short than true.
GONE_SHARE_MAX = 0.5
GONE_ALWAYS_BELIEVED = 20


def import_oneroster(
    roster: Roster,
    source: Path | bytes,
    *,
    organization_id: str | None = None,
    roles: Mapping[str, Role] = ROLES,
    dry_run: bool = False,
    progress: Progress | None = None,
    limits: ZipLimits | None = None,
) -> ImportReport:
    """Load a OneRoster zip into one organization; by default that of its topmost org.

    Bad rows are reported and the rest are loaded, in one transaction. A `bulk` file is the whole:
    people whom an earlier file brought and this one lacks become inactive, and their enrolments
    end. A `delta` deletes what it marks `tobedeleted`. Raises `Malformed`, `TooLarge`, `StoreError`.
    """
    findings = Findings(progress)
    tables = RosterZip(source, findings, limits)
    with roster.writing():
        feed = _Feed(roster, tables, findings, organization_id, roles)
        feed.read()
        if not dry_run:
            roster.commit(feed.changes, feed.draft)
    return findings.report(dry_run=dry_run)


class _Feed:
    """One import: reads the tables in the order in which they lean on each other."""

    def __init__(
        self,
        roster: Roster,
        tables: RosterZip,
        findings: Findings,
        organization_id: str | None,
        roles: Mapping[str, Role],
    ) -> None:
        self.changes: list[Change] = []
        self.draft = roster.draft()
        self._roster, self._tables, self._findings = roster, tables, findings
        self._roles = roles
        self._today = roster.now().date()
        self._org = ""
        self._put_organization(organization_id)
        self._brought = {
            kind: roster.brought_by_feed(kind, self._org)
            for kind in ("users", "classes", "enrollments")
        }
        self._terms: dict[str, Span] = {}
        self._class_spans: dict[str, Span] = {}
        self._teachers: defaultdict[str, set[str]] = defaultdict(set)
        self._teachers_gone: defaultdict[str, set[str]] = defaultdict(set)
        self._not_kept: Counter[str] = Counter()

    def read(self) -> None:
        """Work out every change."""
        self._read_terms()
        self._read_users()
        self._read_classes()
        self._read_enrollments()
        for role, count in sorted(self._not_kept.items()):
            self._findings.warn(f"{count} rows have the role {role or '(none)'}: not kept.")
        idle = [
            key
            for key, user in self.draft.users.get(self._org, {}).items()
            if user.role is Role.TEACHER_ADMIN and not user.manages
        ]
        if idle:
            self._findings.warn(
                f"{len(idle)} teacher admins manage nobody yet: put their `manages`."
            )

    def _put_organization(self, organization_id: str | None) -> None:
        names: dict[str, str] = {}
        parents: dict[str, str] = {}
        for line, row in self._tables.rows("orgs", ("sourcedId",)):
            if _gone(row):
                continue
            if self._id("orgs.csv", line, row, "sourcedid") is not None:
                names[row["sourcedid"]] = row.get("name", "")
                parents[row["sourcedid"]] = row.get("parentsourcedid", "")
        tops = [key for key, parent in parents.items() if parent not in names]
        if organization_id is None and len(tops) != 1:
            raise Malformed(
                f"orgs.csv has {len(tops)} topmost orgs; name the organization to import into."
            )
        org = self._org = checked_id(tops[0] if organization_id is None else organization_id)
        before = self.draft.organizations.get(org)
        name = names.get(org) or (names[tops[0]] if len(tops) == 1 else "")
        if before is None or (not before.name and name):
            record = structs.replace(before or Organization(), name=name[:200])
            self._put("orgs.csv", 0, "organizations", org, record)

    def _read_terms(self) -> None:
        for line, row in self._tables.rows("academicsessions", ("sourcedId",)):
            try:
                self._terms[row["sourcedid"]] = (_day(row, "startdate"), _day(row, "enddate"))
            except ValueError as error:
                self._findings.reject("academicSessions.csv", line, str(error))

    # ── people ───────────────────────────────────────────────────────────────────────────────────

    def _read_users(self) -> None:
        births = self._births()
        roles = self._roles_by_user()
        seen: set[str] = set()
        for line, row in self._tables.rows("users", ("sourcedId",)):
            key = self._id("users.csv", line, row, "sourcedid")
            if key is None:
                continue
            seen.add(key)
            if _gone(row):
                self._delete("users", key)
            else:
                self._put_user(line, key, row, roles.get(key), births.get(key))
        if self._tables.mode("users") == "bulk":
            for key in self._vanished("users", seen) or ():
                gone = self.draft.users[self._org][key]
                if gone.active:
                    self._put("users.csv", 0, "users", key, structs.replace(gone, active=False))
        # A delta may tell of a role or a birth date alone.
        for key in (roles.keys() | births.keys()) - seen:
            if key in self.draft.users.get(self._org, {}):
                self._put_user(0, key, {}, roles.get(key), births.get(key))

    def _put_user(
        self, line: int, key: str, row: Row, role: Role | None, born: date | None
    ) -> None:
        before = self.draft.users.get(self._org, {}).get(key)
        if role is None and row.get("role"):
            role = self._known_role(row["role"])
            if role is None:
                return
        if before is not None and key not in self._brought["users"]:
            # Made by hand: the file may raise, and does not lower.
            role = max(role or before.role, before.role, key=RANK.index)
        if role is None and before is not None:
            role = before.role
        if role is None:
            self._findings.reject("users.csv", line, f"{key} has no role that is kept")
            return
        base = before or User(organization_id=self._org, role=role)
        active = _true(row["enableduser"]) if row.get("enableduser") else base.active or bool(row)
        record = structs.replace(base, role=role, active=active)
        if born is not None:
            record = structs.replace(record, birth_date=born)
        self._put("users.csv", line, "users", key, record)

    def _births(self) -> dict[str, date]:
        births = {}
        for line, row in self._tables.rows("demographics", ("sourcedId",)):
            try:
                born = None if _gone(row) else _day(row, "birthdate")
            except ValueError as error:
                self._findings.reject("demographics.csv", line, str(error))
                continue
            if born is not None and born > self._today:
                self._findings.reject("demographics.csv", line, "birthDate lies in the future")
            elif born is not None:
                births[row["sourcedid"]] = born
        return births

    def _roles_by_user(self) -> dict[str, Role]:
        """Return the highest role that each user has today (1.2)."""
        found: dict[str, Role] = {}
        for line, row in self._tables.rows("roles", ("userSourcedId", "role")):
            try:
                begin, end = _day(row, "begindate"), _day(row, "enddate")
            except ValueError as error:
                self._findings.reject("roles.csv", line, str(error))
                continue
            if _gone(row) or (begin and begin > self._today) or (end and end < self._today):
                continue
            role = self._known_role(row["role"])
            if role is not None:
                key = row["usersourcedid"]
                found[key] = max(role, found.get(key, role), key=RANK.index)
        return found

    def _known_role(self, name: str) -> Role | None:
        role = self._roles.get(name.lower())
        if role is None:
            self._not_kept[name[:40]] += 1
        return role

    # ── classes and enrolments ───────────────────────────────────────────────────────────────────

    def _read_classes(self) -> None:
        for line, row in self._tables.rows("classes", ("sourcedId",)):
            key = self._id("classes.csv", line, row, "sourcedid")
            if key is None:
                continue
            if _gone(row):
                self._delete("classes", key)
                continue
            before = self.draft.classes.get(self._org, {}).get(key)
            record = structs.replace(
                before or Class(organization_id=self._org), name=row.get("title", "")[:200]
            )
            self._put("classes.csv", line, "classes", key, record)
            terms = [each.strip() for each in row.get("termsourcedids", "").split(",")]
            self._class_spans[key] = _union(
                [self._terms[each] for each in terms if each in self._terms]
            )

    def _read_enrollments(self) -> None:
        seen: set[str] = set()
        for line, row in self._tables.rows(
            "enrollments", ("sourcedId", "classSourcedId", "userSourcedId", "role")
        ):
            key = self._id("enrollments.csv", line, row, "sourcedid")
            if key is None:
                continue
            seen.add(key)
            try:
                self._read_enrollment(line, key, row)
            except ValueError as error:
                self._findings.reject("enrollments.csv", line, str(error))
        mode = self._tables.mode("enrollments")
        whole = mode == "bulk" and self._end_vanished(seen)
        self._put_teachers(mode, whole=whole)

    def _read_enrollment(self, line: int, key: str, row: Row) -> None:
        class_id, user_id, role = row["classsourcedid"], row["usersourcedid"], row["role"].lower()
        teaches = self._roles.get(role) is Role.TEACHER
        if _gone(row):
            self._delete("enrollments", key)
            if teaches:
                self._teachers_gone[class_id].add(user_id)
            return
        if class_id not in self.draft.classes.get(self._org, {}):
            raise ValueError(f"class {class_id!r} is neither in the file nor in the roster")
        if user_id not in self.draft.users.get(self._org, {}):
            raise ValueError(f"user {user_id!r} is neither in the file nor in the roster")
        begin, end = _day(row, "begindate"), _day(row, "enddate")
        if teaches:
            self._delete("enrollments", key)  # of one who was a student here before
            if end is None or end >= self._today:
                self._teachers[class_id].add(user_id)
        elif self._roles.get(role) is Role.STUDENT:
            first, last = self._class_spans.get(class_id, (None, None))
            record = Enrollment(
                class_id=class_id, user_id=user_id, begin=begin or first, end=end or last
            )
            self._put("enrollments.csv", line, "enrollments", key, record)
        else:
            self._not_kept[role[:40]] += 1

    def _end_vanished(self, seen: set[str]) -> bool:
        """End the enrolments that the whole file lacks; False when it is not to be believed."""
        gone = self._vanished("enrollments", seen)
        if gone is None:
            return False
        yesterday = self._today - timedelta(days=1)
        for key in gone:
            row = self.draft.enrollments[self._org][key]
            if row.begin is not None and row.begin > yesterday:
                self._delete("enrollments", key)
            elif row.end is None or row.end > yesterday:
                ended = structs.replace(row, end=yesterday)
                self._put("enrollments.csv", 0, "enrollments", key, ended)
        return True

    def _put_teachers(self, mode: Mode, *, whole: bool) -> None:
        if mode == "absent":
            return
        touched = self._teachers.keys() | self._teachers_gone.keys()
        if whole:
            touched |= self._brought["classes"]
        for key in sorted(touched & self.draft.classes.get(self._org, {}).keys()):
            record = self.draft.classes[self._org][key]
            kept = set() if whole else set(record.teacher_ids) - self._teachers_gone[key]
            teachers = tuple(sorted(kept | self._teachers[key]))
            if teachers != tuple(sorted(record.teacher_ids)):
                record = structs.replace(record, teacher_ids=teachers)
                self._put("enrollments.csv", 0, "classes", key, record)

    # ── what all of them need ────────────────────────────────────────────────────────────────────

    def _vanished(self, kind: Kind, seen: set[str]) -> list[str] | None:
        """Return who was brought by an earlier file and is not in this one.

        None: too many to be believed.
        """
        known = self._brought[kind]
        gone = sorted(known - seen)
        if len(gone) > GONE_ALWAYS_BELIEVED and len(gone) > GONE_SHARE_MAX * len(known):
            self._findings.warn(
                f"{kind}.csv lacks {len(gone)} of {len(known)} that we knew: taken for a file cut"
                " short, and nothing was ended."
            )
            return None
        return [key for key in gone if self._org in self.draft.organizations_of(kind, key)]

    def _put(self, file: str, line: int, kind: Kind, key: str, record: Record) -> None:
        try:
            change = self._roster.change(self.draft, kind, key, record, self._org)
        except BrokerError as error:
            self._findings.reject(file, line, str(error))
            return
        if kind != "organizations":
            change = structs.replace(change, from_feed=self._is_fed(kind, key))
        self.draft.apply(change)
        self.changes.append(change)
        if line or kind == "organizations":
            self._findings.loaded[kind] += 1

    def _is_fed(self, kind: Kind, key: str) -> bool:
        # Who was made by hand stays so: a later whole file does not make them inactive.
        return key in self._brought[kind] or self._org not in self.draft.organizations_of(kind, key)

    def _delete(self, kind: Kind, key: str) -> None:
        if self._org not in self.draft.organizations_of(kind, key):
            return
        change = Change(kind=kind, organization_id=self._org, id=key, record=None)
        self.draft.apply(change)
        self.changes.append(change)
        self._findings.deleted[kind] += 1

    def _id(self, file: str, line: int, row: Row, column: str) -> str | None:
        try:
            return checked_id(row[column])
        except Malformed as error:
            self._findings.reject(file, line, f"{column}: {error}")
            return None


def _gone(row: Row) -> bool:
    return row.get("status", "").lower() == "tobedeleted"


def _true(cell: str) -> bool:
    return cell.lower() in {"true", "1", "yes"}


def _day(row: Row, column: str) -> date | None:
    """Return the day in that cell, None for a blank one; `ValueError` tells what is wrong."""
    text = row.get(column, "")
    if not text:
        return None
    try:
        return date.fromisoformat(text.partition("T")[0])
    except ValueError:
        raise ValueError(f"{column}: {text[:40]!r} is no date; write YYYY-MM-DD") from None


def _union(spans: list[Span]) -> Span:
    """Return from the first beginning to the last end; None where one of them is open."""
    begins, ends = [begin for begin, _ in spans], [end for _, end in spans]
    return (
        None if None in begins else min((day for day in begins if day), default=None),
        None if None in ends else max((day for day in ends if day), default=None),
    )
