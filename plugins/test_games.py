"""`games` by itself."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from mlc_broker import Event
from mlc_broker.testing import FixedClock, ask, check_processor, make_event, make_tools, run
from plugins.games import Games


def registry(path: Path, *concepts: str) -> str:
    path.write_text(json.dumps({"G-01542": {"concepts": concepts}}))
    return str(path)


async def test_an_event_learns_what_its_game_teaches(tmp_path: Path) -> None:
    file = registry(tmp_path / "games.json", "intervals", "pitch")
    known, unknown = await run(Games, [make_event(), make_event("page_view")], file=file)
    assert isinstance(known, Event)
    assert known.facts.concepts == ("intervals", "pitch")
    assert isinstance(unknown, Event)
    assert unknown.facts.concepts == ()


async def test_a_changed_registry_is_read_again_and_a_broken_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "games.json"
    clock = FixedClock()
    games = Games(Games.Settings(file=registry(file, "rhythm")), make_tools(clock=clock))
    await games.open()
    for text, expected in ((None, "rhythm"), ("tempo!", "tempo!"), ("{half", "tempo!")):
        if text == "{half":
            file.write_text(text)
        elif text is not None:
            registry(file, text)
        clock.now_is += timedelta(seconds=3)
        (event,) = await ask(games, [make_event()])
        assert isinstance(event, Event)
        assert event.facts.concepts == (expected,)
    await games.close()


async def test_without_a_registry_events_pass_as_they_are(tmp_path: Path) -> None:
    event = make_event()
    assert await run(Games, [event], file=str(tmp_path / "none.json")) == [event]


async def test_games_keeps_its_contract() -> None:
    await check_processor(Games)
