from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mlc_broker.model.batch import Outcome
from mlc_broker.simulate.ledger import KEPT, SAMPLED, Difference, Ledger, Sent, rejected
from mlc_broker.simulate.wire import take_ack


def sent(number: int, fate: Any = KEPT, *, copy: bool = False, times: int = 1) -> Sent:
    event_id = f"run-1-{number:05d}"
    event = {"event_id": event_id, "event_type": "user_login", "user_id": "usr_1"}
    return Sent(event=event, event_id=event_id, fate=fate, copy=copy, sent=times)


def ack(receipts: list[dict[str, Any]] | None = None, **counts: int) -> dict[str, Any]:
    return dict.fromkeys(Outcome, 0) | counts | {"op": "ack", "receipts": receipts or []}


def receipt(index: int, outcome: str, reason: str = "") -> dict[str, Any]:
    event_id = f"run-1-{index:05d}"
    return {"index": index, "event_id": event_id, "outcome": outcome, "reason": reason}


def take(batch: list[Sent], answer: dict[str, Any], *, whole: bool = False) -> Ledger:
    ledger = Ledger()
    for one in batch:
        ledger.expect(one)
    take_ack(ledger, batch, answer, whole=whole)
    return ledger


def test_events_that_an_ack_does_not_list_are_stored() -> None:
    batch = [sent(0), sent(1)]
    assert not take(batch, ack(stored=2)).differences
    assert [one.outcome for one in batch] == [Outcome.STORED, Outcome.STORED]


def test_counts_that_do_not_add_up_break_the_protocol() -> None:
    assert take([sent(0), sent(1)], ack(stored=1)).differences[Difference.PROTOCOL] == 1


def test_a_fresh_event_called_a_duplicate_is_a_difference() -> None:
    assert take([sent(0)], ack(duplicate=1)).differences[Difference.PROTOCOL] == 1
    listed = ack([receipt(0, "duplicate")], duplicate=1)
    assert take([sent(0)], listed, whole=True).differences[Difference.WRONG_RECEIPT] == 1


def test_an_event_sent_twice_may_be_a_duplicate() -> None:
    assert not take([sent(0, times=2)], ack(duplicate=1)).differences
    listed = ack([receipt(0, "duplicate")], duplicate=1)
    assert not take([sent(0, times=2)], listed, whole=True).differences


def test_a_copy_that_is_stored_a_second_time_is_a_difference() -> None:
    ledger = Ledger()
    first = sent(0)
    ledger.expect(first)
    ledger.receive(first, Outcome.STORED)
    ledger.receive(sent(0, copy=True), Outcome.STORED)
    assert ledger.differences[Difference.WRONG_RECEIPT] == 1


def test_a_duplicate_that_no_receipt_names_is_the_copy_before_the_event_sent_again() -> None:
    batch = [sent(0, times=2), sent(0, copy=True, times=2)]
    assert not take(batch, ack(stored=1, duplicate=1)).differences
    assert [one.outcome for one in batch] == [Outcome.STORED, Outcome.DUPLICATE]


def test_a_bad_event_must_be_rejected_for_its_own_reason() -> None:
    right = ack([receipt(0, "rejected", "schema")], rejected=1)
    assert not take([sent(0, rejected("schema"))], right).differences
    assert take([sent(0, rejected("unknown_type"))], right).differences
    assert take([sent(0, rejected("schema"))], ack(stored=1)).differences


def test_a_learning_event_must_not_be_sampled_out_and_a_page_view_may() -> None:
    dropped = ack([receipt(0, "dropped", "sampled")], dropped=1)
    assert take([sent(0, KEPT)], dropped).differences
    assert not take([sent(0, SAMPLED)], dropped).differences


def test_what_says_retry_is_handed_back_to_be_sent_again() -> None:
    batch = [sent(0), sent(1)]
    ledger = Ledger()
    answer = ack([receipt(1, "retry")], stored=1, retry=1) | {"retry_after_ms": 700}
    again = take_ack(ledger, batch, answer, whole=False)
    assert again.batch == [batch[1]]
    assert again.after_seconds == 0.7
    assert not ledger.differences


def test_a_late_retry_does_not_undo_an_earlier_answer() -> None:
    ledger = Ledger()
    one = sent(0)
    ledger.receive(one, Outcome.STORED)
    ledger.receive(one, Outcome.RETRY)
    assert one.outcome is Outcome.STORED


def test_events_beyond_the_limit_of_the_ledger_are_counted_not_kept() -> None:
    ledger = Ledger(events_max=2)
    for number in range(5):
        ledger.expect(sent(number))
    assert len(ledger.events) == 2
    assert ledger.beyond == 3


@given(st.dictionaries(st.sampled_from([*Outcome, "receipts", "retry_after_ms"]), st.integers()))
def test_an_ack_of_any_numbers_is_judged_and_never_breaks_the_simulator(
    answer: dict[str, Any],
) -> None:
    answer["receipts"] = []
    take([sent(0), sent(1, SAMPLED)], answer)
