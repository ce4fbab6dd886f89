"""The privacy rules, over made-up people and events: nothing that identifies goes past protect."""

from __future__ import annotations

import json
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlc_broker.model.catalog import Catalog
from mlc_broker.model.event import Event, Facts
from mlc_broker.model.verdict import Drop, Verdict
from mlc_broker.pipeline.builtin.personal import DENIED, DENIED_STRICT, REMOVED
from mlc_broker.pipeline.builtin.protect import Protect, pseudonym
from mlc_broker.pipeline.processor import Tools
from mlc_broker.testing import LESSON_BEGINS, FixedClock, make_event
from tests.unit.pipeline.house import DictRoster

KEY = b"k" * 32
CHILD = Facts(role="student", age_band="under_13")
UNKNOWN = Facts()
PUPIL = Facts(role="student", age_band="16_plus")
CONSENTED = Facts(role="student", age_band="under_13", consented=True)
GAME = {"game_id": "G-01542", "stage_id": "G-01542-quiz", "stage_type": "quiz", "score": 85}


def protect(roster: DictRoster | None = None, **settings: Any) -> Protect:
    return Protect(
        Protect.Settings(pseudonym_key=KEY, **settings),
        Tools(
            clock=FixedClock(),
            random=Random(0),
            roster=roster or DictRoster(),
            catalog=Catalog.standard(),
            emit=lambda _: None,
        ),
    )


def verdict_on(event: Event) -> Verdict:
    """What protect says; it never waits, so no loop is needed."""
    with pytest.raises(StopIteration) as said:
        protect().process_many([event]).send(None)
    verdicts: list[Verdict] = said.value.value
    return verdicts[0]


async def through(event: Event, facts: Facts, **settings: Any) -> Event | Drop:
    event = event.but(facts=facts, privacy_level=event.privacy_level or "standard")
    (verdict,) = await protect(**settings).process_many([event])
    assert isinstance(verdict, Event | Drop)
    return verdict


def said(event: Event | Drop) -> str:
    assert isinstance(event, Event)
    return json.dumps([event.properties, event.context, event.device_info, event.user_id])


@pytest.mark.parametrize("facts", [CHILD, UNKNOWN, PUPIL], ids=["child", "unknown", "pupil"])
@pytest.mark.parametrize("key", sorted(key for keys in DENIED.values() for key in keys))
async def test_no_event_carries_a_denied_key(key: str, facts: Facts) -> None:
    deep = {"kept": 1, "deep": [{"deeper": {key: "canary"}}]}
    event = make_event(properties=GAME | {key: "canary", "more": deep}, context={key: "canary"})
    stored = await through(event, facts)
    assert "canary" not in said(stored)
    assert isinstance(stored, Event)
    assert stored.properties["more"] == {"kept": 1, "deep": [{"deeper": {}}]}
    assert stored.properties["score"] == 85


@pytest.mark.parametrize("key", sorted(key for keys in DENIED_STRICT.values() for key in keys))
async def test_a_childs_event_says_no_name_either(key: str) -> None:
    event = make_event(properties=GAME | {key: "canary", f"my_{key}_name": "canary"})
    assert "canary" not in said(await through(event, CHILD))


@pytest.mark.parametrize("spelling", ["homeAddress", "home-address", "Home_Address", "parentEmail"])
async def test_a_denied_key_is_known_in_any_spelling(spelling: str) -> None:
    event = make_event(properties=GAME | {spelling: "canary"})
    assert "canary" not in said(await through(event, PUPIL))


@pytest.mark.parametrize(
    "text",
    [
        "ann.canary@example.org",
        "write to ann.canary@example.org, please",
        "ann.canary%40example.org",
        "ann.canary＠example.org",
        "+14155550canary".replace("canary", "132"),
        "call (415) 555-0132",
        "415-555-0132",
        "415 555 0132",
        "078-05-1120",
        "4111 1111 1111 1111",
        "data:image/png;base64,iVBORw0KGgocanary",
        "A" * 1500,
    ],
)
@pytest.mark.parametrize("facts", [CHILD, UNKNOWN, PUPIL], ids=["child", "unknown", "pupil"])
@pytest.mark.parametrize("place", ["note", "launch_source", "game_id"])
async def test_no_string_holds_an_address_a_number_or_a_blob(
    text: str, facts: Facts, place: str
) -> None:
    if place == "game_id" and "@" not in text and "%40" not in text and "＠" not in text:
        return  # ids are short words without blanks: only e-mail addresses are looked for
    event = make_event("game_launch", properties={place: text}, context={"correlation_id": text})
    stored = said(await through(event, facts))
    assert text not in stored
    assert "canary" not in stored
    assert "0132" not in stored


@pytest.mark.parametrize(
    "text",
    [
        "G-01542-quiz",
        "2025-01-27",
        "120.0.6099.129",
        "550e8400-e29b-41d4-a716-446655440000",
        "1737988245123",
        "1000-2000",
        "1920x1080",
        "America/New_York",
        "evt_1234567890abcdef",
    ],
)
async def test_what_is_no_number_of_a_person_is_left_alone(text: str) -> None:
    event = make_event(properties=GAME | {"own": text})
    stored = await through(event, CHILD)
    assert isinstance(stored, Event)
    assert stored.properties["own"] == text


async def test_a_childs_texts_are_replaced_and_an_older_pupils_are_kept() -> None:
    page = {"page_url": "/find?q=canary#canary", "page_title": "Canary Bird", "search_query": "me"}
    event = make_event("page_view", properties=page, context={"referrer": "/a?name=canary"})
    child = await through(event, CHILD)
    assert isinstance(child, Event)
    assert child.properties == {
        "page_url": "/find",
        "page_title": REMOVED,
        "search_query": REMOVED,
    }
    assert child.context == {"referrer": "/a"}
    pupil = await through(event, PUPIL)
    assert isinstance(pupil, Event)
    assert pupil.properties == page


async def test_a_child_with_consent_is_treated_as_everybody() -> None:
    event = make_event("page_view", properties={"page_title": "Canary"}, context={"own": "a b"})
    assert "Canary" in said(await through(event, CONSENTED))


async def test_unknown_keys_of_a_child_keep_numbers_and_words_but_no_texts() -> None:
    own = {"combo": 3, "lives": [1, 2], "mode": "hard", "won": True, "note": "I am Ann Canary"}
    stored = await through(make_event(properties=GAME | own), CHILD)
    assert isinstance(stored, Event)
    assert stored.properties == GAME | {k: v for k, v in own.items() if k != "note"}


async def test_unknown_age_is_a_childs_unless_the_school_says_otherwise() -> None:
    event = make_event("page_view", properties={"page_title": "Canary"})
    assert "Canary" not in said(await through(event, UNKNOWN))
    assert "Canary" in said(await through(event, UNKNOWN, unknown_age="adult"))


async def test_an_event_without_anything_to_take_is_not_touched() -> None:
    event = make_event(properties=GAME, context={"assignment_id": "asg_1"})
    event = event.but(facts=PUPIL, privacy_level="standard")
    assert (await protect().process_many([event]))[0] is event


async def test_a_personal_event_names_nobody_anywhere() -> None:
    event = make_event(
        properties=GAME | {"by": "usr_1", "deep": [{"who": "usr_1"}], "full_name": "Ann Canary"},
        context={"run_id": "run_7", "actor_id": "usr_1", "assignment_id": "asg_1"},
        device_info={"user_agent": "Canary/1.0", "platform": "tablet"},
        session_id="sess_1",
    ).but(privacy_level="pii")
    stored = await through(event, PUPIL)
    assert isinstance(stored, Event)
    text = said(stored)
    for word in ("usr_1", "run_7", "sess_1", "Canary"):
        assert word not in text
    assert stored.user_id == pseudonym("usr_1", KEY)
    assert stored.context == {"assignment_id": "asg_1"}
    assert stored.session_id is None


async def test_what_an_erased_person_did_before_is_dropped() -> None:
    roster = DictRoster()
    roster.erased_at["usr_1"] = LESSON_BEGINS
    before = make_event(timestamp=LESSON_BEGINS - timedelta(days=1)).but(facts=PUPIL)
    after = make_event(timestamp=LESSON_BEGINS + timedelta(seconds=1)).but(facts=PUPIL)
    first, second = await protect(roster).process_many([before, after])
    assert first == Drop("erased")
    assert second is after


CANARY = "Zoe Canary"
leaves = st.sampled_from([CANARY, "zoe.canary@example.org", "+14155550132", 7, True, None, "hard"])
keys = st.sampled_from(
    ["note", "full_name", "email", "homeAddress", "combo", "x y", "deep", "kid@example.org"]
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
parts = st.dictionaries(keys, trees, max_size=5)


@given(
    properties=parts,
    context=parts,
    device=parts,
    facts=st.sampled_from([CHILD, UNKNOWN]),
    event_type=st.sampled_from(["game_stage_complete", "page_view", "javascript_error"]),
    level=st.sampled_from(["standard", "sensitive", "pii"]),
)
def test_whatever_a_child_sends_nothing_of_it_identifies(
    properties: Any, context: Any, device: Any, facts: Facts, event_type: str, level: str
) -> None:
    event = make_event(
        event_type, properties=GAME | properties, context=context, device_info=device
    )
    verdict = verdict_on(event.but(facts=facts, privacy_level=level))
    if level == "pii":
        assert verdict == Drop("coppa")
        return
    text = said(verdict)  # type: ignore[arg-type]
    for word in ("Zoe", "canary", "5550132", "@"):
        assert word not in text
    assert isinstance(verdict, Event)
    assert verdict.properties["score"] == 85
    assert verdict.device_info == {}


@given(properties=parts, context=parts, facts=st.sampled_from([PUPIL, CONSENTED]))
def test_whatever_an_older_pupil_sends_holds_no_address(
    properties: Any, context: Any, facts: Facts
) -> None:
    event = make_event(properties=GAME | properties, context=context)
    for level in ("standard", "pii"):
        verdict = verdict_on(event.but(facts=facts, privacy_level=level))
        text = said(verdict)  # type: ignore[arg-type]
        assert "@" not in text
        assert "5550132" not in text
        assert level == "standard" or ("usr_1" not in text and "Zoe" not in text)


async def test_what_is_taken_is_counted_by_part_and_repeated_parts_count_again() -> None:
    step = protect()
    told = make_event(
        properties={**GAME, "email": "a@example.org", "deep": [{"phone": "+49 170 1234567"}]},
        context={"page_url": "/a", "contact": "ann@example.org"},
        device_info={"platform": "tablet"},
    ).but(facts=PUPIL)
    await step.process_many([told])
    once = step.removed
    assert once["properties"] == 2
    assert once["context"] == 1
    assert (once["device"], once["user_id"]) == (0, 0)
    await step.process_many([told, told])
    assert step.removed == {part: 3 * count for part, count in once.items()}
