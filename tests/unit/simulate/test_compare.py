from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from mlc_broker.model.batch import Outcome
from mlc_broker.simulate.compare import Comparer
from mlc_broker.simulate.ledger import KEPT, Difference, Ledger, Sent
from mlc_broker.simulate.plan import Access

AT = datetime(2026, 1, 12, 9, tzinfo=UTC)
ACCESS = Access(ws_url="ws://h/", http_url="http://h", token_for=lambda *_: "t")


def one(outcome: Outcome | None) -> tuple[Ledger, Comparer, dict[str, Any]]:
    event = {
        "event_id": "run1-0001",
        "event_type": "target_met",
        "user_id": "usr_1",
        "timestamp": "2026-01-12T09:00:00.000Z",
        "properties": {"score": 7},
    }
    ledger = Ledger()
    sent = Sent(event=event, event_id="run1-0001", fate=KEPT, at=AT, outcome=outcome, sent=1)
    ledger.expect(sent)
    return ledger, Comparer(ledger, ACCESS, organization_id="org_1", run="run1"), event


def judged(ledger: Ledger, comparer: Comparer) -> dict[Difference, int]:
    comparer._judge(ledger.events.values())
    return dict(ledger.differences)


def test_what_was_stored_and_is_there_once_makes_no_difference() -> None:
    ledger, comparer, event = one(Outcome.STORED)
    comparer.found(dict(event))
    assert judged(ledger, comparer) == {}
    assert comparer.read == 1


def test_what_was_acknowledged_and_is_not_there_is_lost() -> None:
    ledger, comparer, _ = one(Outcome.STORED)
    assert judged(ledger, comparer) == {Difference.LOST: 1}


def test_what_is_there_twice_is_told_even_when_nothing_was_acknowledged() -> None:
    for outcome in (Outcome.STORED, None):
        ledger, comparer, event = one(outcome)
        comparer.found(dict(event))
        comparer.found(dict(event))
        assert judged(ledger, comparer) == {Difference.TWICE: 1}


def test_what_was_never_answered_may_be_there_or_not() -> None:
    ledger, comparer, event = one(None)
    assert judged(ledger, comparer) == {}
    comparer.found(dict(event))
    assert judged(ledger, comparer) == {}


def test_what_was_rejected_and_is_there_is_undead() -> None:
    ledger, comparer, event = one(Outcome.REJECTED)
    comparer.found(dict(event))
    assert judged(ledger, comparer) == {Difference.UNDEAD: 1}


def test_a_changed_score_or_a_shifted_time_is_told() -> None:
    ledger, comparer, event = one(Outcome.STORED)
    comparer.found(event | {"properties": {"score": 8}})
    comparer.found(event | {"timestamp": (AT + timedelta(hours=1)).isoformat()})
    assert ledger.differences[Difference.CHANGED] == 2


def test_an_event_of_this_run_that_nobody_sent_is_a_stranger_and_other_runs_are_not_ours() -> None:
    ledger, comparer, event = one(Outcome.STORED)
    comparer.found(event | {"event_id": "run1-9999"})
    comparer.found(event | {"event_id": "run2-0001"})
    assert dict(ledger.differences) == {Difference.STRANGER: 1}
