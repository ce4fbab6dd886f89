from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlc_broker.store.layout import (
    Home,
    home_of,
    home_path,
    hot_path,
    months_around,
    slot_of,
)

moments = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(moments)
def test_an_event_lives_in_the_home_of_its_month(moment: datetime) -> None:
    ms = int(moment.timestamp() * 1000)
    home = home_of("standard", ms, "org", 1)
    assert home.path == f"shards/standard/{moment:%Y-%m}/0.db"
    assert home.begin_ms <= ms < home.end_ms
    assert Home.of_path(home.path) == home
    assert home.month in months_around(ms)


def test_a_resend_at_the_turn_of_the_month_is_looked_for_on_both_sides() -> None:
    midnight = int(datetime(2026, 2, 1, tzinfo=UTC).timestamp()) * 1000
    assert months_around(midnight) == {"2026-01", "2026-02"}
    assert months_around(midnight + 15 * 86_400_000) == {"2026-02"}


def test_december_ends_where_january_begins() -> None:
    assert Home("pii", "2026-12").end_ms == Home("pii", "2027-01").begin_ms


@given(st.text(max_size=30), st.integers(1, 64))
def test_an_organization_keeps_its_slot(organization: str, slots: int) -> None:
    assert slot_of(organization, slots) == slot_of(organization, slots) < slots


def test_organizations_spread_over_slots() -> None:
    assert {slot_of(f"org{n}", 4) for n in range(100)} == {0, 1, 2, 3}


def test_each_rewriting_has_a_name_of_its_own() -> None:
    home = Home("standard", "2026-01", 3)
    assert home_path(Path("d"), home, 0) == Path("d/shards/standard/2026-01/3.db")
    assert home_path(Path("d"), home, 2) == Path("d/shards/standard/2026-01/3.2.db")
    assert hot_path(Path("d"), 7) == Path("d/hot/00000007.db")


def test_a_path_that_is_no_home_is_refused() -> None:
    with pytest.raises(ValueError, match="no home"):
        Home.of_path("shards/eternal/2026-01/0.db")
