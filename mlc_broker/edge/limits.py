"""How much in how short a time: token buckets a key, an organization and an address."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from mlc_broker.model.errors import RateLimited
from mlc_broker.model.principal import Principal


class Rates(Struct, frozen=True, kw_only=True):
    """What each of a kind may send; None: no limit of its own. A burst lasts `burst_seconds`."""

    key_events_per_second_max: float | None = None  # an ingest or anonymous key
    user_events_per_second_max: float | None = None  # the bearer of a user token
    key_bytes_per_second_max: float | None = None
    organization_events_per_second_max: float | None = None
    organization_bytes_per_second_max: float | None = None
    address_events_per_second_max: float | None = None
    address_bytes_per_second_max: float | None = None
    burst_seconds: float = 10.0
    buckets_max: int = 20_000  # remembered at a time; the one unused longest is forgotten


class Limiter:
    """Counts what was sent, and refuses what is too much."""

    def __init__(self, rates: Rates, monotonic: Callable[[], float]) -> None:
        """`monotonic` is elapsed time in seconds: `trio.current_time` in the daemon."""
        self._rates = rates
        self._now = monotonic
        self._buckets: OrderedDict[tuple[str, str | None], _Bucket] = OrderedDict()
        self._wanted = [
            (prefix, amount, per_second)
            for prefix, amount, per_second in (
                ("key", "events", rates.key_events_per_second_max),
                ("user", "events", rates.user_events_per_second_max),
                ("key", "bytes", rates.key_bytes_per_second_max),
                ("organization", "events", rates.organization_events_per_second_max),
                ("organization", "bytes", rates.organization_bytes_per_second_max),
                ("address", "events", rates.address_events_per_second_max),
                ("address", "bytes", rates.address_bytes_per_second_max),
            )
            if per_second is not None
        ]

    def take(self, principal: Principal, address: str | None, *, events: int, bytes_: int) -> None:
        """Count `events` and `bytes_`; raises RateLimited, and then counts nothing.

        A bucket that is not empty lets a batch of any size pass, and pays for it afterwards: so a
        batch larger than the burst is slow, but never impossible.
        """
        if not self._wanted:
            return
        owners = {
            "key": f"{principal.kind}/{principal.organization_id}/{principal.id}",
            "organization": principal.organization_id,
            "address": address,
        }
        owners["user"] = owners["key"]
        other = "key" if principal.kind == "user" else "user"
        now = self._now()
        due: list[tuple[_Bucket, int]] = []
        for owner, amount, per_second in self._wanted:
            if owner == other:
                continue
            bucket = self._bucket(f"{owner} {amount}", owners[owner], per_second, now)
            if bucket.level <= 0:
                wait_ms = int(1000 * -bucket.level / per_second) + 1
                raise RateLimited(
                    f"Over {per_second:g} {amount} a second for this {owner}. "
                    f"Wait {wait_ms} ms, and send larger batches less often.",
                    retry_after_ms=wait_ms,
                )
            due.append((bucket, events if amount == "events" else bytes_))
        for bucket, cost in due:
            bucket.level -= cost

    def _bucket(self, kind: str, owner: str | None, per_second: float, now: float) -> _Bucket:
        full = per_second * self._rates.burst_seconds
        bucket = self._buckets.get((kind, owner))
        if bucket is None:
            bucket = self._buckets[kind, owner] = _Bucket(full, now)
            if len(self._buckets) > self._rates.buckets_max:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end((kind, owner))
            bucket.level = min(full, bucket.level + per_second * (now - bucket.at))
            bucket.at = now
        return bucket


class _Bucket:
    __slots__ = ("at", "level")

    def __init__(self, level: float, at: float) -> None:
        self.level = level
        self.at = at
