"""The built-in processors, as a chain: what the protocol says becomes of an event."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from mlc_broker.model.batch import Batch, Origin, Outcome, Receipt
from mlc_broker.model.event import Event, Facts
from mlc_broker.model.person import User
from mlc_broker.model.principal import Role
from mlc_broker.pipeline.builtin import BUILTIN
from mlc_broker.pipeline.builtin.enrich import Enrich
from mlc_broker.pipeline.builtin.protect import Protect
from mlc_broker.pipeline.builtin.sample import Sample, share
from mlc_broker.pipeline.builtin.validate import Validate
from mlc_broker.pipeline.chain import Pipeline
from mlc_broker.testing import LESSON_BEGINS, make_event
from tests.unit.pipeline.house import (
    SENDER,
    DictRoster,
    ListQuarantine,
    ListStore,
    actor,
    batch,
    tools,
)

KEY = b"k" * 32
ADULT = User(organization_id="org_1", role=Role.STUDENT, age_band="16_plus")
CHILD = User(organization_id="org_1", role=Role.STUDENT, birth_date=date(2016, 1, 1))


def chain(roster: DictRoster | None = None, **settings: Any) -> tuple[Pipeline, ListStore]:
    own = tools(roster or DictRoster(usr_1=ADULT))
    made = {"protect": Protect.Settings(pseudonym_key=KEY)} | settings
    store = ListStore()
    actors = [
        actor(kind, made[kind.name] if kind.name in made else kind.Settings(), tools=own)  # type: ignore[call-arg]
        for kind in BUILTIN
    ]
    actors.sort(key=lambda one: one.stage)
    return Pipeline(actors, keep=store, quarantine=ListQuarantine()), store


async def send(event: Event, *args: Any, **settings: Any) -> tuple[Receipt, Event | None]:
    pipeline, store = chain(*args, **settings)
    (receipt,) = await pipeline.submit(batch(event))
    return receipt, next(iter(store.events.values()), None)


async def test_a_good_event_is_stored_with_what_the_roster_knows() -> None:
    receipt, stored = await send(make_event())
    assert receipt.outcome is Outcome.STORED
    assert stored is not None
    facts = stored.facts
    assert (facts.role, facts.class_ids, facts.teacher_ids) == (
        "student",
        ("cls_1",),
        ("usr_teacher",),
    )
    assert facts.subscription == "ensemble"
    assert (stored.privacy_level, stored.retention_days) == ("standard", 2555)
    assert "realtime" in facts.streams


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"event_type": "no_such_type"}, "unknown_type", "no_such_type"),
        ({"event_id": "has space!"}, "schema", "event_id"),
        ({"session_id": "sess\n1"}, "schema", "session_id"),
        ({"properties": {"game_id": 5}}, "schema", "$.properties.game_id"),
        (
            {"properties": {"game_id": "G-01542", "stage_id": "s", "score": 187, "max_score": 100}},
            "schema",
            "187",
        ),
        ({"context": {"page_url": 7}}, "schema", "$.context.page_url"),
        ({"device_info": {"platform": 7}}, "schema", "$.device_info.platform"),
        ({"timestamp": LESSON_BEGINS + timedelta(minutes=6)}, "timestamp_future", "ahead"),
        ({"timestamp": LESSON_BEGINS - timedelta(days=91)}, "timestamp_too_old", "90 days"),
    ],
)
async def test_a_mistake_is_rejected_with_the_reason_and_the_place(
    changes: dict[str, Any], reason: str, words: str
) -> None:
    receipt, stored = await send(make_event(**changes))
    assert receipt.outcome is Outcome.REJECTED
    assert receipt.reason == reason
    assert words in receipt.detail
    assert stored is None


@pytest.mark.parametrize("spelling", ["gameStageComplete", "attempt.completed"])
async def test_other_spellings_are_stored_under_the_registered_name(spelling: str) -> None:
    _, stored = await send(make_event().but(event_type=spelling))
    assert stored is not None
    assert stored.event_type == "game_stage_complete"


async def test_a_wrong_clock_is_corrected_and_the_senders_time_is_kept() -> None:
    pipeline, store = chain()
    slow = timedelta(days=1, seconds=3)
    facts = Facts(received_at=LESSON_BEGINS, sent_at=LESSON_BEGINS - slow)
    event = make_event(timestamp=LESSON_BEGINS - slow - timedelta(seconds=30), facts=facts)
    await pipeline.submit(Batch(Origin(principal=SENDER, received_at=LESSON_BEGINS), [event]))
    (stored,) = store.events.values()
    assert stored.timestamp == LESSON_BEGINS - timedelta(seconds=30)
    assert stored.facts.client_timestamp == event.timestamp


async def test_a_clock_within_five_seconds_is_left_alone() -> None:
    pipeline, store = chain()
    facts = Facts(received_at=LESSON_BEGINS, sent_at=LESSON_BEGINS - timedelta(seconds=4))
    event = make_event(facts=facts)
    await pipeline.submit(Batch(Origin(principal=SENDER, received_at=LESSON_BEGINS), [event]))
    (stored,) = store.events.values()
    assert stored.timestamp == event.timestamp
    assert stored.facts.client_timestamp is None


async def test_an_assignment_named_in_properties_is_copied_to_the_context() -> None:
    event = make_event(
        "game_stage_start",
        properties={"game_id": "G-01542", "stage_id": "s", "assignment_id": "asg_789"},
    )
    _, stored = await send(event)
    assert stored is not None
    assert stored.context["assignment_id"] == "asg_789"


async def test_two_different_assignments_are_a_mistake() -> None:
    event = make_event(
        "game_stage_start",
        properties={"game_id": "G-01542", "stage_id": "s", "assignment_id": "asg_789"},
        context={"assignment_id": "asg_790"},
    )
    receipt, _ = await send(event)
    assert receipt.reason == "schema"
    assert "assignment_id" in receipt.detail


async def test_a_client_may_ask_for_more_protection_but_not_for_less() -> None:
    _, stored = await send(make_event(privacy_level="sensitive", retention_days=3000))
    assert stored is not None
    assert (stored.privacy_level, stored.retention_days) == ("sensitive", 1095)
    _, stored = await send(make_event(retention_days=30))
    assert stored is not None
    assert stored.retention_days == 30


async def test_system_events_are_kept_for_a_year() -> None:
    event = make_event("service_health_check", properties={})
    _, stored = await send(event, sample=Sample.Settings(environment="development"))
    assert stored is not None
    assert (stored.facts.retention, stored.retention_days) == ("system", 365)


DEVICE = {"user_agent": "Mozilla/5.0 (very much like this one)", "platform": "tablet"}
WHERE = {"page_url": "/student/play?name=ann", "assignment_id": "asg_1"}


@pytest.mark.parametrize("user", [CHILD, None], ids=["under 13", "unknown"])
async def test_a_childs_events_lose_what_identifies_a_device(user: User | None) -> None:
    roster = DictRoster(**({"usr_1": user} if user else {}))
    _, stored = await send(make_event(device_info=DEVICE, context=WHERE), roster)
    assert stored is not None
    assert stored.device_info == {"platform": "tablet"}
    assert stored.context == {"page_url": "/student/play", "assignment_id": "asg_1"}
    assert stored.user_id == "usr_1"


async def test_an_older_pupils_device_is_kept() -> None:
    _, stored = await send(make_event(device_info=DEVICE, context=WHERE))
    assert stored is not None
    assert stored.device_info == DEVICE


async def test_personal_events_are_anonymous_before_they_are_written() -> None:
    _, stored = await send(make_event(privacy_level="pii", device_info=DEVICE))
    assert stored is not None
    assert stored.user_id is not None
    assert stored.user_id.startswith("anon_")
    assert stored.session_id is None
    assert stored.retention_days == 365


async def test_personal_events_of_a_child_are_dropped() -> None:
    receipt, _ = await send(make_event(privacy_level="pii"), DictRoster(usr_1=CHILD))
    assert (receipt.outcome, receipt.reason) == (Outcome.DROPPED, "coppa")


async def test_a_withdrawn_consent_stops_collection() -> None:
    roster = DictRoster(usr_1=ADULT)
    roster.denied.add(("usr_1", "learning_progress"))
    receipt, _ = await send(make_event(), roster)
    assert (receipt.outcome, receipt.reason) == (Outcome.DROPPED, "consent")


async def test_a_sampled_event_carries_its_rate_and_a_resend_meets_the_same_fate() -> None:
    pipeline, store = chain()
    events = [
        make_event("page_view", event_id=f"view_{number:08d}", properties={"page_url": "/a"})
        for number in range(2000)
    ]
    first = await pipeline.submit(batch(*events))
    again = await pipeline.submit(batch(*events))
    kept = [receipt.outcome is Outcome.STORED for receipt in first]
    assert 5 <= sum(kept) <= 50  # 1 % of 2,000, five deviations wide
    assert [receipt.outcome is Outcome.DUPLICATE for receipt in again] == kept
    assert {event.facts.sample_rate for event in store.events.values()} == {0.01}


async def test_debug_events_are_for_development() -> None:
    event = make_event("debug", properties={})
    receipt, _ = await send(event)
    assert (receipt.outcome, receipt.reason) == (Outcome.DROPPED, "environment")
    receipt, _ = await send(event, sample=Sample.Settings(environment="development"))
    assert receipt.outcome is Outcome.STORED


def test_shares_are_evenly_spread() -> None:
    shares = [share(f"evt_{number}") for number in range(10_000)]
    for tenth in range(10):
        assert 850 <= sum(tenth / 10 <= s < (tenth + 1) / 10 for s in shares) <= 1150


def test_settings_have_the_protocols_defaults() -> None:
    assert Validate.Settings().max_age_days == 90


class MovedAtMidnight(DictRoster):
    """A pupil whose class begins at a midnight in Kathmandu, a quarter to seven in the evening UTC."""

    moved_at = datetime(2025, 1, 27, 18, 15, tzinfo=UTC)

    def membership(
        self, organization_id: str, user_id: str, at: datetime
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (("cls_new",) if at >= self.moved_at else ("cls_old",)), ()


async def test_a_batch_over_midnight_finds_each_event_in_its_class() -> None:
    roster = MovedAtMidnight(usr_1=ADULT)
    enrich = Enrich(Enrich.Settings(), tools(roster))
    times = [
        roster.moved_at + timedelta(seconds=seconds) for seconds in (-60, -1, 0, 1, -2, 86_399)
    ]
    events = [make_event(timestamp=at) for at in times]
    verdicts = await enrich.process_many(events)
    classes = [verdict.facts.class_ids[0] for verdict in verdicts if isinstance(verdict, Event)]
    assert classes == ["cls_old", "cls_old", "cls_new", "cls_new", "cls_old", "cls_new"]
