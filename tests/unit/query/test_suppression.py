from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from mlc_broker.query.suppression import suppress


def rows(*people: int) -> list[dict[str, int]]:
    return [{"people": n} for n in people]


def test_large_groups_are_shown() -> None:
    assert suppress(rows(10, 25), 10) == rows(10, 25)


def test_one_small_group_takes_the_next_one_with_it() -> None:
    assert suppress(rows(50, 3, 12), 10) == rows(50)


def test_small_groups_that_are_large_together_protect_each_other() -> None:
    assert suppress(rows(50, 6, 7), 10) == rows(50)


def test_a_total_gives_no_row_of_a_table_away() -> None:
    table = [
        {"org": org, "grade": grade, "people": people}
        for (org, grade), people in zip(
            product("abc", "123"), [20, 30, 40, 20, 2, 40, 20, 30, 40], strict=True
        )
    ]
    shown = suppress(table, 10, dimensions=["org", "grade"])
    for along in ("org", "grade"):
        for value in {row[along] for row in table}:
            line = [row for row in table if row[along] == value]
            hidden = [row for row in line if row not in shown]
            assert len(hidden) != 1


@given(st.lists(st.integers(0, 60), max_size=12), st.integers(1, 20))
def test_what_is_left_out_is_never_a_small_group_by_subtraction(
    people: list[int], minimum: int
) -> None:
    shown = suppress(rows(*people), minimum)
    assert all(row["people"] >= minimum for row in shown)
    left_out = sum(people) - sum(row["people"] for row in shown)
    if shown and len(shown) < len(people):
        assert left_out >= minimum
