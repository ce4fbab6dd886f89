"""A receipt says which field was wrong and why, and never what somebody wrote there."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlc_broker.model.batch import Batch, Origin, Outcome, Receipt
from mlc_broker.model.principal import Principal
from mlc_broker.store.receipts import DETAIL_CHARACTERS_MAX, ReceiptBook, without_values
from mlc_broker.testing import inline, make_event
from tests.fakes_store import LESSON, SetClock


def shown(detail: str, reason: str = "schema") -> str:
    return without_values(Receipt(Outcome.REJECTED, reason, detail))


@pytest.mark.parametrize(
    "harmless",
    [
        "Expected `int`, got `str` - at `$.properties.score`",
        "Expected `int | null`, got `str` - at `$.properties.steps[...].n`",
        "properties.score is above 100",
        "An anonymous key sends events without a user_id.",
    ],
)
def test_the_field_and_the_kind_of_mistake_are_told(harmless: str) -> None:
    assert shown(harmless) == harmless


@pytest.mark.parametrize(
    ("detail", "secret"),
    [
        ("Invalid enum value 'Ann Smith' - at `$.properties.stage_type`", "Ann"),
        ('"Ann Smith" is not of type "integer"', "Ann"),
        ('{"name": "Ann Smith"} is not of type "integer"', "Ann"),
        ("+49 170 1234567 is not a string", "1234567"),
        ("Object contains unknown field `Ann Smith`", "Ann"),
        ("ann@example.org is no id", "ann"),
        ('there is no event type "org.Ann"; GET /v1/schemas lists them', "Ann"),
        ("'Ann Smi", "Ann"),
    ],
)
def test_a_value_is_not_told(detail: str, secret: str) -> None:
    assert secret not in shown(detail)


def test_what_a_plugin_says_is_not_kept() -> None:
    assert shown("Ann is implausible", "implausible") == ""


@given(st.text(alphabet=st.characters(blacklist_characters="'")))
def test_nothing_between_quotes_comes_through_and_the_rest_is_bounded(text: str) -> None:
    told = shown(f"Invalid enum value 'secretvalue{text}' - at `$.a`")
    assert "secretvalue" not in told
    assert len(told) <= DETAIL_CHARACTERS_MAX


async def test_the_book_gives_the_detail_before_and_after_it_is_written(tmp_path: Path) -> None:
    book = ReceiptBook(
        tmp_path / "receipts.db",
        clock=SetClock(LESSON),
        hash_id=lambda org, name: blake2b(f"{org} {name}".encode(), digest_size=16).digest(),
        in_thread=inline,
    )
    try:
        sender = Principal(kind="ingest", id="key", organization_id="org_1")
        events = [make_event(event_id=f"evt_{n:05}") for n in range(20_000)]
        batch = Batch(Origin(principal=sender, received_at=LESSON), events)
        receipts = [
            Receipt(Outcome.REJECTED, "schema", f"wrong - at `$.properties.{'x' * (n % 199)}{n}`")
            for n in range(20_000)
        ]
        book.note(batch, receipts)
        for _ in range(2):
            told = await book.find(["org_1"], "evt_00003")
            assert told is not None
            assert told.detail == "wrong - at `$.properties.xxx3`"
            await book.flush()
        last = await book.find(["org_1"], "evt_19999")
        assert last is not None
        assert (last.outcome, last.reason) == (Outcome.REJECTED, "schema")
    finally:
        book.close()
