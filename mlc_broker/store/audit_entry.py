"""One entry of the access log, the seals that chain the entries, and the sealed head."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from struct import pack as pack_struct
from typing import Any, Self

import msgspec
from msgspec import Struct

NO_SEAL = bytes(32)


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who read what of whom, when, why, and how much."""

    who: str
    role: str
    action: str  # events.list, events.get, export.begin, export.end, live, metrics, audit.read …
    at: str = ""  # RFC 3339; set when it is recorded
    asker_organization_id: str | None = None
    organization_id: str | None = None  # whose events; None: across organizations
    filters: dict[str, Any] = {}
    subjects: dict[str, list[str]] = {}  # organization → other people whose events were read
    subjects_count: int = 0
    more_subjects: bool = False  # more people than are named, or not known yet
    count: int = 0  # events that left
    purpose: str = ""  # as stated; empty: unstated
    ferpa_class: str = "exempt:school_official"
    detail: str = ""


class Head(Struct, frozen=True):
    """How far the log goes."""

    number: int
    seal: bytes

    @classmethod
    def read(cls, path: Path, key: bytes) -> Self | None:
        """Return the head, if there is one and it is ours."""
        try:
            number, seal, proof = path.read_text("ascii").split()
            head = cls(int(number), bytes.fromhex(seal))
        except (OSError, ValueError):
            return None
        return head if hmac.compare_digest(proof, head.proof(key)) else None

    def write(self, path: Path, key: bytes) -> None:
        """Put the head in the place of the one before, whole or not at all."""
        fresh = path.with_name(path.name + ".new")
        handle = os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        try:
            os.write(handle, f"{self.number} {self.seal.hex()} {self.proof(key)}\n".encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        fresh.replace(path)

    def proof(self, key: bytes) -> str:
        """Return what only the holder of the key can say of this head."""
        return hashlib.blake2b(
            b"head" + pack_struct("<q", self.number) + self.seal, key=key, digest_size=32
        ).hexdigest()


class Verdict(Struct, gc=False):
    """What a walk along the chain found."""

    entries: int = 0
    head: str = ""  # the last entry's number and seal, to be noted elsewhere
    faults: list[str] = msgspec.field(default_factory=list)


def seal_of(key: bytes, before: bytes, number: int, body: bytes) -> bytes:
    """Return the seal of an entry behind the seal before it."""
    text = before + pack_struct("<q", number) + body
    return hashlib.blake2b(text, key=key, digest_size=32).digest()
