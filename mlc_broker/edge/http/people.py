"""Who people are, what they agreed to, what is held about them, and how they are forgotten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Protocol

import msgspec
import trio
from msgspec import Meta, Struct
from quart import Blueprint

from mlc_broker.edge.house import House
from mlc_broker.edge.problems import Problem
from mlc_broker.edge.routes import Answer, Call, Route, Says, wing
from mlc_broker.model.errors import ClientError, Forbidden, Malformed, NotFound
from mlc_broker.model.event import rfc3339
from mlc_broker.model.person import (
    ConsentEntry,
    ConsentForm,
    ConsentState,
    Word,
)
from mlc_broker.model.principal import Principal, Role

ZIP = "application/zip"
ZIP_SPELLINGS = (ZIP, "application/x-zip-compressed", "application/octet-stream")
JSON = "application/json"
ROSTER_BYTES_MAX = 64 << 20  # a OneRoster zip of some 500,000 people
RECORD_BYTES_MAX = 1 << 20
_ADMINS = frozenset({Role.SYSTEM_ADMIN, Role.SUBSCRIBER_ADMIN})


class People(Protocol):
    """The roster, as these pages need it. What changes it is called in a worker thread."""

    def put(
        self, kind: str, key: str, record: Mapping[str, Any], *, within: str | None = None
    ) -> None:
        """Create or replace a record; raises NotFound, Malformed, Forbidden."""

    def organizations_of(self, user_id: str) -> list[str]:
        """Return the organizations that know a person of that id."""

    def consents_of(self, organization_id: str, user_id: str) -> dict[str, ConsentState]:
        """Return what holds for each category."""

    def consent_history(self, organization_id: str, user_id: str) -> list[ConsentEntry]:
        """Return every word that was given, oldest first; thread-side."""

    def put_consent(
        self, organization_id: str, user_id: str, words: ConsentForm, *, given_by: str = ""
    ) -> None:
        """Add words to the person's history; thread-side."""


class JobView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A long piece of work, as `GET /v1/jobs/{id}` shows it. Times are RFC 3339."""

    id: str
    kind: str
    state: str  # waiting, running, done, failed, cancelled
    due: str
    organization_id: str | None = None
    requested_at: str | None = None
    finished_at: str | None = None
    detail: str = ""
    report: dict[str, Any] = {}


class Jobs(Protocol):
    """Who forgets people, and remembers that it has to."""

    async def erase(
        self, organization_id: str, user_id: str, *, requested_by: str, immediately: bool
    ) -> JobView:
        """Write the job down, then return it."""

    async def find(self, job_id: str) -> JobView | None:
        """Return the job."""

    async def cancel(self, job_id: str) -> JobView | None:
        """Cancel a job that has not begun; return it as it is then."""


class Desk(Struct, frozen=True, kw_only=True):
    """What these pages need from the rest of the house."""

    people: People
    bring: Callable[[bytes, str | None], Any]  # a OneRoster zip or JSON file; thread-side
    jobs: Jobs
    holdings: Callable[[Principal], Awaitable[dict[str, Any]]]  # what `/v1/me/data` answers


class Conflict(ClientError):
    """It cannot be done any more."""

    code = "conflict"
    status = 409


class OfOrganization(Struct, frozen=True, forbid_unknown_fields=True):
    """A System Admin names the organization."""

    organization_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class Erasing(Struct, frozen=True, forbid_unknown_fields=True):
    """How a person is forgotten."""

    organization_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    immediately: Annotated[bool, Meta(description="without the days of grace")] = False


class ConsentView(Struct, frozen=True, kw_only=True):
    """What a person agreed to: the words by category as `PUT` takes them, and the story behind."""

    user_id: str
    organization_id: str
    user_interaction: Word | None
    learning_progress: Word | None
    system_performance: Word | None
    business_intelligence: Word | None
    consents: dict[str, ConsentState]  # what holds, by category, who said it and when
    history: list[ConsentEntry]  # oldest first


async def put_record(call: Call, desk: Desk) -> Answer:
    """Create or replace one record of the roster."""
    within = _writes_roster_of(call.principal)
    record = await call.body_as(dict[str, Any])
    await trio.to_thread.run_sync(
        partial(desk.people.put, call.path["kind"], call.path["id"], record, within=within)
    )
    return Answer(status=204)


async def bring_roster(call: Call, desk: Desk) -> Answer:
    """Load a whole file into the roster."""
    within = _writes_roster_of(call.principal)
    asked = call.query_as(OfOrganization).organization_id
    if within is not None and asked not in (None, within):
        raise Forbidden(f"This credential writes the roster of {within!r} alone.")
    report = await trio.to_thread.run_sync(desk.bring, await call.body(), asked or within)
    return Answer(report)


async def get_consents(call: Call, desk: Desk) -> Answer:
    """Answer what a person agreed to."""
    organization_id, user_id = _person(call, desk, itself=True)
    return Answer(await _consents(desk, organization_id, user_id))


async def put_consents(call: Call, desk: Desk) -> Answer:
    """Take a person's words; they hold for the next event."""
    organization_id, user_id = _person(call, desk, itself=True)
    form = await call.body_as(ConsentForm)
    if not form.collect() and not form.disclose:
        raise Malformed(
            'There is no word in it: write for instance {"user_interaction": "denied"}.'
        )
    form = msgspec.structs.replace(form, given_by=form.given_by or call.principal.id)
    await trio.to_thread.run_sync(desk.people.put_consent, organization_id, user_id, form)
    return Answer(await _consents(desk, organization_id, user_id))


async def erase(call: Call, desk: Desk) -> Answer:
    """Begin to forget a person."""
    if call.person.role not in _ADMINS:
        raise Forbidden("People are erased by a Subscriber-Admin or a System Admin.")
    organization_id, user_id = _person(call, desk, itself=False)
    job = await desk.jobs.erase(
        organization_id,
        user_id,
        requested_by=call.principal.id,
        immediately=call.query_as(Erasing).immediately,
    )
    return Answer(job, 202, headers={"location": f"/v1/jobs/{job.id}"})


async def job(call: Call, desk: Desk) -> Answer:
    """Answer how a job stands."""
    return Answer(await _job(call, desk))


async def cancel_job(call: Call, desk: Desk) -> Answer:
    """Cancel a job that has not begun."""
    before = await _job(call, desk)
    after = await desk.jobs.cancel(before.id)
    if after is None:
        raise _no_job()
    if after.state != "cancelled":
        raise Conflict(f"The job is {after.state}: only one that is waiting can be cancelled.")
    return Answer(after)


async def my_data(call: Call, desk: Desk) -> Answer:
    """Answer what is held about who asks."""
    return Answer(await desk.holdings(call.person))


# ── who may ──────────────────────────────────────────────────────────────────────────────────────


def _writes_roster_of(principal: Principal) -> str | None:
    """Return the one organization the principal may write, None for all; raises Forbidden."""
    if principal.role is Role.SYSTEM_ADMIN:
        return None
    writer = principal.role is Role.SUBSCRIBER_ADMIN or principal.may_write_roster
    if writer and principal.organization_id is not None:
        return principal.organization_id
    raise Forbidden(
        "The roster is written by a System Admin, a Subscriber-Admin, or a key made with --roster."
    )


def _person(call: Call, desk: Desk, *, itself: bool) -> tuple[str, str]:
    """Return organization and id of the person that the path names; raises Forbidden, Malformed."""
    principal, user_id = call.principal, call.path["user_id"]
    own = principal.organization_id
    asked = call.query_as(Erasing).organization_id
    if principal.role is Role.SYSTEM_ADMIN:
        return asked or _organization_of(desk, user_id, own), user_id
    myself = itself and principal.kind == "user" and principal.id == user_id
    admin = principal.role is Role.SUBSCRIBER_ADMIN or (itself and principal.may_write_roster)
    if own is None or not (myself or admin) or asked not in (None, own):
        raise Forbidden("This credential may not act for this person.")
    return own, user_id


def _organization_of(desk: Desk, user_id: str, own: str | None) -> str:
    known = desk.people.organizations_of(user_id)
    if len(known) == 1:
        return known[0]
    if len(known) > 1 or own is None:
        raise Malformed(
            "Several organizations know a person of this id: add ?organization_id= to say which."
        )
    return own


async def _consents(desk: Desk, organization_id: str, user_id: str) -> ConsentView:
    state = desk.people.consents_of(organization_id, user_id)
    history = await trio.to_thread.run_sync(desk.people.consent_history, organization_id, user_id)
    words: dict[Any, Word | None] = {name: held.word for name, held in state.items()}
    return ConsentView(
        user_id=user_id,
        organization_id=organization_id,
        consents=state,
        history=history,
        **words,
    )


async def _job(call: Call, desk: Desk) -> JobView:
    principal = call.person
    if principal.role not in _ADMINS:
        raise Forbidden("Jobs are seen by a Subscriber-Admin or a System Admin.")
    found = await desk.jobs.find(call.path["id"])
    if found is None or (
        principal.role is Role.SUBSCRIBER_ADMIN
        and found.organization_id != principal.organization_id
    ):
        raise _no_job()
    return found


def _no_job() -> NotFound:
    return NotFound("There is no job of this id in your scope.")


# ── the table ────────────────────────────────────────────────────────────────────────────────────


def people_wing(house: House, desk: Desk) -> tuple[Blueprint, Sequence[Route]]:
    """Return the blueprint of these pages and its routes, for `make_app`."""

    def at(handler: Callable[[Call, Desk], Awaitable[Answer]]) -> Callable[[Call], Any]:
        async def bound(call: Call) -> Answer:
            return await handler(call, desk)

        return bound

    routes = _routes(at)
    return wing("people", routes, house), routes


def _routes(at: Callable[[Any], Any]) -> list[Route]:
    return [*_roster_routes(at), *_person_routes(at)]


def _roster_routes(at: Callable[[Any], Any]) -> list[Route]:
    return [
        Route(
            "PUT",
            "/v1/roster/{kind}/{id}",
            "Create or replace one record of the roster",
            at(put_record),
            bodies={JSON: dict[str, Any]},
            answers={204: Says()},
            body_bytes_max=RECORD_BYTES_MAX,
            description="`kind`: organizations, users, classes or enrollments. In force for the "
            "next event and the next query.",
        ),
        Route(
            "POST",
            "/v1/roster/oneroster",
            "Load a OneRoster 1.1 or 1.2 CSV zip",
            at(bring_roster),
            query=OfOrganization,
            bodies={**dict.fromkeys(ZIP_SPELLINGS), JSON: dict[str, dict[str, Any]]},
            answers={200: Says(dict[str, Any], "What was loaded, and which rows were not and why")},
            body_bytes_max=ROSTER_BYTES_MAX,
            description="A JSON object of `organizations`, `users`, `classes` and `enrollments`, "
            "each by id, is taken too.",
        ),
    ]


def _person_routes(at: Callable[[Any], Any]) -> list[Route]:
    conflict = {409: Says(Problem, "It has begun, or is over")}
    return [
        Route(
            "GET",
            "/v1/consents/{user_id}",
            "What a person agreed to",
            at(get_consents),
            query=OfOrganization,
            answers={200: Says(ConsentView)},
        ),
        Route(
            "PUT",
            "/v1/consents/{user_id}",
            "A person's words, in force for the next event",
            at(put_consents),
            query=OfOrganization,
            bodies={JSON: ConsentForm},
            answers={200: Says(ConsentView)},
            body_bytes_max=RECORD_BYTES_MAX,
        ),
        Route(
            "DELETE",
            "/v1/users/{user_id}",
            "Forget a person",
            at(erase),
            query=Erasing,
            answers={202: Says(JobView, "It is written down and will be done")},
        ),
        Route("GET", "/v1/jobs/{id}", "How a job stands", at(job), answers={200: Says(JobView)}),
        Route(
            "DELETE",
            "/v1/jobs/{id}",
            "Cancel a job that has not begun",
            at(cancel_job),
            answers={200: Says(JobView), **conflict},
        ),
        Route(
            "GET",
            "/v1/me/data",
            "What is held about me, and who has read it",
            at(my_data),
            answers={200: Says(dict[str, Any])},
        ),
    ]


def shown_job(
    *,
    job_id: str,
    kind: str,
    state: str,
    due: Any,
    requested_at: Any,
    finished_at: Any,
    organization_id: str | None,
    detail: str,
    report: dict[str, Any],
) -> JobView:
    """Return a job as these pages show it; times are datetimes or None."""
    return JobView(
        id=job_id,
        kind=kind,
        state=state,
        due=rfc3339(due),
        organization_id=organization_id,
        requested_at=None if requested_at is None else rfc3339(requested_at),
        finished_at=None if finished_at is None else rfc3339(finished_at),
        detail=detail,
        report=report,
    )
