"""Questions about events: Filter + Scope → lines. Reading others leaves an entry, then answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np
import trio
from msgspec import Struct

from mlc_broker.model.errors import NotFound, StoreError, Unavailable
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Grant, Hierarchy, Principal, Scope, scope_for
from mlc_broker.query.cursor import Cursors
from mlc_broker.query.hints import month_first
from mlc_broker.query.pseudonyms import Pseudonyms
from mlc_broker.query.scopes import Asker, ferpa_class
from mlc_broker.store.audit import SUBJECTS_MAX, AuditLog
from mlc_broker.store.audit_entry import Entry
from mlc_broker.store.ids import Hasher
from mlc_broker.store.reader import Deadline, Found, Position, Reader, ViewGone
from mlc_broker.store.select import Selection
from mlc_broker.store.store import Store
from mlc_broker.store.view import FileView
from mlc_broker.store.writer import InThread

PAGE_EVENTS_MAX = 1000
ATTEMPTS = 3  # a file may leave between the view and its reading
T = TypeVar("T")


class Limits(Struct, frozen=True, kw_only=True):
    """What questions may take; each name carries its unit."""

    query_seconds_max: float = 10.0
    queries_max: int = 4  # at once; others wait
    exports_max: int = 2
    export_seconds_max: float = 3600.0


class Page(Struct, frozen=True):
    """Events as their stored lines, newest first, and where to go on."""

    lines: list[bytes]
    next: str | None


class _Whose(Struct):
    """Whose event a line is: enough for the access log."""

    user_id: str | None = None
    organization_id: str | None = None


class Queries:
    """All reading of events goes through here: edge, commands and metrics have no other way."""

    def __init__(
        self,
        store: Store,
        reader: Reader,
        audit: AuditLog,
        *,
        hasher: Hasher,
        cursors: Cursors,
        pseudonyms: Pseudonyms,
        organization_ids: Callable[[], Iterable[str]],
        limits: Limits | None = None,
        in_thread: InThread = trio.to_thread.run_sync,
    ) -> None:
        self.store = store
        self.reader = reader
        self.audit = audit
        self.cursors = cursors
        self.pseudonyms = pseudonyms
        self.limits = limits or Limits()
        self._hasher = hasher
        self._organization_ids = organization_ids
        self.in_thread = in_thread
        self._seats = trio.CapacityLimiter(self.limits.queries_max)

    async def events(
        self, asker: Asker, wanted: Filter, *, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """Return one page of what is asked for and in scope, newest first.

        Raises Malformed (cursor), Unavailable (too slow, or the access log cannot be written).
        """
        before = None if cursor is None else self.cursors.position(cursor)
        found = await self._page(asker.scope, wanted, limit + 1, before)
        more, found = len(found) > limit, found[:limit]
        lines = [item.line for item in found]
        await self.note(asker, "events.list", wanted, lines)
        following = self.cursors.of_position(found[-1].position) if more else None
        return Page(self.shown(asker.scope, lines), following)

    async def event(self, asker: Asker, event_id: str, wanted: Filter) -> bytes:
        """Return one event's line; raises NotFound when there is none in scope."""
        line = await self.find(asker.scope, event_id, wanted)
        if line is None:
            raise NotFound("No event of this id is in your scope.")
        await self.note(asker, "events.get", wanted, [line], detail=event_id)
        return self.shown(asker.scope, [line])[0]

    async def find(self, scope: Scope, event_id: str, wanted: Filter | None = None) -> bytes | None:
        """Return the line of an event by its id. The caller tells the access log."""
        selection = self.store.select(scope, wanted)
        hashes = await self._hashes(scope, event_id)

        def look(views: Sequence[FileView], deadline: Deadline) -> bytes | None:
            ordered = month_first(event_id, views)
            return self.reader.by_hash(ordered, selection, hashes, deadline=deadline)

        return await self.ask(selection, look)

    async def ask(
        self, selection: Selection, question: Callable[[Sequence[FileView], Deadline], T]
    ) -> T:
        """Put a question to the files, in a thread, within the time that a question may take."""
        seconds = self.limits.query_seconds_max
        with trio.move_on_after(seconds):
            async with self._seats:
                for _ in range(ATTEMPTS):
                    views = self.store.views(selection)
                    try:
                        answer: T = await self.in_thread(question, views, Deadline(seconds))
                    except ViewGone:
                        continue
                    return answer
        raise Unavailable("Too many questions at once: ask again in a moment.")

    async def note(
        self,
        asker: Asker,
        action: str,
        wanted: Filter,
        lines: Sequence[bytes],
        *,
        detail: str = "",
    ) -> None:
        """Put a read into the access log, unless it was of oneself alone; before it is answered.

        Raises Unavailable when the log cannot be written: then nothing is read.
        """
        people = others(asker.principal, lines)
        if people:
            await self.record(entry_of(asker, action, wanted, people, len(lines), detail=detail))

    async def record(self, entry: Entry) -> None:
        """Put an entry into the access log; raises Unavailable when it cannot be written."""
        try:
            await self.audit.record(entry)
        except StoreError as error:
            raise Unavailable(
                "The access log cannot be written, so nobody's data is read now."
            ) from error

    def shown(self, scope: Scope, lines: list[bytes]) -> list[bytes]:
        """Return lines as this scope shows them: with pseudonyms across organizations."""
        return [self.pseudonyms.line(line) for line in lines] if scope.pseudonymous else lines

    async def _page(
        self, scope: Scope, wanted: Filter, limit: int, before: Position | None
    ) -> list[Found]:
        if before is not None:
            wanted = _until(wanted, before)
        selection = self.store.select(scope, wanted)

        def look(views: Sequence[FileView], deadline: Deadline) -> list[Found]:
            return self.reader.page(views, selection, limit=limit, before=before, deadline=deadline)

        return await self.ask(selection, look)

    async def _hashes(self, scope: Scope, event_id: str) -> Any:
        if scope.organization_id is not None:
            blob = self._hasher.hash(scope.organization_id, event_id)
        else:
            known = [None, *self._organization_ids()]
            hash_all = partial(_joined_hashes, self._hasher, known, event_id)
            blob = await self.in_thread(hash_all)
        return np.frombuffer(blob, "<u8").reshape(-1, 2)


def others(principal: Principal, lines: Iterable[bytes]) -> dict[str, set[str]]:
    """Return the people other than the asker whose events these are, by organization."""
    people: dict[str, set[str]] = {}
    me = (principal.organization_id or "", principal.id)
    for line in lines:
        whose = _whose(line)
        if whose.user_id and (whose.organization_id or "", whose.user_id) != me:
            people.setdefault(whose.organization_id or "", set()).add(whose.user_id)
    return people


def entry_of(
    asker: Asker,
    action: str,
    wanted: Filter,
    people: Mapping[str, set[str]],
    count: int,
    *,
    detail: str = "",
    unknown: bool = False,
) -> Entry:
    """Return the entry of a read. `unknown`: whose events will leave is not known yet."""
    principal, total = asker.principal, sum(map(len, people.values()))
    named: dict[str, list[str]] = {}
    room = SUBJECTS_MAX
    for organization, users in sorted(people.items()):
        named[organization] = sorted(users)[:room]
        room -= len(named[organization])
    return Entry(
        who=principal.id,
        role=str(principal.role or principal.kind),
        action=action,
        asker_organization_id=principal.organization_id,
        organization_id=asker.scope.organization_id,
        filters=told_filter(wanted),
        subjects=named,
        subjects_count=total,
        more_subjects=unknown or total > SUBJECTS_MAX,
        count=count,
        purpose=asker.purpose,
        ferpa_class=ferpa_class(asker),
        detail=detail,
    )


def told_filter(wanted: Filter) -> dict[str, Any]:
    """Return a filter as the access log tells it: what was asked for, and nothing else."""
    told: dict[str, Any] = {}
    for name, value in msgspec.structs.asdict(wanted).items():
        if isinstance(value, datetime):
            told[name] = value.astimezone(UTC).isoformat()
        elif value is not None:
            told[name] = sorted(value)[:100]
    return told


def receipt_scope(principal: Principal, hierarchy: Hierarchy, organization_id: str | None) -> Scope:
    """Return whose receipts somebody may look up: a person's scope, a key's organization."""
    if principal.kind == "ingest" and principal.organization_id is not None:
        return Scope(organization_id=principal.organization_id, grants=(Grant(),))
    return scope_for(principal, hierarchy, organization_id=organization_id)


def _until(wanted: Filter, before: Position) -> Filter:
    edge = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=before.ts + 1)
    if wanted.end is None or edge < wanted.end:
        return msgspec.structs.replace(wanted, end=edge)
    return wanted


def _joined_hashes(hasher: Hasher, organizations: Iterable[str | None], event_id: str) -> bytes:
    return b"".join(hasher.hash(organization, event_id) for organization in organizations)


_whose = msgspec.json.Decoder(_Whose).decode
