"""`points` by itself."""

from __future__ import annotations

from typing import Any

from mlc_broker import Event
from mlc_broker.testing import check_processor, make_event, run
from plugins.points import Points


def play(*, passed: bool = True, score: int = 87, **changes: Any) -> Event:
    properties = {"game_id": "G-01542", "score": score, "max_score": 100, "passed": passed}
    return make_event(properties=properties, **changes)


async def test_a_finished_stage_earns_points_by_its_score() -> None:
    source = play()
    verdicts = await run(Points, [source])
    assert verdicts == [source]
    (points,) = verdicts.emitted
    assert points.event_type == "org.points_awarded"
    assert points.properties == {"points": 8, "bonus": 0, "streak": 1, "game_id": "G-01542"}
    assert points.facts.derived_from == source.event_id
    assert points.user_id == source.user_id


async def test_every_third_passed_stage_in_a_row_earns_a_bonus() -> None:
    plays = [play(passed=number != 3) for number in range(8)]  # the fourth is not passed
    emitted = (await run(Points, plays)).emitted
    assert [event.properties["streak"] for event in emitted] == [1, 2, 3, 0, 1, 2, 3, 4]
    assert [event.properties["bonus"] for event in emitted] == [0, 0, 5, 0, 0, 0, 5, 0]


async def test_a_resend_earns_the_same_once_more_under_the_same_id() -> None:
    first, second = play(), play()
    emitted = (await run(Points, [first, second, first.but()])).emitted
    assert emitted[2] == emitted[0]


async def test_other_events_and_points_themselves_earn_nothing() -> None:
    events = [make_event("page_view"), make_event("org.points_awarded"), play(user_id=None)]
    assert (await run(Points, events)).emitted == []


async def test_points_keeps_its_contract() -> None:
    await check_processor(Points)
