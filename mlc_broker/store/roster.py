"""The roster: who people are, where they belong, and what they consented to.

Questions are answered from memory and never wait. Changes are sync: call them in a worker thread.
When one returns it is on disk, and in force for the next event and the next query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from threading import RLock
from typing import Any, TypeAlias

import msgspec

from mlc_broker.model.errors import BrokerError, Malformed
from mlc_broker.model.person import (
    KINDS,
    Category,
    ConsentEntry,
    ConsentForm,
    ConsentState,
    Kind,
    Organization,
    Record,
    User,
    Word,
)
from mlc_broker.runtime.clock import Clock
from mlc_broker.store.consents import RULES, ConsentRule, Consents, entries_of
from mlc_broker.store.roster_file import RosterFile
from mlc_broker.store.roster_memory import Change, Memory
from mlc_broker.store.roster_rules import change_for, checked_id, checked_kind, without_person

Item: TypeAlias = tuple[str, str, Mapping[str, Any] | Record]  # kind, id, record
Rejected: TypeAlias = Callable[[str, str, BrokerError], None]  # kind, id, why


class Roster:
    """People and places, in memory for the pipeline and in `roster.db` for good."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        consent_rules: Mapping[str, ConsentRule] = RULES,
        enrollments_per_user_max: int = 1_000,
        people_cached_max: int = 200_000,
    ) -> None:
        self._clock = clock
        self._file = RosterFile(path)
        self._lock = RLock()  # one change at a time; no question takes it
        self._rules = consent_rules
        self._enrollments_per_user_max = enrollments_per_user_max
        self._people_cached_max = people_cached_max
        self._memory = Memory(people_cached_max=people_cached_max)
        self._consents = Consents(consent_rules)
        # When somebody was erased: the list of `care/erased.py`, which is not in this file.
        self.erased_at: Callable[[str, str], datetime | None] = lambda _organization, _user: None

    def open(self) -> None:
        """Open `roster.db`, making it where there is none, and read it all. Raises `StoreError`."""
        with self._lock:
            self._file.open()
            self._load()

    def close(self) -> None:
        """Close the file. The memory stays, for whoever still asks."""
        with self._lock:
            self._file.close()

    # ── questions: no call blocks ────────────────────────────────────────────────────────────────

    def organization(self, organization_id: str) -> Organization | None:
        """Return the organization's record."""
        return self._memory.organizations.get(organization_id)

    def organization_ids(self) -> tuple[str, ...]:
        """Return the ids of every organization, sorted."""
        return tuple(sorted(self._memory.organizations.copy()))

    def user(self, organization_id: str, user_id: str) -> User | None:
        """Return the person's record."""
        users = self._memory.users.get(organization_id)
        return None if users is None else users.get(user_id)

    def users_of(self, organization_id: str) -> dict[str, User]:
        """Return a copy of the organization's people, by id."""
        return self._memory.users.get(organization_id, {}).copy()

    def organizations_of(self, user_id: str) -> list[str]:
        """Return the organizations that know a person of that id."""
        return self._memory.organizations_of("users", user_id)

    def membership(
        self, organization_id: str, user_id: str, at: datetime
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the ids of the user's classes at that time, and of who teach them; sorted."""
        return self._memory.membership(organization_id, user_id, at)

    def classes_taught_by(
        self, organization_id: str, teacher_ids: frozenset[str]
    ) -> frozenset[str]:
        """Return the ids of the classes that any of these people teach now."""
        return self._memory.classes_taught_by(organization_id, teacher_ids)

    def teachers_managed_by(self, organization_id: str, user_id: str) -> frozenset[str]:
        """Return the teachers in a teacher-admin's scope; `["*"]` is spelled out."""
        return self._memory.teachers_managed_by(organization_id, user_id)

    def consent(self, organization_id: str, user_id: str, category: str) -> bool | None:
        """Return the person's word on collecting; None: never asked, or no consent is needed."""
        return self._consents.word(organization_id, user_id, category)

    def collects(self, organization_id: str, user_id: str, category: str) -> bool:
        """Return whether the person's events of this category may be collected."""
        return self._consents.collects(organization_id, user_id, category)

    def discloses(self, organization_id: str, user_id: str, category: str) -> bool:
        """Return whether the person's events of this category may go to third parties."""
        return self._consents.discloses(organization_id, user_id, category)

    def consents_of(self, organization_id: str, user_id: str) -> dict[str, ConsentState]:
        """Return what holds for each category, and the last word on it."""
        return self._consents.state(organization_id, user_id)

    def erased(self, organization_id: str, user_id: str, at: datetime) -> bool:
        """Return whether an event of that time is of somebody who was erased since.

        Who is put into the roster again is somebody new: only what they did before stays away.
        """
        erased_at = self.erased_at(organization_id, user_id)
        if erased_at is None:
            return False
        return at <= erased_at or self.user(organization_id, user_id) is None

    def export(self, organization_id: str) -> dict[str, dict[str, Record]]:
        """Return the organization's records as the JSON import takes them."""
        memory = self._memory
        here = memory.organizations.get(organization_id)
        return {
            "organizations": {} if here is None else {organization_id: here},
            "users": {**memory.users.get(organization_id, {}).copy()},
            "classes": {**memory.classes.get(organization_id, {}).copy()},
            "enrollments": {**memory.enrollments.get(organization_id, {}).copy()},
        }

    # ── changes: sync, in a worker thread ────────────────────────────────────────────────────────

    def put(
        self,
        kind: str,
        key: str,
        record: Mapping[str, Any] | Record,
        *,
        within: str | None = None,
    ) -> None:
        """Create or replace one record. `within`: the one organization the caller may write.

        Raises `NotFound` (no such kind), `Malformed`, `Forbidden`, `StoreError`.
        """
        with self._lock:
            self.refresh_if_changed()
            self.commit([self._change(self._memory, kind, key, record, within)])

    def put_many(
        self,
        items: Iterable[Item],
        *,
        within: str | None = None,
        rejected: Rejected | None = None,
        dry_run: bool = False,
    ) -> dict[str, int]:
        """Put all of it in one transaction; return how many of each kind.

        With `rejected`, a record that cannot be put is told and the rest are put; without, the
        first one stops it all and nothing is changed. `dry_run`: as if, and nothing is changed.
        """
        counts = dict.fromkeys(KINDS, 0)
        changes: list[Change] = []
        with self._lock:
            self.refresh_if_changed()
            draft = self._memory.copy()  # a class of this very file may be asked for
            for kind, key, record in items:
                try:
                    change = self._change(draft, kind, key, record, within)
                except BrokerError as error:
                    if rejected is None:
                        raise
                    rejected(kind, key, error)
                    continue
                draft.apply(change)
                changes.append(change)
                counts[change.kind] += 1
            if not dry_run:
                self.commit(changes, draft)
        return {str(kind): count for kind, count in counts.items()}

    def commit(self, changes: list[Change], draft: Memory | None = None) -> None:
        """Write checked changes in one transaction, then let them hold at once.

        `draft` is a copy of the memory to which they were applied already.
        """
        with self._lock:
            self._file.write(changes)
            for change in changes:
                if change.moved_from is not None:
                    self._consents.carry(
                        change.id, old=change.moved_from, new=change.organization_id
                    )
            if draft is None and len(changes) == 1 and changes[0].kind != "organizations":
                self._memory.apply(changes[0])
            else:
                self._memory = draft if draft is not None else self._memory_with(changes)
            for change in changes:
                if change.kind == "organizations" and change.record is None:
                    self._consents.forget_organization(change.id)

    def delete(self, kind: str, organization_id: str, key: str) -> bool:
        """Delete a record and what hangs on it; False when there was none.

        An organization takes everything of its own with it, a class or a user the enrolments.
        """
        known = checked_kind(kind)
        with self._lock:
            self.refresh_if_changed()
            was = organization_id in self._memory.organizations_of(known, key)
            if was or known == "organizations":
                self.commit(
                    [Change(kind=known, organization_id=organization_id, id=key, record=None)]
                )
        return was

    def put_consent(
        self,
        organization_id: str,
        user_id: str,
        words: Mapping[Category, Word] | ConsentForm,
        *,
        given_by: str = "",
        at: datetime | None = None,
        basis: str = "",
    ) -> None:
        """Add words to the person's history; each holds from now on. Raises `Malformed`."""
        checked_id(organization_id)
        checked_id(user_id)
        form = words if isinstance(words, ConsentForm) else _form(words, given_by, basis)
        entries = entries_of(form, at or self._clock.now())
        with self._lock:
            self._file.add_consents(organization_id, user_id, entries)
            self._consents.add(organization_id, user_id, entries)

    def consent_history(self, organization_id: str, user_id: str) -> list[ConsentEntry]:
        """Return every word that was given on the person, oldest first. Reads the file."""
        with self._lock:
            return self._file.consents_of(organization_id, user_id)

    def erase_person(self, organization_id: str, user_id: str) -> dict[str, int]:
        """Remove all that names the person, and count it. Nothing of it stays in the file."""
        with self._lock:
            self.refresh_if_changed()
            scrubbed = without_person(self._memory, organization_id, user_id)
            gone = self._file.erase_person(organization_id, user_id, scrubbed)
            away = Change(kind="users", organization_id=organization_id, id=user_id, record=None)
            self._memory = self._memory_with([away, *scrubbed])
            self._consents.forget(organization_id, user_id)
        return {**gone, "mentions": len(scrubbed)}

    def refresh_if_changed(self) -> bool:
        """Read the file again if another process wrote it. Call it now and then."""
        if not self._lock.acquire(blocking=False):
            return False  # this process is writing: the next look will do
        try:
            changed = self._file.changed_outside()
            if changed:
                self._load()
            return changed
        finally:
            self._lock.release()

    # ── for the importers beside this file ───────────────────────────────────────────────────────

    def draft(self) -> Memory:
        """Return a copy of the memory, to work changes out on. Hold `writing` meanwhile."""
        self.refresh_if_changed()
        return self._memory.copy()

    def writing(self) -> AbstractContextManager[Any]:
        """Return the lock that keeps other changes out."""
        return self._lock

    def brought_by_feed(self, kind: Kind, organization_id: str) -> set[str]:
        """Return the ids of the records that a OneRoster file brought."""
        with self._lock:
            return self._file.from_feed(kind, organization_id)

    def now(self) -> datetime:
        """Return the time of the roster's clock, in UTC."""
        return self._clock.now()

    def change(self, memory: Memory, kind: str, key: str, record: Record, within: str) -> Change:
        """Return the checked change that putting this record would be."""
        return self._change(memory, kind, key, record, within)

    def _change(
        self,
        memory: Memory,
        kind: str,
        key: str,
        record: Mapping[str, Any] | Record,
        within: str | None,
    ) -> Change:
        return change_for(
            memory,
            kind,
            key,
            record,
            within=within,
            today=self._clock.now().date(),
            enrollments_per_user_max=self._enrollments_per_user_max,
        )

    def _memory_with(self, changes: Iterable[Change]) -> Memory:
        memory = self._memory.copy()
        for change in changes:
            memory.apply(change)
        return memory

    def _load(self) -> None:
        memory = Memory(people_cached_max=self._people_cached_max)
        consents = Consents(self._rules)
        self._file.load(memory, consents)
        # Consents first: for an instant a person may be unknown, but never collected against a word.
        self._consents = consents
        self._memory = memory


def _form(words: Mapping[Category, Word], given_by: str, basis: str) -> ConsentForm:
    values: dict[str, str] = {str(category): word for category, word in words.items()}
    values |= {"given_by": given_by, "basis": basis}
    try:
        return msgspec.convert(values, ConsentForm)
    except msgspec.ValidationError as error:
        raise Malformed(f"This is not a consent: {error}.") from error
