"""Token buckets: what is too much is refused with a time, and nothing is counted twice."""

from __future__ import annotations

import pytest

from mlc_broker.edge.limits import Limiter, Rates
from mlc_broker.model.errors import RateLimited
from mlc_broker.model.principal import Principal, Role

KEY = Principal(kind="ingest", id="k1", organization_id="org_1")
OTHER = Principal(kind="ingest", id="k2", organization_id="org_1")


class Ticks:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_batch_over_the_burst_passes_once_and_is_paid_for() -> None:
    ticks = Ticks()
    limiter = Limiter(Rates(key_events_per_second_max=10, burst_seconds=1), ticks)
    limiter.take(KEY, None, events=30, bytes_=1)
    with pytest.raises(RateLimited) as told:
        limiter.take(KEY, None, events=1, bytes_=1)
    assert told.value.retry_after_ms == 2001
    limiter.take(OTHER, None, events=1, bytes_=1)  # another key is not its neighbour's keeper
    ticks.seconds += 2.001
    limiter.take(KEY, None, events=1, bytes_=1)


def test_organizations_and_addresses_have_their_own() -> None:
    limiter = Limiter(Rates(organization_bytes_per_second_max=10, burst_seconds=1), Ticks())
    limiter.take(KEY, None, events=1, bytes_=10)
    with pytest.raises(RateLimited, match="organization"):
        limiter.take(OTHER, None, events=1, bytes_=1)
    limiter = Limiter(Rates(address_events_per_second_max=1, burst_seconds=1), Ticks())
    limiter.take(KEY, "10.0.0.1", events=1, bytes_=0)
    with pytest.raises(RateLimited, match="address"):
        limiter.take(OTHER, "10.0.0.1", events=1, bytes_=0)
    limiter.take(OTHER, "10.0.0.2", events=1, bytes_=0)


def test_what_is_refused_is_not_counted() -> None:
    ticks = Ticks()
    rates = Rates(
        key_events_per_second_max=100, organization_events_per_second_max=1, burst_seconds=1
    )
    limiter = Limiter(rates, ticks)
    limiter.take(KEY, None, events=1, bytes_=0)
    for _ in range(500):
        with pytest.raises(RateLimited, match="organization"):
            limiter.take(KEY, None, events=1, bytes_=0)
    ticks.seconds += 1.1
    limiter.take(KEY, None, events=1, bytes_=0)


def test_only_so_many_are_remembered() -> None:
    limiter = Limiter(Rates(address_events_per_second_max=1, buckets_max=100), Ticks())
    for number in range(1_000):
        limiter.take(KEY, f"10.0.0.{number}", events=1, bytes_=0)
    assert len(limiter._buckets) == 100


def test_without_rates_nothing_is_counted() -> None:
    limiter = Limiter(Rates(), Ticks())
    for _ in range(100):
        limiter.take(KEY, "a", events=10**9, bytes_=10**12)
    assert not limiter._buckets


def test_a_user_and_a_key_have_rates_of_their_own() -> None:
    ticks = Ticks()
    limiter = Limiter(
        Rates(key_events_per_second_max=100, user_events_per_second_max=1, burst_seconds=1), ticks
    )
    user = Principal(kind="user", id="usr_1", organization_id="org_1", role=Role.STUDENT)
    limiter.take(user, None, events=1, bytes_=1)
    with pytest.raises(RateLimited, match="this user"):
        limiter.take(user, None, events=1, bytes_=1)
    key = Principal(kind="ingest", id="usr_1", organization_id="org_1")
    for _ in range(50):
        limiter.take(key, None, events=1, bytes_=1)
