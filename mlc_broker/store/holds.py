"""Legal holds: what must not be deleted, although it has expired or its person is to be erased."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from mlc_broker.store.layout import META
from mlc_broker.store.schema import READ_ERRORS, open_reader

Held = frozenset[tuple[str, str]]  # (organization, user); user "" is everybody of it
QUERY = "SELECT organization_id, user_id, pseudonym, reason, set_by, at_ms FROM hold ORDER BY 1, 2"


class Hold(Struct, frozen=True, kw_only=True):
    """One hold: on a person, or on a whole organization."""

    organization_id: str
    user_id: str = ""  # empty: everybody of the organization
    pseudonym: str = ""  # under which the person's anonymous events stand
    reason: str
    set_by: str
    at: datetime


def held_by(holds: Iterable[Hold]) -> Held:
    """Return whom these holds protect, pseudonyms included."""
    return frozenset(
        (hold.organization_id, name)
        for hold in holds
        for name in ({hold.user_id, hold.pseudonym} - {""} or {""})
    )


def is_held(held: Held, organization_id: str, user_id: str) -> bool:
    """Say whether a person is held, or all of their organization."""
    return not held.isdisjoint({(organization_id, ""), (organization_id, user_id)})


def hold_of(row: tuple[Any, ...]) -> Hold:
    """Return the hold that a row of QUERY is."""
    return Hold(
        organization_id=row[0],
        user_id=row[1],
        pseudonym=row[2],
        reason=row[3],
        set_by=row[4],
        at=datetime.fromtimestamp(row[5] / 1000, UTC),
    )


def holds_in(directory: Path) -> list[Hold]:
    """Read the holds of a data directory, a daemon's too; none where there is nothing yet."""
    path = directory / META
    if not path.exists():
        return []
    connection = open_reader(path)
    try:
        return [hold_of(row) for row in connection.execute(QUERY).fetchall()]
    except READ_ERRORS:
        return []  # made before there were holds
    finally:
        connection.close()


def knows_any(path: Path, held: Held) -> bool:
    """Say whether a home may have events of what is held: whether it knows the words."""
    connection = open_reader(path)
    try:
        for organization_id, user_id in held:
            words = {organization_id, user_id} - {""}
            marks = ",".join("?" * len(words))
            query = f"SELECT count(*) FROM word WHERE word IN ({marks})"
            if connection.execute(query, tuple(words)).fetchone()[0] == len(words):
                return True
        return False
    finally:
        connection.close()
