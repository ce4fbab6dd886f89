from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlc_broker.model.errors import Malformed
from mlc_broker.model.person import ConsentForm
from mlc_broker.store.consents import CATEGORIES, ConsentRule
from mlc_broker.store.roster import Roster
from mlc_broker.testing import FixedClock

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FOLLOWING = ("user_interaction", "business_intelligence")


@pytest.fixture
def roster(tmp_path: Path) -> Any:
    roster = Roster(tmp_path / "roster.db", clock=FixedClock(NOW))
    roster.open()
    yield roster
    roster.close()


@pytest.mark.parametrize("category", CATEGORIES)
def test_of_whom_nobody_asked_is_collected_and_nothing_disclosed(
    roster: Roster, category: str
) -> None:
    assert roster.consent("org_1", "u1", category) is None
    assert roster.collects("org_1", "u1", category)
    assert not roster.discloses("org_1", "u1", category)


@pytest.mark.parametrize("category", FOLLOWING)
def test_a_withdrawn_consent_holds_when_put_returns_and_after_a_restart(
    roster: Roster, tmp_path: Path, category: Any
) -> None:
    roster.put_consent("org_1", "u1", {category: "denied"}, given_by="mother")
    assert not roster.collects("org_1", "u1", category)
    assert roster.consent("org_1", "u1", category) is False
    assert roster.collects("org_2", "u1", category)  # a namesake elsewhere
    roster.close()
    roster.open()
    assert not roster.collects("org_1", "u1", category)
    roster.put_consent("org_1", "u1", {category: "granted"}, given_by="mother")
    assert roster.collects("org_1", "u1", category)


def test_what_the_school_authorized_does_not_wait_for_consent(roster: Roster) -> None:
    roster.put_consent("org_1", "u1", {"learning_progress": "denied"})
    assert roster.collects("org_1", "u1", "learning_progress")
    state = roster.consents_of("org_1", "u1")["learning_progress"]
    assert state.word == "denied"  # kept, and shown
    assert not state.follows_consent


def test_a_school_may_let_consent_decide_on_learning_too(tmp_path: Path) -> None:
    roster = Roster(
        tmp_path / "roster.db",
        clock=FixedClock(NOW),
        consent_rules={"learning_progress": ConsentRule(collect=False)},
    )
    roster.open()
    assert not roster.collects("org_1", "u1", "learning_progress")
    roster.put_consent("org_1", "u1", {"learning_progress": "granted"})
    assert roster.collects("org_1", "u1", "learning_progress")
    roster.close()


def test_the_history_tells_who_said_what_and_when(roster: Roster) -> None:
    form = ConsentForm(
        user_interaction="granted",
        disclose={"learning_progress": "granted"},
        given_by="father",
        basis="parent",
    )
    roster.put_consent("org_1", "u1", form)
    later = datetime(2026, 3, 2, tzinfo=UTC)
    roster.put_consent("org_1", "u1", {"user_interaction": "denied"}, given_by="u1", at=later)
    told = [
        (each.category, each.purpose, each.word, each.given_by, each.basis, each.at)
        for each in roster.consent_history("org_1", "u1")
    ]
    assert told == [
        ("user_interaction", "collect", "granted", "father", "parent", NOW),
        ("learning_progress", "disclose", "granted", "father", "parent", NOW),
        ("user_interaction", "collect", "denied", "u1", "", later),
    ]
    state = roster.consents_of("org_1", "u1")
    assert (state["user_interaction"].collect, state["user_interaction"].at) == (False, later)
    assert state["learning_progress"].disclose
    assert set(state) == set(CATEGORIES)


def test_a_word_that_is_none_is_refused(roster: Roster) -> None:
    with pytest.raises(Malformed, match="consent"):
        roster.put_consent("org_1", "u1", {"user_interaction": "maybe"})  # type: ignore[dict-item]
    with pytest.raises(Malformed, match="consent"):
        roster.put_consent("org_1", "u1", {"shoe_size": "denied"})  # type: ignore[dict-item]


words = st.tuples(
    st.sampled_from(["collect", "disclose"]),
    st.sampled_from(CATEGORIES),
    st.sampled_from(["granted", "denied"]),
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(words, max_size=10))
def test_the_last_word_holds_and_nothing_goes_out_without_leave(
    roster: Roster, said: list[Any]
) -> None:
    roster.erase_person("org_1", "u1")
    for purpose, category, word in said:
        form = (
            ConsentForm(disclose={category: word})
            if purpose == "disclose"
            else ConsentForm(**{category: word})
        )
        roster.put_consent("org_1", "u1", form)
    last = {(purpose, category): word for purpose, category, word in said}
    for category in CATEGORIES:
        denied = last.get(("collect", category)) == "denied" and category in FOLLOWING
        assert roster.collects("org_1", "u1", category) is not denied
        leave = last.get(("disclose", category)) == "granted"
        assert roster.discloses("org_1", "u1", category) is (leave and not denied)
