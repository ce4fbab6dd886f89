"""Frames to events: one bad event costs the others nothing, and nothing ever breaks the reader."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlc_broker.edge import codec
from mlc_broker.edge.codec import WireLimits
from mlc_broker.edge.messages import Hello, Message, Publish, Refused, SubscribeMessage
from mlc_broker.model.batch import DUPLICATE, STORED, Outcome, Receipt
from mlc_broker.model.event import Event
from mlc_broker.model.verdict import Reject

LIMITS = WireLimits(batch_events_max=10, event_bytes_max=2_000, depth_max=8)


def event(number: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "event_id": f"evt_{number:08}",
        "event_type": "page_view",
        "timestamp": "2025-01-27T14:30:45.123Z",
        **fields,
    }


def publish(*events: Any, **fields: Any) -> dict[str, Any]:
    return {"op": "publish", "id": "b-1", "events": list(events), **fields}


def read(message: Any, limits: WireLimits = LIMITS) -> Message:
    return codec.read_message(message if isinstance(message, str) else json.dumps(message), limits)


def fates(message: Message) -> list[str]:
    assert isinstance(message, Publish), message
    return [e.reason if isinstance(e, Reject) else "ok" for e in message.submission.events]


def test_a_publish_is_read_whole() -> None:
    said = read(publish(event(1), event(2), sent_at="2025-01-27T15:30:45.123+01:00"))
    assert isinstance(said, Publish)
    assert said.id == "b-1"
    assert [e.event_id for e in said.submission.events if isinstance(e, Event)] == [
        "evt_00000001",
        "evt_00000002",
    ]
    assert said.submission.sent_at is not None
    assert said.submission.event_ids is None


def test_one_bad_event_costs_the_others_nothing() -> None:
    bad: list[Any] = [
        5,
        None,
        "text",
        [],
        event(1, timestamp=None),
        event(2, event_id="short"),
        event(3, surprise=1),
        event(4, facts={"role": "teacher"}),
        event(5, timestamp="2025-01-27T14:30:45"),
        event(6, user_id=7),
    ]
    for one in bad:
        said = read(publish(event(100), one, event(200)))
        assert fates(said)[0] == fates(said)[2] == "ok", one
        assert fates(said)[1] == ("schema" if isinstance(one, dict) else "malformed")


def test_a_rejected_event_is_named_where_its_id_can_be_read() -> None:
    said = read(publish(event(1, timestamp=1), {"event_type": "x"}, event(3, event_id=5)))
    assert isinstance(said, Publish)
    assert said.submission.event_ids == ["evt_00000001", None, None]
    reject = said.submission.events[0]
    assert isinstance(reject, Reject)
    assert "$.timestamp" in reject.detail


def test_the_forged_facts_of_a_client_are_an_unknown_field_or_overwritten() -> None:
    said = read(publish(event(1, **{"(facts)": {"sample_rate": 0.5}}), event(2, facts={})))
    assert fates(said) == ["ok", "schema"]  # the first is overwritten by admission


def test_half_a_surrogate_pair_and_deep_nesting_cost_only_their_event() -> None:
    deep = "[" * 3_000 + "]" * 3_000
    raw = json.dumps(event(1, properties={"x": "HERE"}))
    text = (
        '{"op": "publish", "id": 7, "events": ['
        + ", ".join(
            [json.dumps(event(9)), raw.replace('"HERE"', deep), raw.replace("HERE", "\\ud800,]}")]
        )
        + "]}"
    )
    assert fates(read(text)) == ["ok", "malformed", "malformed"]


def test_text_that_is_no_json_is_malformed_as_a_whole() -> None:
    good = json.dumps(event(1))
    for text in (
        '{"op": "publish", "id": "b", "events": [{"a": }]}',
        '{"op": "publish", "id": "b", "events": [' + good,
        '{"op": "publish", "id": "b", "events": [' + good + ", {]}",
        '{"op": "publish", "id": "b", "events": [NaN]}',
        "",
        "nonsense",
        "[]",
        "5",
        '{"id": "b"}',
    ):
        said = read(text)
        assert isinstance(said, Refused), text
        assert said.error.code == "malformed", text


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"op": "dance", "id": "b"}, "unknown_op"),
        ({"op": 5}, "malformed"),
        ({"op": "publish", "events": []}, "malformed"),
        ({"op": "publish", "id": "b"}, "malformed"),
        ({"op": "publish", "id": "b", "events": {}}, "malformed"),
        ({"op": "publish", "id": "b", "events": [], "sent_at": "noon"}, "malformed"),
        ({"op": "publish", "id": "b", "events": [1] * 11}, "too_many"),
        ({"op": "publish", "id": "b", "events": [event(i) for i in range(11)]}, "too_many"),
        ({"op": "subscribe", "id": "s", "filter": {"klass": ["c"]}}, "malformed"),
        ({"op": "watch", "id": "s"}, "malformed"),
        ({"op": "hello", "token": 5}, "malformed"),
    ],
)
def test_what_cannot_be_carried_out_is_told_with_its_code(message: Any, code: str) -> None:
    for frame in (json.dumps(message), msgspec.msgpack.encode(message)):
        said = codec.read_message(frame, LIMITS)
        assert isinstance(said, Refused)
        assert said.error.code == code
        if "id" in message:
            assert said.id == message["id"]


def test_an_event_over_its_limits_is_malformed_alone() -> None:
    nested: Any = 1
    for _ in range(9):
        nested = [nested]
    wide: Any = {"a": [[], [], [], [], [], [], [], [], [], [], [], [], []]}
    events = [
        event(1, properties={"x": "y" * 2_001}),
        event(2, context={"x": nested}),
        event(3, properties=wide),
    ]
    assert fates(read(publish(*events))) == ["malformed", "malformed", "ok"]
    # … and the same when another event forces the slow way
    assert fates(read(publish(*events, 5))) == ["malformed", "malformed", "ok", "malformed"]


def test_messagepack_takes_the_same_way() -> None:
    frame = msgspec.msgpack.encode(publish(event(1), event(2, timestamp=5), receipts="all"))
    said = codec.read_message(frame, LIMITS)
    assert fates(said) == ["ok", "schema"]
    assert isinstance(said, Publish)
    assert said.submission.receipts_all


def test_what_json_cannot_say_costs_only_its_event() -> None:
    odd = [
        float("nan"),
        float("inf"),
        b"bytes",
        2**64 - 1,
        {5: "a key"},
        msgspec.msgpack.Ext(7, b"x"),
    ]
    events = [event(i, properties={"x": value}) for i, value in enumerate(odd)]
    frame = msgspec.msgpack.encode(publish(*events, event(99)))
    said = codec.read_message(frame, LIMITS)
    assert fates(said) == ["malformed"] * len(odd) + ["ok"]
    assert isinstance(said, Publish)
    assert said.submission.event_ids is not None
    assert said.submission.event_ids[0] == "evt_00000000"
    assert said.submission.events[-1] == codec.read_event(json.dumps(event(99)).encode(), LIMITS)


def test_bad_utf8_in_messagepack_costs_only_its_event() -> None:
    frame = msgspec.msgpack.encode(publish(event(1, properties={"x": "ABCD"}), event(2)))
    assert fates(codec.read_message(frame.replace(b"ABCD", b"A\xff\xfeD"), LIMITS)) == [
        "malformed",
        "ok",
    ]


def test_an_ack_lists_what_is_neither_stored_nor_duplicate() -> None:
    receipts = [
        STORED,
        Receipt(Outcome.REJECTED, "schema", "why"),
        DUPLICATE,
        Receipt(Outcome.RETRY),
        Receipt(Outcome.STORED),
    ]
    ids = ["a", "b", "c", None, "e"]
    said = json.loads(codec.encode(codec.ack("b-1", receipts, ids), binary=False))
    assert said == {
        "op": "ack",
        "id": "b-1",
        "stored": 2,
        "duplicate": 1,
        "dropped": 0,
        "rejected": 1,
        "quarantined": 0,
        "retry": 1,
        "retry_after_ms": 1000,
        "receipts": [
            {
                "index": 1,
                "event_id": "b",
                "outcome": "rejected",
                "reason": "schema",
                "detail": "why",
            },
            {"index": 3, "outcome": "retry"},
        ],
    }
    every = codec.ack("b-1", receipts, ids, receipts_all=True)
    assert [row.index for row in every.receipts] == [0, 1, 2, 3, 4]
    packed = codec.encode(codec.ack("b-1", receipts, ids), binary=True)
    assert isinstance(packed, bytes)
    assert msgspec.msgpack.decode(packed) == said


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
    | st.sampled_from(["publish", "hello", "subscribe", "watch", "b-1", "2025-01-01T00:00:00Z"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["op", "id", "events", "token", "filter", "event_id", "timestamp"])
            | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(st.binary() | st.text(), st.data())
def test_any_frame_is_read_or_refused(frame: bytes | str, data: st.DataObject) -> None:
    assert codec.read_message(frame, LIMITS) is not None
    value = data.draw(values)
    text = json.dumps(value)
    assert codec.read_message(text, LIMITS) is not None
    cut = data.draw(st.integers(0, len(text)))
    assert (
        codec.read_message(text[:cut] + data.draw(st.text(max_size=2)) + text[cut:], LIMITS)
        is not None
    )


@given(st.lists(st.one_of(values, st.builds(event, st.integers(0, 99))), max_size=10))
def test_a_publish_has_a_fate_for_every_event(events: list[Any]) -> None:
    said = read(publish(*events))
    if isinstance(said, Refused):  # NaN and Infinity are no JSON
        assert "NaN" in json.dumps(events) or "Infinity" in json.dumps(events)
        return
    assert isinstance(said, Publish)
    assert len(said.submission.events) == len(events)
    for given_, read_ in zip(events, said.submission.events, strict=True):
        alone = codec.read_event(json.dumps(given_).encode(), LIMITS)
        assert isinstance(alone, Event) == isinstance(read_, Event)


def test_other_messages_are_read() -> None:
    assert read({"op": "hello", "token": "t", "later": 1}) == Hello("t")
    said = read(
        {"op": "subscribe", "id": "s", "filter": {"event_type": ["a", "b"], "class_id": "c"}}
    )
    assert isinstance(said, SubscribeMessage)
    assert said.filter is not None
    assert said.filter.as_filter().event_type == frozenset({"a", "b"})
    assert said.filter.as_filter().class_id == frozenset({"c"})


@given(st.text(st.sampled_from("[]{}a\x7f\x1bé")), st.integers(0, 3_000))
def test_openings_are_counted_alike_in_short_and_long_texts(text: str, more: int) -> None:
    for said in (text, text + "ab" * more):
        expected = said.count("[") + said.count("{")
        assert codec.openings(said) == codec.openings(said.encode()) == expected
