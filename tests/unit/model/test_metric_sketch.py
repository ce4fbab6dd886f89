"""Histograms that merge: how exact their percentiles are."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlc_broker.model.sketch import VALUE_MAX, bin_of, merged, quantiles, value_of


@given(st.integers(0, VALUE_MAX))
def test_a_value_is_told_within_four_thousandths(value: int) -> None:
    assert abs(value_of(bin_of(value)) - value) <= 0.004 * value


@given(st.integers(0, VALUE_MAX - 1))
def test_bins_are_in_the_order_of_values(value: int) -> None:
    assert bin_of(value) <= bin_of(value + 1) <= bin_of(value) + 1


def histogram(values: list[float]) -> dict[int, float]:
    return merged({bin_of(value): 1} for value in values)


@pytest.mark.parametrize("q", [0.5, 0.75, 0.95, 0.99])
@pytest.mark.parametrize("kind", ["lognormal", "uniform", "bimodal"])
def test_a_percentile_is_at_most_one_percent_of_ranks_off(kind: str, q: float) -> None:
    chance = Random(7)
    draws: dict[str, Callable[[], float]] = {
        "lognormal": lambda: chance.lognormvariate(6, 0.7),
        "uniform": lambda: chance.uniform(0, 30_000),
        "bimodal": lambda: chance.gauss(*chance.choice([(300, 60), (4000, 700)])),
    }
    draw = draws[kind]
    values = sorted(max(0.0, draw()) for _ in range(20_000))
    (found,) = quantiles(histogram(values), [q])
    assert found is not None
    rank = sum(value <= found for value in values) / len(values)
    assert abs(rank - q) <= 0.01


@given(st.lists(st.lists(st.integers(0, 10**6), max_size=20), max_size=5), st.randoms())
def test_parts_merge_in_any_order_to_the_whole(parts: list[list[int]], chance: Random) -> None:
    whole = histogram([value for part in parts for value in part])
    chance.shuffle(parts)
    assert merged(histogram(list(part)) for part in parts) == whole


def test_nothing_counted_has_no_percentile() -> None:
    assert quantiles({}, [0.5, 0.99]) == [None, None]
    assert quantiles({7: 3}, [0.01, 1.0]) == [7.0, 7.0]
