from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from mlc_broker.query.export.ahead import Ahead

PATIENCE_SECONDS = 5.0


class Counted:
    """So many items, and how many were made."""

    def __init__(self, items: int) -> None:
        self.made = 0
        self._items = items

    def __iter__(self) -> Iterator[int]:
        for _ in range(self._items):
            self.made += 1
            yield self.made


async def test_items_come_in_their_order_and_then_nothing() -> None:
    ahead = Ahead(iter(Counted(5)), trio.to_thread.run_sync)
    assert [await ahead.take() for _ in range(6)] == [1, 2, 3, 4, 5, None]
    await ahead.aclose()


async def test_one_item_is_made_while_the_former_is_in_use_and_never_two() -> None:
    source = Counted(100)
    ahead = Ahead(iter(source), trio.to_thread.run_sync)
    for taken in (1, 2, 3):
        assert await ahead.take() == taken
        await trio.testing.wait_all_tasks_blocked()
        await ahead._ready()
        await trio.testing.wait_all_tasks_blocked()
        assert source.made == taken + 1
    await ahead.aclose()
    assert source.made == 4


async def test_an_error_comes_where_the_item_would_and_not_before() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    ahead = Ahead(broken(), trio.to_thread.run_sync)
    assert await ahead.take() == 1
    with pytest.raises(ValueError, match="no more"):
        await ahead.take()
    assert await ahead.take() is None
    await ahead.aclose()


async def test_closing_waits_until_no_thread_is_at_it_even_when_cancelled() -> None:
    begun, go_on = threading.Event(), threading.Event()
    ended = False

    def slow() -> Iterator[int]:
        nonlocal ended
        yield 1
        begun.set()
        assert go_on.wait(PATIENCE_SECONDS)
        ended = True
        yield 2

    ahead = Ahead(slow(), trio.to_thread.run_sync)
    assert await ahead.take() == 1
    assert await trio.to_thread.run_sync(begun.wait, PATIENCE_SECONDS)
    async with trio.open_nursery() as nursery:

        async def close() -> None:
            with trio.CancelScope() as scope:
                scope.cancel()
                await ahead.aclose()
            assert ended

        nursery.start_soon(close)
        await trio.testing.wait_all_tasks_blocked()
        assert not ended
        go_on.set()
    await ahead.aclose()
