"""Ingest keys and anonymous keys: made, listed and revoked by a command, known to the daemon at once.

A key is `mlc_ik_<id>_<secret>`. The file holds its id and a keyed hash of its secret: 256 random
bits need no slow hash, and without the pepper file the hashes are of no use.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct
from sqlite_utils import Database
from sqlite_utils.utils import sqlite3

from mlc_broker.model.errors import NotFound, ShardUnavailable, Unauthenticated
from mlc_broker.model.event import rfc3339
from mlc_broker.model.principal import CATEGORIES, Principal

PREFIXES: dict[str, Literal["ingest", "anonymous"]] = {"mlc_ik": "ingest", "mlc_ak": "anonymous"}
CHECK_SECONDS_MAX = 0.5  # between two looks at the file: a revoked key ends within twice that


class KeyRecord(Struct, frozen=True, kw_only=True):
    """What may be shown of a key: everything but its secret."""

    id: str
    kind: Literal["ingest", "anonymous"]
    organization_id: str
    name: str
    created_at: str
    revoked_at: str | None = None
    may_write_roster: bool = False
    categories: list[str] = []


def create_key(
    path: Path,
    pepper: bytes,
    *,
    organization_id: str,
    name: str,
    now: datetime,
    anonymous: bool = False,
    categories: frozenset[str] = frozenset(),
    may_write_roster: bool = False,
) -> str:
    """Make a key and return its text, which is told this once. It works when this returns."""
    unknown = sorted(categories - set(CATEGORIES))
    if unknown:
        raise ValueError(f"There is no category {unknown[0]}; there are {', '.join(CATEGORIES)}.")
    if anonymous != bool(categories):
        raise ValueError("An anonymous key names its categories; an ingest key names none.")
    if anonymous and may_write_roster:
        raise ValueError("An anonymous key cannot write the roster.")
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    kind = "anonymous" if anonymous else "ingest"
    with _written(path) as database:
        database.table("keys").insert(
            {
                "id": key_id,
                "kind": kind,
                "organization_id": organization_id,
                "name": name,
                "hash": _hash(pepper, key_id, secret),
                "categories": msgspec.json.encode(sorted(categories)).decode(),
                "may_write_roster": int(may_write_roster),
                "created_at": rfc3339(now),
                "revoked_at": None,
            }
        )
    return f"{'mlc_ak' if anonymous else 'mlc_ik'}_{key_id}_{secret}"


def revoke_key(path: Path, key_id: str, now: datetime) -> None:
    """End a key; raises NotFound. Open sockets that came with it end within 1 s."""
    with _written(path) as database:
        if not database["keys"].count_where("id = ?", [key_id]):
            raise NotFound(f"There is no key {key_id}: `mlc-broker keys list` shows their ids.")
        database.execute(
            "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL",
            [rfc3339(now), key_id],
        )
        database.conn.commit()


def list_keys(path: Path) -> list[KeyRecord]:
    """Return every key ever made, oldest first, revoked ones included."""
    with _written(path) as database:
        return [_record(row) for row in database["keys"].rows_where(order_by="created_at, id")]


def load_pepper(path: Path) -> bytes:
    """Return the pepper, made at the first call: 32 random bytes that only the owner can read."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pepper = path.read_bytes()
        if len(pepper) < 32:
            raise ShardUnavailable(
                f"{path} is too short to be a pepper.",
                hint="Restore it from a backup; without it every key must be made anew.",
            ) from None
        return pepper
    pepper = secrets.token_bytes(32)
    with os.fdopen(handle, "wb") as file:
        file.write(pepper)
        file.flush()
        os.fsync(file.fileno())
    return pepper


class KeyBook:
    """The keys as the daemon knows them: in memory, read anew when another process changed them."""

    def __init__(
        self, path: Path, pepper: bytes, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Open the file, or make it."""
        with _written(path):
            pass
        self._pepper = pepper
        self._now = monotonic
        self._connection: Any = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=0.2
        )
        self._connection.execute("PRAGMA query_only = 1")
        self._version = -1
        self._checked_at = -CHECK_SECONDS_MAX
        self._known: dict[str, tuple[str, Principal]] = {}
        self._look(force=True)

    def verify(self, text: str) -> Principal:
        """Return whom a key speaks for; raises Unauthenticated."""
        prefix, _, rest = text[:7].rpartition("_")[0], "", text[7:]
        key_id, _, secret = rest.partition("_")
        self._look(force=key_id not in self._known)
        known, principal = self._known.get(key_id, ("", _NOBODY))
        # Unknown ids take the same way, so that the time tells nothing.
        right = hmac.compare_digest(known or _NO_HASH, _hash(self._pepper, key_id, secret))
        if not right or PREFIXES.get(prefix) != principal.kind:
            raise Unauthenticated("This key is not known, or it was revoked.")
        return principal

    def is_current(self, key_id: str) -> bool:
        """Tell whether a key still holds; at most `CHECK_SECONDS_MAX` behind the file."""
        self._look(force=False)
        return key_id in self._known

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _look(self, *, force: bool) -> None:
        now = self._now()
        if not force and now - self._checked_at < CHECK_SECONDS_MAX:
            return
        self._checked_at = now
        try:
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
            if version == self._version:
                return
            rows = self._connection.execute(
                "SELECT id, kind, organization_id, hash, categories, may_write_roster "
                "FROM keys WHERE revoked_at IS NULL"
            ).fetchall()
        except sqlite3.OperationalError:
            return  # busy for a moment: what was known holds until the next look
        self._known = {row[0]: (row[3], _principal(row)) for row in rows}
        self._version = version


class _written:  # noqa: N801 - used as a function
    """The file open for one change: other processes may have it open too."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Database:
        connection = sqlite3.connect(str(self._path), timeout=5.0)
        self._path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        self._database = Database(connection)
        self._database.table("keys").create(_COLUMNS, pk="id", if_not_exists=True)
        return self._database

    def __exit__(self, *exc: object) -> None:
        self._database.conn.close()


_COLUMNS: dict[str, Any] = {
    "id": str,
    "kind": str,
    "organization_id": str,
    "name": str,
    "hash": str,
    "categories": str,
    "may_write_roster": int,
    "created_at": str,
    "revoked_at": str,
}
_NO_HASH = "0" * 64
_NOBODY = Principal(kind="user", id="")


def _hash(pepper: bytes, key_id: str, secret: str) -> str:
    said = f"{key_id}_{secret}".encode("utf-8", "replace")
    return hmac.new(pepper, said, hashlib.sha256).hexdigest()


def _record(row: dict[str, Any]) -> KeyRecord:
    return KeyRecord(
        id=row["id"],
        kind=row["kind"],
        organization_id=row["organization_id"],
        name=row["name"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
        may_write_roster=bool(row["may_write_roster"]),
        categories=msgspec.json.decode(row["categories"], type=list[str]),
    )


def _principal(row: tuple[Any, ...]) -> Principal:
    key_id, kind, organization_id, _, categories, roster = row
    return Principal(
        kind=kind,
        id=key_id,
        organization_id=organization_id,
        categories=frozenset(msgspec.json.decode(categories, type=list[str]))
        if kind == "anonymous"
        else None,
        may_write_roster=bool(roster),
    )


def utc_now() -> datetime:
    """Return the time, for a command that has no Clock."""
    return datetime.now(UTC)
