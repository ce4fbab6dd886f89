import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc_broker.store.ids import Hasher, Ids, IdTable, as_hashes
from tests.fakes_store import event

HOUR = 3_600_000


def hashed(numbers: list[int]) -> list[bytes]:
    return [number.to_bytes(16, "little") for number in numbers]


def table() -> Ids:
    return Ids(window_ms=24 * HOUR, bytes_max=1 << 30)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(1, 3000), unique=True, max_size=40), max_size=12))
def test_an_id_is_known_exactly_when_it_was_added(groups: list[list[int]]) -> None:
    # Multiples of 2**14 all want the same slot: the worst case for an open table.
    ids, added = table(), set[int]()
    for group in groups:
        spread = [number << 14 for number in group]
        assert ids.known(hashed(spread)) == [number in added for number in spread]
        new = [number for number in spread if number not in added]
        ids.add(as_hashes(b"".join(hashed(new))), 0)
        added.update(new)
    assert len(ids) == len(added)


def test_two_ids_that_share_eight_bytes_are_two_ids() -> None:
    ids = table()
    one, other = b"x" * 8 + b"1" * 8, b"x" * 8 + b"2" * 8
    ids.add(as_hashes(one), 0)
    assert ids.known([one, other]) == [True, False]
    assert ids.known([one, other] * 8) == [True, False] * 8
    ids.add(as_hashes(other), 0)
    assert ids.known([one, other]) == [True, True]


def test_many_ids_in_one_call_spread_over_generations() -> None:
    ids = table()
    numbers = np.random.default_rng(1).integers(1, 2**63, (200_000, 2), np.uint64)
    for at in range(0, len(numbers), 1000):
        ids.add(numbers[at : at + 1000], at)
    blobs = [row.tobytes() for row in numbers[::97]]
    assert all(ids.known(blobs))
    assert not any(ids.known([row.tobytes() for row in numbers[::97] ^ np.uint64(1)]))
    assert ids.size_bytes < 100 * len(numbers)


def test_generations_beyond_the_window_are_forgotten_as_a_whole() -> None:
    ids = table()
    for hour in range(48):
        ids.add(as_hashes(b"".join(hashed([hour + 1]))), hour * HOUR)
    assert ids.forget(before_ms=24 * HOUR) > 0
    assert all(ids.known(hashed([hour + 1]))[0] for hour in range(24, 48))
    assert ids.known(hashed([1])) == [False]


def test_ids_that_come_twice_at_start_do_no_harm() -> None:
    ids = table()
    ids.add(as_hashes(b"".join(hashed([1, 2, 2]))), 0)
    ids.add(as_hashes(b"".join(hashed([2, 3]))), 0)
    assert ids.known(hashed([1, 2, 3, 4])) == [True, True, True, False]


def test_the_memory_limit_is_told() -> None:
    ids = Ids(window_ms=HOUR, bytes_max=1000)
    assert not ids.full
    ids.add(as_hashes(b"".join(hashed([1]))), 0)
    assert ids.full


def test_the_memory_limit_is_used_up_before_it_is_told() -> None:
    limit = 40 * 2**20
    ids = Ids(window_ms=HOUR, bytes_max=limit)
    chance = np.random.default_rng(3)
    while not ids.full:
        ids.add(chance.integers(1, 2**63, (5_000, 2), np.uint64), 0)
        assert ids.size_bytes <= limit + 2**21
    assert ids.size_bytes > 0.9 * limit
    assert len(ids) * 40 > limit  # a table that would be twice as large was not begun


def test_a_table_has_a_power_of_two_of_slots() -> None:
    with pytest.raises(ValueError, match="power of two"):
        IdTable(1000)


def test_organization_and_id_cannot_run_into_one_another() -> None:
    hasher = Hasher(b"key")
    pairs = [
        ("org", "a-longer-id"),
        ("orga", "-longer-id"),
        (None, "orga-longer-id"),
        ("", "x" * 9),
    ]
    assert len({hasher.hash(*pair) for pair in pairs}) == len(pairs)
    assert hasher.hash_all([event(1)]) == [hasher.hash("org", "evt_00000001")]
    assert hasher.hash("org", "x" * 9) != Hasher(b"other").hash("org", "x" * 9)


@pytest.mark.parametrize("count", [5, 5000, 50_000])
def test_a_table_filled_in_one_go_finds_each_id_and_no_other(count: int) -> None:
    many = np.random.default_rng(count).integers(1, 2**63, (count, 2), dtype=np.uint64)
    many[:20, 0] |= np.uint64(2**40 - 1)  # crowded at the very end of the table
    ids = Ids(window_ms=1000, bytes_max=2**30)
    ids.load(many, 7)
    assert all(ids.known([h.tobytes() for h in many]))
    assert not any(ids.known([h.tobytes() for h in many ^ np.uint64(2**50)]))
    assert len(ids) == count
    ids.add(many[:10] ^ np.uint64(2**51), 8)
    assert ids.forget(8) in (0, count)
