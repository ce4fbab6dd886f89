"""`redact` by itself."""

from __future__ import annotations

from typing import Any

import pytest

from mlc_broker import Event
from mlc_broker.testing import check_processor, make_event, run
from plugins.redact import Redact


async def seen(text: object, **settings: Any) -> object:
    (event,) = await run(Redact, [make_event("page_view", properties={"note": text})], **settings)
    assert isinstance(event, Event)
    return event.properties["note"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write to ann@school.example.org, please", "write to [email], please"),
        ("call +49 30 123456-78 now", "call [phone] now"),
        ("G-01542-quiz", "G-01542-quiz"),
        ({"deep": ["ann@school.org", 7]}, {"deep": ["[email]", 7]}),
        ("x" * 30_000, "[too long]"),
    ],
)
async def test_what_points_to_a_person_is_blacked_out(text: object, left: object) -> None:
    assert await seen(text) == left


async def test_own_patterns_take_the_place_of_the_usual_ones() -> None:
    assert await seen("locker 42", patterns={"locker": r"locker \d+"}) == "[locker]"
    assert await seen("ann@school.org", patterns={}) == "ann@school.org"


def test_a_pattern_that_is_none_is_told_at_the_start() -> None:
    with pytest.raises(ValueError, match="pattern half"):
        Redact.Settings(patterns={"half": "(["})


async def test_redact_keeps_its_contract() -> None:
    await check_processor(Redact)
