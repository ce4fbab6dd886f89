"""The roof over care: erasure, purging and what is held, joined to the pages that ask for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import trio
from prometheus_client.core import CounterMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from mlc_broker import wiring
from mlc_broker._version import __version__
from mlc_broker.config import Config
from mlc_broker.edge.http.people import Desk, JobView, shown_job
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import Grant, Principal, Scope
from mlc_broker.model.retention import DAYS_MAX
from mlc_broker.pipeline.actor import Actor
from mlc_broker.pipeline.builtin.protect import pseudonym
from mlc_broker.runtime.clock import Clock
from mlc_broker.runtime.control import Arguments, Handler
from mlc_broker.store.care import holdings
from mlc_broker.store.care.backup import back_up
from mlc_broker.store.care.erased import ERASED, ErasedList
from mlc_broker.store.care.erasure import Erasure, Forgets
from mlc_broker.store.care.jobs import Job, Jobs
from mlc_broker.store.care.purge import Expires, Purge
from mlc_broker.store.care.restored import erased_since
from mlc_broker.store.holds import Hold
from mlc_broker.store.roster import Roster
from mlc_broker.store.roster_import import import_bytes
from mlc_broker.store.store import Store

JOBS = "jobs.db"


class Place(Forgets, Expires, Protocol):
    """Somewhere that people's data is, besides the events."""


class Caring:
    """What looks after the data of people. Open it after the store and the roster."""

    def __init__(self, config: Config, store: Store, roster: Roster, clock: Clock) -> None:
        self._config, self._store, self._roster, self._clock = config, store, roster, clock
        self._key = key = wiring.secret_of(config, config.privacy.pseudonym_key_file)[:64]
        self.jobs = Jobs(wiring.data_file(config, JOBS))
        self.erased = ErasedList(wiring.data_file(config, ERASED), key)
        roster.erased_at = self.erased.erased_at
        self.erasure = Erasure(
            store,
            roster,
            self.jobs,
            self.erased,
            clock=clock,
            grace_days=config.privacy.erasure_grace_days,
            pseudonym=lambda user_id: pseudonym(user_id, key) or "",
        )
        self.purge = Purge(store, self.jobs, clock=clock, monotonic=time.monotonic)
        store.trusts_clock = self.purge.steady
        self.who_read: Callable[[str, str], Any] | None = None  # the access log, once it is there

    def close(self) -> None:
        """Let the files go."""
        self.jobs.close()

    def add_place(self, label: str, place: Place) -> None:
        """Clean a further place, when a person is erased and when things expire."""
        self.erasure.places.append((label, place))
        self.purge.places.append((label, place))

    def desk(self) -> Desk:
        """Return what the pages about people need."""
        return Desk(
            people=self._roster,
            bring=lambda data, within: import_bytes(data, self._roster, within),
            jobs=_JobDesk(self.erasure, self.jobs),
            holdings=self.holdings,
        )

    def verbs(self) -> dict[str, Handler]:
        """Return what the commands may ask over the house telephone."""
        return {
            "purge": self._purge,
            "erase": self._erase,
            "backup": self._backup,
            "hold": self._hold,
        }

    async def back_up(self, target: Path) -> dict[str, Any]:
        """Copy everything into an empty directory; commits go on meanwhile."""
        async with self._store.upkeep.standing_still():
            contents = await trio.to_thread.run_sync(
                partial(
                    back_up,
                    self._config.data_path,
                    target,
                    now=self._clock.now(),
                    broker=__version__,
                )
            )
        return {"files": len(contents.files), "bytes": contents.bytes, "directory": str(target)}

    async def erase_again(self, lists: list[Path]) -> int:
        """After a restore: write down who was erased since, and hide them at once; return how many."""
        people = await trio.to_thread.run_sync(
            erased_since, self.erased, lists, self._key, self._store, self._roster
        )
        for organization_id, user_id in people:
            await self._store.hide(organization_id, user_id)
            await self.erasure.erase(
                organization_id, user_id, requested_by="restore", immediately=True
            )
        return len(people)

    async def _purge(self, asked: Arguments) -> dict[str, Any]:
        if asked.get("dry_run"):
            done = await self.purge.would_purge()
        else:
            done = await self.purge.purge(confirmed=bool(asked.get("confirm")))
        told: dict[str, Any] = msgspec.to_builtins(done)
        return told

    async def _erase(self, asked: Arguments) -> dict[str, Any]:
        job = await self.erasure.erase(
            asked["organization_id"],
            asked["user_id"],
            requested_by=asked.get("requested_by", "command line"),
            immediately=bool(asked.get("immediately")),
        )
        told: dict[str, Any] = msgspec.to_builtins(_view(job))
        return told

    async def _hold(self, asked: Arguments) -> dict[str, Any]:
        """Begin a legal hold, or end one (`end`)."""
        organization_id, user_id = asked["organization_id"], asked.get("user_id", "")
        if asked.get("end"):
            ended = await self._store.end_hold(organization_id, user_id)
            self.erasure.look_again()
            return {"ended": ended}
        hold = Hold(
            organization_id=organization_id,
            user_id=user_id,
            pseudonym=(pseudonym(user_id, self._key) or "") if user_id else "",
            reason=asked["reason"],
            set_by=asked.get("set_by", "command line"),
            at=self._clock.now(),
        )
        await self._store.hold(hold)
        told: dict[str, Any] = msgspec.to_builtins(hold)
        return told

    async def _backup(self, asked: Arguments) -> dict[str, Any]:
        return await self.back_up(Path(asked["directory"]))

    async def holdings(self, principal: Principal) -> dict[str, Any]:
        """Return what is held about who asks: events, retention, consents, who has read them."""
        organization_id, user_id = principal.organization_id or "", principal.id
        scope = Scope(
            organization_id=organization_id, grants=(Grant(user_ids=frozenset({user_id})),)
        )
        wanted = self._store.select(scope, Filter(user_id=frozenset({user_id})))
        views = self._store.views(wanted)
        held = await trio.to_thread.run_sync(holdings.count, views, wanted)
        organization = self._roster.organization(organization_id)
        days = dict(DAYS_MAX)
        for name, own in (organization.retention_days if organization else {}).items():
            days[name] = min(days[name], own)
        user = self._roster.user(organization_id, user_id)
        history = await trio.to_thread.run_sync(
            self._roster.consent_history, organization_id, user_id
        )
        readers = await self.who_read(organization_id, user_id) if self.who_read else []
        return {
            "user_id": user_id,
            "organization_id": organization_id,
            "events": holdings.as_dict(held),
            "retention_days": days,
            "roster": None if user is None else msgspec.to_builtins(user),
            "consents": msgspec.to_builtins(self._roster.consents_of(organization_id, user_id)),
            "consent_history": msgspec.to_builtins(history),
            "read_by": msgspec.to_builtins(readers),
        }


class Removed(Collector):
    """How much protect has taken out of events, asked for when somebody reads the figures."""

    def __init__(self, steps: Callable[[], Iterable[Actor]]) -> None:
        self._steps = steps

    def collect(self) -> Iterable[Family]:
        """Return values that were removed or replaced, by part of the event."""
        words = "Values taken out of events, or replaced, since they identify somebody"
        removed = CounterMetricFamily("mlc_protect_removed_values", words, labels=["part"])
        for step in self._steps():
            for part, count in step.removed.items():
                removed.add_metric([part], count)
        return [removed]


class _JobDesk:
    """The jobs as the pages know them."""

    def __init__(self, erasure: Erasure, jobs: Jobs) -> None:
        self._erasure, self._jobs = erasure, jobs

    async def erase(
        self, organization_id: str, user_id: str, *, requested_by: str, immediately: bool
    ) -> JobView:
        """Write an erasure down."""
        return _view(
            await self._erasure.erase(
                organization_id, user_id, requested_by=requested_by, immediately=immediately
            )
        )

    async def find(self, job_id: str) -> JobView | None:
        """Return the job."""
        job = await trio.to_thread.run_sync(self._jobs.find, job_id)
        return None if job is None else _view(job)

    async def cancel(self, job_id: str) -> JobView | None:
        """Cancel a job that waits."""
        job = await trio.to_thread.run_sync(self._jobs.cancel, job_id)
        return None if job is None else _view(job)


def _view(job: Job) -> JobView:
    return shown_job(
        job_id=job.id,
        kind=job.kind,
        state=job.state,
        due=job.due,
        requested_at=job.requested_at,
        finished_at=job.finished_at,
        organization_id=job.organization_id,
        detail=job.detail,
        report=job.report,
    )
