"""Who was erased, and when: so that nobody comes back with a resend or an old backup.

`erased.jsonl`: one signed line an erasure begun, and one when it is done, with what was deleted.
A person stands in it as a keyed hash, which says nothing without the key. Each line signs the one
before, so that none can be changed, moved or taken out unseen. Sync; lookups never wait.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from hashlib import blake2b
from hmac import compare_digest
from pathlib import Path

import msgspec
from msgspec import Struct

from mlc_broker.model.errors import StoreError

ERASED = "erased.jsonl"
_CACHED_MAX = 100_000


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. `subject` is the keyed hash of organization and person."""

    job_id: str
    subject: str
    erased_at: datetime  # what the person did until then stays away for good
    state: str  # begun, done
    requested_by: str = ""
    deleted: dict[str, int] = {}  # when it is done: how much of what
    previous: str = ""
    signature: str = ""


class ErasedList:
    """The list, in memory and on disk."""

    def __init__(self, path: Path, key: bytes) -> None:
        """Read the list; raises StoreError where a line is not as it was signed."""
        self.path = path
        self._key = key[:64]
        self._at: dict[str, datetime] = {}
        self._seen: dict[tuple[str, str], datetime | None] = {}
        self._last = ""
        for record in self.records():
            self._note(record)

    def __len__(self) -> int:
        return len(self._at)

    def subject(self, organization_id: str, user_id: str) -> str:
        """Return the keyed hash that stands for a person."""
        told = f"{organization_id}\0{user_id}".encode()
        return blake2b(told, key=self._key, digest_size=16, person=b"erased").hexdigest()

    def erased_at(self, organization_id: str, user_id: str) -> datetime | None:
        """Return when the person was erased; None: never."""
        if not self._at:
            return None
        who = (organization_id, user_id)
        if who not in self._seen:
            if len(self._seen) >= _CACHED_MAX:
                self._seen.clear()
            self._seen[who] = self._at.get(self.subject(*who))
        return self._seen[who]

    def add(self, record: Record) -> Record:
        """Sign a record and write it, durably; return it as it was written."""
        record = msgspec.structs.replace(record, previous=self._last, signature="")
        record = msgspec.structs.replace(record, signature=self._signature(record))
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, msgspec.json.encode(record) + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
        self._note(record)
        return record

    def records(self) -> Iterator[Record]:
        """Yield the lines, checked. A last line that a crash cut off is left out."""
        if not self.path.exists():
            return
        last = ""
        lines = self.path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            if number == len(lines) and not line.endswith(b"\n"):
                os.truncate(self.path, sum(map(len, lines[:-1])))
                return
            try:
                record = msgspec.json.decode(line, type=Record)
            except msgspec.DecodeError:
                raise _forged(self.path, number) from None
            unsigned = msgspec.structs.replace(record, signature="")
            fits = compare_digest(record.signature, self._signature(unsigned))
            if not fits or record.previous != last:
                raise _forged(self.path, number)
            last = record.signature
            yield record

    def take_over(self, others: Iterable[Record]) -> int:
        """Add what other lists (of newer backups) have and this one lacks; return how many."""
        count = 0
        for record in others:
            known = self._at.get(record.subject)
            if known is None or known < record.erased_at:
                self.add(record)
                count += 1
        return count

    def _note(self, record: Record) -> None:
        known = self._at.get(record.subject)
        self._at[record.subject] = max(known, record.erased_at) if known else record.erased_at
        self._seen.clear()
        self._last = record.signature

    def _signature(self, record: Record) -> str:
        text = msgspec.json.encode(record, order="deterministic")
        return blake2b(text, key=self._key, digest_size=32, person=b"signed").hexdigest()


def _forged(path: Path, number: int) -> StoreError:
    return StoreError(
        f"{path.name}: line {number} is not as it was signed",
        hint="put the former pseudonym.key back, or the file from a backup",
    )
