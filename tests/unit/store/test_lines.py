"""A line says the same, whether what it holds was remembered or made anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from mlc_broker.model.event import NO_FACTS, Event, Facts
from mlc_broker.store.columns import Dictionary, RowWriter
from mlc_broker.store.lines import FactWriter, LineWriter, decode_line, encode_line

NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
STORED_AT = "2026-11-20T09:30:01.000Z"
LATER = "2026-11-20T09:30:02.000Z"


def test_the_facts_of_a_person_are_told_alike_in_each_submission_but_for_its_times() -> None:
    known = Facts(received_at=NOW, role="student", class_ids=("cls_1",), streams=("alerts",))
    again = msgspec.structs.replace(known, received_at=NOW + timedelta(seconds=1))
    facts = FactWriter(RowWriter(Dictionary(), lambda _: None))

    first = _meta(facts, known, STORED_AT)
    second = _meta(facts, again, LATER)

    assert facts.of(known) is facts.of(again)
    assert first.pop("received_at") == "2026-11-20T09:30:00.000Z"
    assert second.pop("received_at") == "2026-11-20T09:30:01.000Z"
    assert (first.pop("stored_at"), second.pop("stored_at")) == (STORED_AT, LATER)
    assert first == second
    assert first == {
        "sample_rate": 1.0,
        "role": "student",
        "class_ids": ["cls_1"],
        "streams": ["alerts"],
    }


def test_a_corrected_clock_is_told_of_its_own_event_only() -> None:
    facts = FactWriter(RowWriter(Dictionary(), lambda _: None))
    for hour in (1, 2):
        said = Facts(received_at=NOW, client_timestamp=NOW - timedelta(hours=hour))
        told = _meta(facts, said, STORED_AT)["client_timestamp"]
        assert told == f"2026-11-20T0{9 - hour}:30:00.000Z"


def test_whose_arrival_is_not_known_has_no_time_of_it() -> None:
    event = Event(event_id="evt_00001", event_type="page_view", timestamp=NOW, facts=NO_FACTS)
    meta = decode_line(encode_line(event, STORED_AT))["meta"]
    assert meta == {"stored_at": STORED_AT, "sample_rate": 1.0}


def _meta(writer: FactWriter, facts: Facts, stored_at: str) -> dict[str, Any]:
    _, rest = writer.of(facts)
    meta: dict[str, Any] = msgspec.json.decode(LineWriter(stored_at).meta(facts, rest))
    return meta
