from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec
import pytest

from mlc_broker.model.catalog import Catalog, check_context, check_device
from mlc_broker.model.event import Event
from mlc_broker.model.principal import Role
from mlc_broker.simulate.curriculum import made_up_curriculum
from mlc_broker.simulate.ledger import CONSENTED, KEPT, SAMPLED, Sent
from mlc_broker.simulate.people import Person, make_people, roster_of
from mlc_broker.simulate.plan import Plan
from mlc_broker.simulate.script import Script
from mlc_broker.simulate.trouble import KINDS, bad_event

BEGINS = datetime(2026, 1, 12, 9, tzinfo=UTC)
PLAN = Plan(students=12, classes=3, lesson_minutes=45, bad_share=0.1)


def script_of(person: Person, seed: int = 1) -> Script:
    return Script(
        person,
        PLAN,
        made_up_curriculum(Random(7)),
        random=Random(seed),
        begins=BEGINS,
        name=f"run-{seed}",
    )


def everything() -> list[tuple[Person, Sent]]:
    found = []
    for number, person in enumerate(make_people(PLAN, Random(2))):
        script = script_of(person, number)
        found += [(person, sent) for sent in script.old_events()]
        found += [(person, sent) for _, sent in script.lesson()]
    return found


def test_every_good_event_is_one_that_the_catalog_takes() -> None:
    catalog = Catalog.standard()
    seen: Counter[str] = Counter()
    for _, sent in everything():
        if sent.fate in {KEPT, SAMPLED, CONSENTED}:
            event = msgspec.json.decode(msgspec.json.encode(sent.event), type=Event)
            kind = catalog.resolve(event.event_type)
            assert kind is not None
            kind.check(event.properties_json)
            check_context(event.context_json)
            check_device(event.device_json)
            seen[event.event_type] += 1
    assert {"game_stage_complete", "target_met", "concept_mastered", "user_login"} <= set(seen)


def test_no_two_events_of_a_run_share_an_id_but_the_copies() -> None:
    ids = [
        sent.event_id
        for _, sent in everything()
        if not sent.copy and not sent.fate.name.startswith("rejected") and sent.event_id
    ]
    assert len(ids) == len(set(ids))
    assert any(sent.copy for _, sent in everything())


def test_time_never_runs_back_in_a_lesson_and_ends_with_the_logout() -> None:
    for person in make_people(PLAN, Random(2)):
        times = list(script_of(person).lesson())
        assert [at for at, _ in times] == sorted(at for at, _ in times)
        assert times[-1][0] == PLAN.lesson_minutes * 60
        assert times[-1][1].event["event_type"] == "user_logout"


def test_old_events_are_hours_to_days_older_than_the_lesson() -> None:
    student = next(p for p in make_people(PLAN, Random(2)) if p.role is Role.STUDENT)
    for seed in range(8):
        burst = script_of(student, seed).old_events()
        assert burst
        assert all(sent.at is not None and sent.at < BEGINS for sent in burst)


def test_scores_stay_between_nothing_and_the_maximum_of_the_stage() -> None:
    scores = [
        sent.event["properties"]
        for _, sent in everything()
        if sent.fate is KEPT and sent.event["event_type"] == "game_stage_complete"
    ]
    assert scores
    assert all(0 <= play["score"] <= play["max_score"] for play in scores)
    assert max(play["score"] for play in scores) > 1000


def test_a_wrong_clock_shows_in_the_timestamp_but_not_in_the_true_time() -> None:
    slow = msgspec.structs.replace(make_people(PLAN, Random(2))[-1], clock_off_seconds=-7200.0)
    _, sent = next(iter(script_of(slow).lesson()))
    assert sent.at is not None
    written = datetime.fromisoformat(sent.event["timestamp"])
    assert (sent.at - written).total_seconds() == pytest.approx(7200, abs=0.01)


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_each_kind_of_bad_event_says_why_it_must_be_rejected(kind: int) -> None:
    class Chosen(Random):
        def choice(self, seq: Any) -> Any:
            return seq[kind]

    _, good = list(script_of(make_people(PLAN, Random(2))[-1]).lesson())[4]
    bad = bad_event(good, Chosen(), as_users=True)
    assert bad.fate.reasons == frozenset(KINDS[kind][1])
    assert bad.event != good.event


def test_everybody_who_plays_is_in_the_roster_and_every_student_in_a_class() -> None:
    people = make_people(PLAN, Random(2))
    roster = roster_of(PLAN, people)
    assert list(roster) == ["organizations", "users", "classes", "enrollments"]
    assert {person.user_id for person in people} <= roster["users"].keys()
    enrolled = {record["user_id"] for record in roster["enrollments"].values()}
    assert enrolled == {person.user_id for person in people if person.role is Role.STUDENT}
    assert {r["class_id"] for r in roster["enrollments"].values()} <= roster["classes"].keys()
