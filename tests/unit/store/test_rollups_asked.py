"""Questions share their flushes, and miss nothing that was committed before them."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from mlc_broker.store.rollups import EXPIRE_SECONDS, Rollups
from mlc_broker.store.rollups_asked import PAUSE_SECONDS_MAX, PAUSES, Turns
from mlc_broker.store.rollups_file import ROWS_A_STATEMENT
from tests.fakes_rollups import counted, drift
from tests.fakes_store import batch, event


class Flushes:
    """Counts flushes; each writes down what is committed when it begins."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.seconds = seconds
        self.committed = self.written = 0
        self.began: list[float] = []

    async def settle(self) -> None:
        self.began.append(trio.current_time())
        seen = self.committed
        await trio.sleep(self.seconds)
        self.written = seen


async def test_all_who_wait_share_one_flush(autojump_clock: trio.testing.MockClock) -> None:
    flushes = Flushes()
    turns = Turns(flushes.settle)

    async def ask(after: float) -> None:
        await trio.sleep(after)
        flushes.committed += 1
        mine = flushes.committed
        await turns()
        assert flushes.written >= mine

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number * 0.05)
    share = flushes.seconds * len(flushes.began) / (flushes.began[-1] - flushes.began[0])
    assert share < 1.5 / (1 + PAUSES)


async def test_who_asks_while_nobody_else_does_waits_for_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    flushes = Flushes(seconds=10)
    turns = Turns(flushes.settle)
    for _ in range(3):
        asked = trio.current_time()
        await turns()
        assert trio.current_time() - asked == pytest.approx(flushes.seconds)
        await trio.sleep(PAUSE_SECONDS_MAX)


async def test_a_question_that_is_given_up_takes_no_other_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    flushes = Flushes(seconds=1)
    turns = Turns(flushes.settle)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.5):
            nursery.start_soon(turns)
            await turns()
    with trio.move_on_after(0.5):
        await turns()
    flushes.committed = 7
    await turns()
    assert flushes.written == 7


async def test_what_was_committed_before_a_question_can_be_read(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with counted(tmp_path) as (store, rollups), trio.open_nursery() as nursery:
        nursery.start_soon(rollups.run)
        for number in range(1, 30):
            await store.append(batch(event(number, user_id=f"usr_{number}")))
            await rollups.caught_up()
            assert rollups.read("SELECT sum(n) / 1000 FROM activity", {}) == [(number,)]
        nursery.cancel_scope.cancel()


async def test_nothing_is_written_for_a_question_when_nothing_is_new(tmp_path: Path) -> None:
    async with counted(tmp_path) as (store, rollups):
        await store.append(batch(event(1)))
        await rollups.caught_up()
        version = rollups.version
        await rollups.caught_up()
        assert rollups.version == version


async def test_cells_expire_however_often_somebody_asks(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired = []

    async def noting(_: Rollups, minute: int) -> int:
        expired.append(minute)
        return 0

    monkeypatch.setattr(Rollups, "expire", noting)
    async with counted(tmp_path) as (store, rollups), trio.open_nursery() as nursery:
        nursery.start_soon(rollups.run)
        for number in range(1, 20):
            await store.append(batch(event(number)))
            await rollups.caught_up()
            await trio.sleep(EXPIRE_SECONDS / 10)
        nursery.cancel_scope.cancel()
    assert len(expired) == 2


@pytest.mark.parametrize("count", [1, sum(ROWS_A_STATEMENT), 2 * ROWS_A_STATEMENT[0] - 1])
async def test_a_flush_of_any_number_of_rows_is_whole(tmp_path: Path, count: int) -> None:
    async with counted(tmp_path) as (store, rollups):
        await store.append(batch(*(event(n, user_id=f"usr_{n}") for n in range(count))))
        await rollups.settle()
        assert rollups.read("SELECT count(*) FROM activity", {}) == [(count,)]
        assert await drift(store, rollups) == []
