"""A task that crashes is started again, later each time, and everybody can see it."""

from __future__ import annotations

from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from mlc_broker.runtime.supervisor import Backoff, Health, State, supervise


class NoChance(Random):
    def random(self) -> float:
        return 0.0


def test_the_wait_doubles_up_to_half_a_minute_and_is_forgotten_in_health() -> None:
    backoff = Backoff(NoChance())
    waits = [backoff.next_seconds(1) for _ in range(10)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]
    assert backoff.next_seconds(60) == 0.1


@given(st.lists(st.floats(0, 100), max_size=200), st.integers())
def test_no_wait_is_ever_over_its_maximum_or_under_its_minimum(
    runs: list[float], seed: int
) -> None:
    backoff = Backoff(Random(seed))
    assert all(0.1 <= backoff.next_seconds(ran) <= 30 for ran in runs)


async def test_a_crashing_task_is_restarted_and_its_state_is_visible(
    autojump_clock: trio.testing.MockClock,
) -> None:
    health, starts = Health(), []

    async def task() -> None:
        starts.append(trio.current_time())
        await trio.sleep(1)
        raise ValueError("broken")

    with trio.move_on_after(1.05):
        await supervise("door", task, Backoff(NoChance()), health)
    assert health["door"].state is State.STOPPED
    assert health["door"].restarts == 1
    with trio.move_on_after(4):
        await supervise("door", task, Backoff(NoChance()), health)
    assert len(starts) == 5


async def test_what_is_down_is_told_with_its_reason(autojump_clock: trio.testing.MockClock) -> None:
    health = Health()

    async def task() -> None:
        raise ExceptionGroup("nursery", [ValueError("no such table")])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise, "writer", task, Backoff(NoChance()), health)
        await trio.testing.wait_all_tasks_blocked()
        assert health.troubles == ["writer is down: ValueError: no such table"]
        nursery.cancel_scope.cancel()
    assert health.troubles == []


async def test_cancelling_passes_through_even_while_waiting(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await supervise("x", trio.sleep_forever, Backoff(NoChance()), Health())
    assert scope.cancelled_caught


async def test_a_base_exception_is_not_the_supervisors_to_keep() -> None:
    async def task() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await supervise("x", task, Backoff(NoChance()), Health())
