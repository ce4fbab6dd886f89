"""What was refused, grouped by cause, and sent through again after a fix. System Admins alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import Meta, Struct
from quart import Blueprint

from mlc_broker.edge.house import House
from mlc_broker.edge.routes import Answer, Call, Route, Says, wing
from mlc_broker.model.errors import Forbidden, Malformed
from mlc_broker.model.principal import Role

JSON = "application/json"
REPLAY_MAX = 10_000


class ReplayForm(Struct, frozen=True, forbid_unknown_fields=True):
    """Which events go through the chain again."""

    outcome: Literal["quarantined", "rejected"] = "quarantined"
    reason: Annotated[str, Meta(max_length=64)] | None = None
    limit: Annotated[int, Meta(ge=1, le=REPLAY_MAX)] = 1_000


class Causes(Struct, frozen=True):
    """What is kept, by cause."""

    causes: list[Any]
    bytes: int
    bytes_max: int


class Replayed(Struct, frozen=True, kw_only=True):
    """What became of the events that were sent through again."""

    replayed: int
    stored: int = 0
    duplicate: int = 0
    dropped: int = 0
    rejected: int = 0
    quarantined: int = 0
    retry: int = 0


class Ward(Protocol):
    """The quarantine, as these pages need it."""

    async def causes(self) -> Causes:
        """Return what is kept, grouped by cause."""

    async def replay(self, wanted: ReplayForm) -> Replayed:
        """Send events through the whole chain again."""


def quarantine_wing(house: House, ward: Ward) -> tuple[Blueprint, Sequence[Route]]:
    """Return the blueprint of these pages and its routes."""

    async def causes(call: Call) -> Answer:
        _only_system_admins(call)
        return Answer(await ward.causes())

    async def replay(call: Call) -> Answer:
        _only_system_admins(call)
        data = await call.request.get_data(as_text=False)
        try:
            wanted = msgspec.json.decode(data, type=ReplayForm) if data else ReplayForm()
        except msgspec.DecodeError as error:
            raise Malformed(f"The body does not fit: {error}"[:500]) from None
        return Answer(await ward.replay(wanted))

    routes = _routes(causes, replay)
    return wing("quarantine", routes, house), routes


def _routes(
    causes: Callable[[Call], Awaitable[Answer]], replay: Callable[[Call], Awaitable[Answer]]
) -> list[Route]:
    return [
        Route(
            "GET",
            "/v1/quarantine",
            "What was rejected or broke a processor, by cause",
            causes,
            answers={200: Says(Causes)},
        ),
        Route(
            "POST",
            "/v1/quarantine/replay",
            "Send what was refused through the chain again",
            replay,
            bodies={JSON: ReplayForm},
            answers={200: Says(Replayed)},
            description="Without a body: everything that broke a processor, oldest first. Doing it "
            "twice stores nothing twice.",
        ),
    ]


def _only_system_admins(call: Call) -> None:
    if call.person.role is not Role.SYSTEM_ADMIN:
        raise Forbidden("The quarantine is a System Admin's.")
