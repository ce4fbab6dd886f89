"""Exact deduplication: the 16-byte hashes of the ids that were stored, in memory.

Hashes lie in tables of buckets, one a generation. A generation is closed when it is full or
old, and forgotten as a whole when its ids are beyond the window. The full 16 bytes are compared,
so a hit is exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from mlc_broker.model.event import Event

Hashes = NDArray[np.uint64]  # two words an id
_LOAD_MAX = 0.5
_ONE = np.uint64(1)
_SLOTS_MIN = 1 << 16
_SLOTS_MAX = 1 << 25
_GROWTH = 2
_ORGANIZATIONS_MAX = 10_000  # whose keys are remembered
_LANES = 8  # of a bucket: one line of a processor's cache
_SLOT_BYTES = 18  # about, with what is spilled of a full table
_SPILLED_BYTES = 120  # that one costs in a set
_PLACE_BITS = np.uint64(32)  # of a word that is sorted: the rest is the bucket
_PLACE = np.uint64(2**32 - 1)
_STEP = 1 << 15
_FEW = 6  # below this many ids, plain Python is faster than NumPy


class Hasher:
    """Turns (organization, event_id) into 16 bytes that nobody can aim at without the key."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._begun: dict[str | None, Callable[[], hashlib.blake2b]] = {}

    def hash(self, organization_id: str | None, event_id: str) -> bytes:
        """Return the id's hash."""
        blake = (self._begun.get(organization_id) or self._begin(organization_id))()
        blake.update(event_id.encode())
        return blake.digest()

    def hash_all(self, events: Iterable[Event]) -> list[bytes]:
        """Return the hashes of these events' ids."""
        begun, hashes = self._begun, []
        for event in events:
            name = event.organization_id
            blake = (begun.get(name) or self._begin(name))()
            blake.update(event.event_id.encode())
            hashes.append(blake.digest())
        return hashes

    def _begin(self, organization_id: str | None) -> Callable[[], hashlib.blake2b]:
        # A copy of a hash that has taken its key already costs half of a new one.
        if len(self._begun) >= _ORGANIZATIONS_MAX:
            self._begun.clear()
        name = (organization_id or "").encode()
        key = hashlib.blake2b(name, key=self._key).digest()
        made = self._begun[organization_id] = hashlib.blake2b(digest_size=16, key=key).copy
        return made


class IdTable:
    """One generation: a set of hashes of fixed capacity.

    A hash has its place in one bucket of eight: so a look-up is one gather and one comparison for all
    that are asked, however full the table is. The few that find their bucket full are spilled.
    """

    def __init__(self, slots: int) -> None:
        if slots & (slots - 1) or slots < _LANES:
            raise ValueError("slots must be a power of two")
        buckets = slots // _LANES
        self._low = np.zeros((buckets, _LANES), np.uint64)  # 0: free
        self._high = np.zeros((buckets, _LANES), np.uint64)
        self._taken = np.zeros(buckets, np.uint8)  # lanes of each bucket
        self._spilled: set[bytes] = set()
        self._mask = np.uint64(buckets - 1)
        self._slots = slots
        self.count = 0
        self.newest_ms = 0

    @property
    def room(self) -> int:
        """How many ids still fit."""
        return int(self._slots * _LOAD_MAX) - self.count

    @property
    def slots(self) -> int:
        """How many places it has."""
        return self._slots

    @property
    def size_bytes(self) -> int:
        """Memory that the table takes when full, in bytes."""
        spilled = len(self._spilled) * _SPILLED_BYTES
        return self._low.nbytes + self._high.nbytes + self._taken.nbytes + spilled

    def known(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Return for each hash whether it is in the table."""
        found = np.zeros(len(hashes), np.bool_)
        bucket = hashes[:, 0] & self._mask
        low = self._low.take(bucket.view(np.int64), axis=0)
        like, lane = np.nonzero(low == hashes[:, :1])
        if like.size:
            same = self._high[bucket[like], lane] == hashes[like, 1]
            found[like[same]] = True
        if self._spilled:
            for at in np.flatnonzero((low[:, -1] != 0) & ~found).tolist():
                found[at] = hashes[at].tobytes() in self._spilled
        return found

    def knows(self, h: bytes) -> bool:
        """Return whether one hash is in the table; for few of them."""
        low = int.from_bytes(h[:8], "little") or 1
        bucket = low & int(self._mask)
        lanes = self._low[bucket].tolist()
        if low in lanes:
            high = int.from_bytes(h[8:], "little")
            both = zip(lanes, self._high[bucket].tolist(), strict=True)
            if (low, high) in both:
                return True
        return bool(lanes[-1]) and low.to_bytes(8, "little") + h[8:] in self._spilled

    def add(self, hashes: Hashes) -> None:
        """Put in hashes; one that is in already takes a place more."""
        # Bucket and place in one word: NumPy sorts words six times as fast as it tells their order.
        words = hashes[:, 0] & self._mask
        words <<= _PLACE_BITS
        words |= np.arange(len(hashes), dtype=np.uint64)
        words.sort()
        for at in range(0, len(words), _STEP):  # small enough to stay in a processor's cache
            some = words[at : at + _STEP]
            self._put(hashes.take((some & _PLACE).view(np.int64), axis=0), some >> _PLACE_BITS)
        self.count += len(hashes)

    def _put(self, hashes: Hashes, bucket: NDArray[np.uint64]) -> None:
        # Those of one bucket stand together: each takes the lane behind the one before it.
        at = np.arange(len(bucket))
        begins = np.ones(len(bucket), np.bool_)
        begins[1:] = bucket[1:] != bucket[:-1]
        lane = self._taken[bucket] + (at - np.maximum.accumulate(np.where(begins, at, 0)))
        fits = lane < _LANES
        self._taken[bucket] = np.minimum(lane + 1, _LANES)  # of one bucket, the last one holds
        if not fits.all():
            self._spilled.update(h.tobytes() for h in hashes[~fits])
            hashes, bucket, lane = hashes[fits], bucket[fits], lane[fits]
        self._low[bucket, lane] = hashes[:, 0]
        self._high[bucket, lane] = hashes[:, 1]


class Ids:
    """All generations together."""

    def __init__(self, *, window_ms: int, bytes_max: int) -> None:
        self._window_ms = window_ms
        self._bytes_max = bytes_max
        self._tables: list[IdTable] = []
        self._begun_ms = 0

    def __len__(self) -> int:
        return sum(table.count for table in self._tables)

    @property
    def size_bytes(self) -> int:
        """Memory that the tables take, in bytes."""
        return sum(table.size_bytes for table in self._tables)

    @property
    def full(self) -> bool:
        """Whether the memory limit is reached: then nothing new can be taken."""
        size = self.size_bytes
        room = bool(self._tables) and self._tables[-1].room > 0
        return size > self._bytes_max or (
            size > 0 and not room and size + _SLOTS_MIN * _SLOT_BYTES > self._bytes_max
        )

    def known(self, hashes: list[bytes]) -> list[bool]:
        """Return for each hash whether it was added and not forgotten."""
        if len(hashes) < _FEW:
            return [self._knows(h) for h in hashes]
        array = as_hashes(b"".join(hashes))
        found = np.zeros(len(array), np.bool_)
        for table in self._tables:
            found |= table.known(array)
        answer: list[bool] = found.tolist()
        return answer

    def add(self, hashes: Hashes, received_ms: int) -> None:
        """Add hashes, received until then (epoch ms). One that is in already costs a slot more."""
        at = 0
        while at < len(hashes):
            table = self._open_table(received_ms, len(hashes) - at)
            part = hashes[at : at + table.room]
            table.add(part)
            table.newest_ms = max(table.newest_ms, received_ms)
            at += len(part)

    def load(self, hashes: Hashes, received_ms: int) -> None:
        """Add very many at once, at the start: into tables of their own, each filled in one go."""
        most = int(_SLOTS_MAX * _LOAD_MAX)
        for at in range(0, len(hashes), most):
            part = hashes[at : at + most]
            table = IdTable(max(len_power(len(part)), _SLOTS_MIN))
            table.add(part)
            table.newest_ms = self._begun_ms = received_ms
            self._tables.append(table)

    def forget(self, before_ms: int) -> int:
        """Forget generations whose newest id was received before then; return how many ids."""
        old = [table for table in self._tables if table.newest_ms < before_ms]
        self._tables = [table for table in self._tables if table.newest_ms >= before_ms]
        return sum(table.count for table in old)

    def _knows(self, h: bytes) -> bool:
        return any(table.knows(h) for table in self._tables)

    def _open_table(self, now_ms: int, wanted: int) -> IdTable:
        last = self._tables[-1] if self._tables else None
        old = now_ms - self._begun_ms > self._window_ms // 4
        if last is not None and last.room > 0 and not (old and last.count):
            return last
        slots = _SLOTS_MIN
        if last is not None:
            # A day's shape repeats: as large as the last one was full, or larger when it overflowed.
            slots = len_power(last.count) if last.room > 0 else last.slots * _GROWTH
        slots = min(max(slots, len_power(wanted), _SLOTS_MIN), _SLOTS_MAX)
        left = self._bytes_max - self.size_bytes  # what is left is used up by smaller ones
        while slots > _SLOTS_MIN and slots * _SLOT_BYTES > left:
            slots //= 2
        self._tables.append(IdTable(slots))
        self._begun_ms = now_ms
        return self._tables[-1]


def as_hashes(ids: bytes) -> Hashes:
    """Return packed ids as words; 0 marks a free slot, so a low word of 0 becomes 1."""
    array = np.frombuffer(ids, "<u8").reshape(-1, 2)
    if (array[:, 0] == 0).any():
        array = array.copy()
        array[array[:, 0] == 0, 0] = 1
    return array


def is_ids(value: object) -> bool:
    """Whether a value read from a file can be packed ids: it may be damaged."""
    return isinstance(value, bytes) and len(value) % 16 == 0


def len_power(count: int) -> int:
    """Return the smallest power of two of slots that holds so many ids."""
    slots = 1
    while slots * _LOAD_MAX < count:
        slots *= 2
    return slots
