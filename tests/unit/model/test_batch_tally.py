"""Receipts are counted, not read one by one."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mlc_broker.model.batch import DUPLICATE, STORED, Outcome, Receipt, tally

RECEIPTS = st.one_of(
    st.sampled_from([STORED, DUPLICATE]),
    st.builds(Receipt, st.sampled_from(Outcome), st.sampled_from(["", "schema", "coppa"])),
)


@given(st.lists(RECEIPTS))
def test_a_tally_counts_what_reading_each_receipt_would(receipts: list[Receipt]) -> None:
    assert tally(receipts) == Counter((each.outcome, each.reason) for each in receipts)


def test_a_tally_of_nothing_names_no_outcome() -> None:
    assert not tally([])
    assert dict(tally([STORED, STORED])) == {(Outcome.STORED, ""): 2}
