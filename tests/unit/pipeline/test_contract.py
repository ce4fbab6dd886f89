"""A plugin's answer is taken at its word in nothing that matters."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from mlc_broker.model.catalog import Catalog
from mlc_broker.model.errors import ProcessorFailed
from mlc_broker.model.event import Event, Facts
from mlc_broker.model.verdict import Drop, Reject
from mlc_broker.pipeline.contract import REASONS_MAX, Contract, describe
from mlc_broker.testing import make_event

WRONG: Any = 5
FACTS = Facts(role="student", retention_days=100)


def contract() -> Contract:
    return Contract("plugin", outsider=True, catalog=Catalog.standard())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"user_id": "usr_2"}, "changed user_id"),
        ({"session_id": None}, "changed session_id"),
        ({"event_type": "page_view"}, "changed event_type"),
        ({"facts": replace(FACTS, role="teacher")}, "changed facts"),
        ({"facts": replace(FACTS, sample_rate=0.5)}, "changed facts"),
        ({"facts": replace(FACTS, retention_days=101)}, "loosened"),
        ({"retention_days": 101}, "loosened"),
        ({"retention_days": None}, "loosened"),
        ({"privacy_level": "standard"}, "loosened"),
        ({"properties_json": Raw(b"{half")}, "no event"),
        ({"retention_days": "long"}, "no event"),
        ({"facts": 5}, "no event"),
        ({"properties": {"score": 187}}, "cannot have"),
        ({"properties": {"text": "x" * 70_000}}, "65536 is the most"),
    ],
)
def test_what_a_plugin_may_not_change(changes: dict[str, Any], words: str) -> None:
    event = make_event(facts=FACTS, privacy_level="sensitive", retention_days=100)
    with pytest.raises(ProcessorFailed, match=words):
        contract().check([event], [event.but(**changes)])


@pytest.mark.parametrize(
    "changes",
    [
        {"facts": replace(FACTS, concepts=("tempo",), streams=("alerts",), retention_days=50)},
        {"privacy_level": "pii", "retention_days": 7},
        {"context": {"assignment_id": "asg_1"}, "device_info": {}},
    ],
)
def test_what_a_plugin_may_change(changes: dict[str, Any]) -> None:
    event = make_event(facts=FACTS, privacy_level="sensitive", retention_days=100)
    changed = event.but(**changes)
    assert contract().check([event], [changed]) == [changed]


@pytest.mark.parametrize(
    "answer",
    [None, 5, "x", [], [None], {"a": 1}, iter([]), [Drop(WRONG)], [Drop("x" * 65)], [Drop("")],
     [Reject("a", WRONG)], [object()]],
)  # fmt: skip
def test_nonsense_is_no_answer(answer: Any) -> None:
    with pytest.raises(ProcessorFailed):
        contract().check([make_event()], answer)


def test_reasons_are_words_and_after_so_many_they_are_other() -> None:
    one, event = contract(), make_event()
    for number in range(REASONS_MAX):
        assert one.check([event], [Drop(f"reason {number}")]) == [Drop(f"reason {number}")]
    assert one.check([event], [Drop("one too many")]) == [Drop("other")]
    assert one.check([event], [Reject("reason 3", "d" * 900)]) == [Reject("reason 3", "d" * 500)]


def test_an_event_cannot_be_changed_by_who_holds_it() -> None:
    event = make_event()
    before = event.but()
    event.properties["score"] = 5
    event.properties.clear()
    with pytest.raises(AttributeError):
        event.user_id = "usr_2"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        event.facts.role = "system_admin"  # type: ignore[misc]
    assert event == before
    assert event.properties["score"] == 87


def test_an_exception_that_cannot_be_read_is_told_by_its_name() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe(Odd()) == "Odd"
    assert describe(ValueError("one\ntwo")) == "ValueError: one"


def test_a_subclass_of_event_is_no_event() -> None:
    class Sly(Event, frozen=True, kw_only=True):
        pass

    event = make_event()
    sly = Sly(event_id=event.event_id, event_type=event.event_type, timestamp=event.timestamp)
    with pytest.raises(ProcessorFailed):
        contract().check([event], [sly])
