"""Forgetting a person: invisible at once, then out of every file, step by step; crashes resume it.

1. The erased list and a tombstone: readers see nothing of the person, the pipeline drops resends.
2. Hot files are sealed into homes without the person's events, and unlinked.
3. Homes lose their packs of the person; then roster, consents, quarantine, receipts, rollups.
4. A signed line says how much was deleted. The tombstone and the job forget the id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

import msgspec
import trio

from mlc_broker.model.errors import BrokerError
from mlc_broker.runtime.clock import Clock
from mlc_broker.store.care.erased import ErasedList, Record
from mlc_broker.store.care.jobs import Job, Jobs
from mlc_broker.store.care.scrub import Scrubber
from mlc_broker.store.holds import is_held
from mlc_broker.store.roster import Roster
from mlc_broker.store.store import Store

ERASE = "erase"
HELD = "under a legal hold"
LOOK_SECONDS = 60.0  # between two looks at what is due
AGAIN_SECONDS = 5.0  # after something was in the way


class Forgets(Protocol):
    """A place that may know a person: it removes all of it and tells how much that was."""

    def forget_person(self, organization_id: str, user_id: str) -> int:
        """Remove it; called in a worker thread, perhaps twice."""


class Erasure:
    """Takes erasures, does them when they are due, one at a time."""

    def __init__(
        self,
        store: Store,
        roster: Roster,
        jobs: Jobs,
        erased: ErasedList,
        *,
        clock: Clock,
        grace_days: int,
        pseudonym: Callable[[str], str],
        places: Sequence[tuple[str, Forgets]] = (),
        in_thread: Callable[..., Any] = trio.to_thread.run_sync,
    ) -> None:
        self.jobs, self.erased = jobs, erased
        self.places = list(places)
        self._store, self._roster = store, roster
        self._scrubber = Scrubber(store)
        self._clock, self._grace = clock, timedelta(days=grace_days)
        self._pseudonym, self._in_thread = pseudonym, in_thread
        self._wake = trio.Event()

    async def erase(
        self, organization_id: str, user_id: str, *, requested_by: str, immediately: bool
    ) -> Job:
        """Write the job down. When this returns, a crash does not forget it."""
        now = self._clock.now()
        due = now if immediately else now + self._grace
        job: Job = await self._in_thread(
            partial(
                self.jobs.add,
                ERASE,
                organization_id,
                user_id,
                requested_by=requested_by,
                now=now,
                due=due,
            )
        )
        self.look_again()
        return await self._told_if_held(job)

    def look_again(self) -> None:
        """Something has changed, such as a hold: look at once at what is due."""
        self._wake.set()

    async def run(self) -> None:
        """Do what is due; for ever."""
        while True:
            again = await self.do_due()
            self._wake = trio.Event()
            with trio.move_on_after(AGAIN_SECONDS if again else LOOK_SECONDS):
                await self._wake.wait()

    async def do_due(self) -> bool:
        """Do what is due now; return whether something was in the way."""
        now, again = self._clock.now(), False
        for job in await self._in_thread(self.jobs.unfinished):
            if job.kind == ERASE and (job.due <= now or job.state == "running"):
                if (await self._told_if_held(job)).detail.startswith(HELD):
                    continue
                again |= not await self._do(job)
        return again

    async def _told_if_held(self, job: Job) -> Job:
        """A person under a legal hold is not erased before it ends; the job says so, and waits."""
        if is_held(self._store.files.held, job.organization_id, job.user_id):
            detail = f"{HELD}: erased when the hold ends"
        elif job.detail.startswith(HELD):
            detail = ""
        else:
            return job
        await self._in_thread(self.jobs.note, job.id, detail)
        return msgspec.structs.replace(job, detail=detail)

    async def _do(self, job: Job) -> bool:
        if not await self._in_thread(self.jobs.begin, job.id):
            return True  # cancelled meanwhile
        try:
            counts = await self.forget(job)
        except (BrokerError, OSError) as error:
            await self._in_thread(
                partial(self.jobs.note, job.id, f"{type(error).__name__}: {error}")
            )
            return False
        if counts is None:
            return False
        await self._in_thread(
            partial(
                self.jobs.finish, job.id, "done", now=self._clock.now(), report={"deleted": counts}
            )
        )
        return True

    async def forget(self, job: Job) -> dict[str, int] | None:
        """Remove the person everywhere; None: a file is still held by a reader, try again."""
        organization_id, user_id = job.organization_id, job.user_id
        names = (user_id, self._pseudonym(user_id))
        await self._in_thread(self._note_begun, job, self._clock.now())
        for name in names:
            await self._store.hide(organization_id, name)
        counts = await self._scrubber.forget(organization_id, names)
        if counts is None:
            return None
        people = await self._in_thread(self._roster.erase_person, organization_id, user_id)
        counts |= {f"roster_{kind}": count for kind, count in people.items()}
        for label, place in self.places:
            for name in names:
                gone = await self._in_thread(place.forget_person, organization_id, name)
                counts[label] = counts.get(label, 0) + gone
        counts = {label: count for label, count in counts.items() if count}
        await self._in_thread(self._note_done, job, counts)
        for name in names:
            await self._store.unhide(organization_id, name)
        return counts

    def _note_begun(self, job: Job, now: datetime) -> None:
        known = self.erased.erased_at(job.organization_id, job.user_id)
        if known is None or known < job.requested_at or known < job.due:
            self.erased.add(self._record(job, now, "begun"))

    def _note_done(self, job: Job, counts: dict[str, int]) -> None:
        at = self.erased.erased_at(job.organization_id, job.user_id) or self._clock.now()
        self.erased.add(self._record(job, at, "done", counts))

    def _record(
        self, job: Job, at: datetime, state: str, counts: dict[str, int] | None = None
    ) -> Record:
        return Record(
            job_id=job.id,
            subject=self.erased.subject(job.organization_id, job.user_id),
            erased_at=at,
            state=state,
            requested_by=job.requested_by,
            deleted=counts or {},
        )
