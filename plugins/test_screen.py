"""`screen` by itself: no daemon, no socket."""

from __future__ import annotations

from mlc_broker import Drop, Event, Reject
from mlc_broker.testing import check_processor, make_event, run
from plugins.screen import Screen


def play(score: int, ms: int = 60_000) -> Event:
    return make_event(
        properties={
            "game_id": "G-01542",
            "stage_id": "G-01542-quiz",
            "score": score,
            "max_score": 9000,
            "duration_ms": ms,
        }
    )


async def test_a_score_over_the_maximum_is_refused_and_an_empty_play_left_out() -> None:
    kept, refused, skipped = await run(Screen, [play(87), play(187), play(0, ms=0)], score_max=100)
    assert isinstance(kept, Event)
    assert kept.properties["screened"] is True
    assert refused == Reject("implausible", "score 187 is over 100")
    assert skipped == Drop("empty_play")


async def test_screen_keeps_its_contract() -> None:
    await check_processor(Screen)
