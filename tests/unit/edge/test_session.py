"""The conversation: any frame gets an answer or a goodbye, every publish exactly one, in order."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlc_broker.edge.admission import Admission
from mlc_broker.edge.codec import WireLimits
from mlc_broker.edge.session import (
    Action,
    Close,
    Send,
    Session,
    Submit,
    Subscribe,
    Unsubscribe,
    Watch,
)
from mlc_broker.model.batch import DUPLICATE, STORED, Outcome, Receipt
from mlc_broker.model.errors import RateLimited, Unauthenticated, Unavailable
from mlc_broker.model.event import Event
from mlc_broker.model.principal import Principal, Role

START = datetime(2025, 1, 27, 14, 30, tzinfo=UTC)
PUPIL = Principal(
    kind="user",
    id="usr_1",
    organization_id="org_1",
    role=Role.STUDENT,
    expires_at=START + timedelta(hours=1),
)
KEY = Principal(kind="ingest", id="k1", organization_id="org_1")
NOBODY = Principal(
    kind="anonymous", id="k2", organization_id="org_1", categories=frozenset({"user_interaction"})
)
LIMITS = WireLimits(batch_events_max=5, in_flight_max=3, message_bytes_max=20_000)


class StillClock:
    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time


class Door:
    """Knows three tokens."""

    def __init__(self) -> None:
        self.known = {"pupil": PUPIL, "key": KEY, "nobody": NOBODY}
        self.revoked: set[str] = set()

    def verify(self, bearer: str | None) -> Principal:
        if bearer not in self.known:
            raise Unauthenticated
        return self.known[bearer]

    def authorization(self, header: str | None) -> Principal:
        return self.verify((header or "").removeprefix("Bearer "))

    def is_current(self, principal: Principal) -> bool:
        return principal.id not in self.revoked


def category_of(event_type: str) -> str | None:
    return {"page_view": "user_interaction", "target_met": "learning_progress"}.get(event_type)


def session(token: str | None = "pupil", door: Door | None = None, **more: Any) -> Session:
    clock = more.pop("clock", StillClock())
    made = Session(
        door or Door(), Admission(category_of, clock), LIMITS, clock, server="mlc-broker/0", **more
    )
    if token is not None:
        (hello,) = told(made.receive(json.dumps({"op": "hello", "token": token})))
        assert hello["op"] == "welcome"
    return made


def event(number: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "event_id": f"evt_{number:08}",
        "event_type": "page_view",
        "timestamp": "2025-01-27T14:30:45.123Z",
        **fields,
    }


def publish(message_id: Any, *events: Any, **fields: Any) -> str:
    return json.dumps({"op": "publish", "id": message_id, "events": list(events), **fields})


def told(actions: list[Action]) -> list[Any]:
    return [json.loads(action.data) for action in actions if isinstance(action, Send)]


def codes(actions: list[Action]) -> list[int]:
    return [action.code for action in actions if isinstance(action, Close)]


def submitted(actions: list[Action]) -> Submit:
    (action,) = [action for action in actions if isinstance(action, Submit)]
    return action


def test_welcome_says_the_limits() -> None:
    (welcome,) = told(session(None).receive('{"op": "hello", "token": "pupil", "client": "x/1"}'))
    assert welcome == {
        "op": "welcome",
        "server": "mlc-broker/0",
        "time": "2025-01-27T14:30:00.000Z",
        "max_batch": 5,
        "max_in_flight": 3,
        "max_message_bytes": 20_000,
    }


def test_acks_come_in_the_order_of_the_publishes() -> None:
    talk = session()
    first = submitted(talk.receive(publish("b-1", event(1))))
    second = submitted(talk.receive(publish("b-2", event(2))))
    assert talk.receive(publish("b-3", *[event(i) for i in range(6)])) == []
    assert talk.full
    assert talk.answered(second.ticket, [STORED]) == []
    replies = told(talk.answered(first.ticket, [DUPLICATE]))
    assert [(reply["op"], reply["id"]) for reply in replies] == [
        ("ack", "b-1"),
        ("ack", "b-2"),
        ("error", "b-3"),
    ]
    assert replies[2]["code"] == "too_many"
    assert talk.in_flight == 0


def test_a_reply_uses_the_encoding_of_what_it_answers() -> None:
    talk = session()
    packed = msgspec.msgpack.encode({"op": "publish", "id": 1, "events": [event(1)]})
    ticket = submitted(talk.receive(packed)).ticket
    (send,) = talk.answered(ticket, [STORED])
    assert isinstance(send, Send)
    assert isinstance(send.data, bytes)
    assert msgspec.msgpack.decode(send.data)["stored"] == 1


def test_the_opening_message_closes_the_connection_when_it_is_wrong() -> None:
    for frame, code in (
        ("nonsense", "malformed"),
        ('{"op": "dance"}', "unknown_op"),
        ('{"op": "hello", "token": "wrong"}', "unauthenticated"),
        ('{"op": "hello"}', "unauthenticated"),
        ('{"op": "hello", "token": 5}', "malformed"),
        (publish("b", event()), "unauthenticated"),
        (publish("b", *[event()] * 6), "unauthenticated"),
        ('{"op": "subscribe", "id": "s"}', "unauthenticated"),
    ):
        talk = session(None)
        actions = talk.receive(frame)
        assert told(actions)[0]["code"] == code, frame
        assert codes(actions) == [1008], frame
        assert talk.closed
        assert talk.receive(publish("b", event())) == []


def test_later_mistakes_leave_it_open() -> None:
    talk = session()
    for frame, code in (
        ("nonsense", "malformed"),
        ('{"op": "dance"}', "unknown_op"),
        (publish("b", *[event()] * 6), "too_many"),
        ('{"op": "subscribe", "id": "s", "filter": {"x": 1}}', "malformed"),
    ):
        actions = talk.receive(frame)
        assert told(actions)[0]["code"] == code
        assert codes(actions) == []


def test_a_message_over_its_limit_closes_with_1009() -> None:
    actions = session().receive("x" * 20_001)
    assert told(actions)[0]["code"] == "too_large"
    assert codes(actions) == [1009]


def test_a_handshakes_credential_needs_no_token() -> None:
    talk = session(None)
    assert talk.authorize("Bearer pupil") == []
    assert told(talk.receive('{"op": "hello"}'))[0]["op"] == "welcome"
    wrong = session(None)
    assert codes(wrong.authorize("Bearer wrong")) == [1008]


def test_a_socket_ends_with_its_token_and_with_its_key() -> None:
    clock, door = StillClock(), Door()
    talk, other = session(clock=clock), session("key", door)
    assert talk.check() == other.check() == []
    clock.time += timedelta(hours=1)
    assert codes(talk.check()) == [1008]
    door.revoked.add("k1")
    assert told(other.check())[0]["code"] == "unauthenticated"


def test_a_second_hello_renews_the_token_but_not_the_person() -> None:
    door, clock = Door(), StillClock()
    door.known["later"] = msgspec.structs.replace(PUPIL, expires_at=START + timedelta(hours=3))
    talk = session(door=door, clock=clock)
    assert told(talk.receive('{"op": "hello", "token": "later"}'))[0]["op"] == "welcome"
    clock.time += timedelta(hours=2)
    assert talk.check() == []
    assert told(talk.receive('{"op": "hello", "token": "key"}'))[0]["code"] == "forbidden"


def test_the_credential_says_whose_the_events_are() -> None:
    batch = submitted(session().receive(publish("b", event(1), event(2, user_id="usr_2")))).batch
    mine = batch.events[0]
    assert mine is not None
    assert (mine.user_id, mine.organization_id) == ("usr_1", "org_1")
    assert mine.facts.received_at == START
    assert batch.receipts[1] is not None
    assert batch.receipts[1].reason == "forbidden"

    events = [event(1, user_id="usr_9"), event(2, organization_id="org_2")]
    batch = submitted(session("key").receive(publish("b", *events))).batch
    assert [receipt and receipt.reason for receipt in batch.receipts] == [None, "forbidden"]

    events = [
        event(1),
        event(2, user_id="u"),
        event(3, event_type="target_met"),
        event(4, event_type="new"),
    ]
    batch = submitted(session("nobody").receive(publish("b", *events))).batch
    assert [receipt and receipt.reason for receipt in batch.receipts] == [
        None,
        "forbidden",
        "forbidden",
        None,
    ]


def test_forged_facts_are_overwritten() -> None:
    forged = event(1, **{"(facts)": {"sample_rate": 0.01, "consented": True}})
    read = submitted(session().receive(publish("b", forged))).batch.events[0]
    assert isinstance(read, Event)
    assert read.facts.sample_rate == 1.0
    assert not read.facts.consented


def test_too_much_is_told_in_its_turn() -> None:
    def charge(_: Principal, events: int, __: int) -> None:
        if events > 1:
            raise RateLimited(retry_after_ms=70)

    talk = session(charge=charge)
    ticket = submitted(talk.receive(publish("b-1", event(1)))).ticket
    assert talk.receive(publish("b-2", event(1), event(2))) == []
    replies = told(talk.failed(ticket, Unavailable(retry_after_ms=5)))
    assert [(reply["id"], reply["code"], reply["retry_after_ms"]) for reply in replies] == [
        ("b-1", "unavailable", 5),
        ("b-2", "rate_limited", 70),
    ]


def test_subscriptions_become_actions() -> None:
    talk = session(subscriptions_max=2)
    (action,) = talk.receive('{"op": "subscribe", "id": "s", "filter": {"class_id": ["c"]}}')
    assert isinstance(action, Subscribe)
    assert action.filter.class_id == frozenset({"c"})
    (watch,) = talk.receive(
        '{"op": "watch", "id": "m", "metric": "events", "group_by": ["class_id"]}'
    )
    assert isinstance(watch, Watch)
    assert (
        told(talk.receive('{"op": "watch", "id": "m", "metric": "events"}'))[0]["code"]
        == "malformed"
    )
    assert told(talk.receive('{"op": "subscribe", "id": "t"}'))[0]["code"] == "too_many"
    stop, reply = talk.receive('{"op": "unsubscribe", "id": "s"}')
    assert isinstance(stop, Unsubscribe)
    assert told([reply])[0] == {"op": "unsubscribed", "id": "s"}
    assert isinstance(talk.receive('{"op": "subscribe", "id": "s"}')[0], Subscribe)
    refused = session("key").receive('{"op": "subscribe", "id": "s"}')
    assert told(refused)[0]["code"] == "forbidden"


class Talking(RuleBasedStateMachine):
    """Publishes and answers in any order: one answer each, in order, with counts that add up."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = session()
        self.asked: list[tuple[int, int | None]] = []  # id, events (None: an error is due)
        self.heard: list[Any] = []
        self.open: dict[int, int] = {}
        self.number = 0

    @rule(events=st.lists(st.sampled_from([event(1), 5, event(2, x=1)]), max_size=7))
    def publish(self, events: list[Any]) -> None:
        self.number += 1
        actions = self.talk.receive(publish(self.number, *events))
        self.asked.append((self.number, None if len(events) > 5 else len(events)))
        for action in actions:
            if isinstance(action, Submit):
                self.open[action.ticket] = len(action.batch)
        self.heard += told(actions)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.open)))
        count = self.open.pop(ticket)
        outcomes = data.draw(st.lists(st.sampled_from(Outcome), min_size=count, max_size=count))
        self.heard += told(self.talk.answered(ticket, [Receipt(outcome) for outcome in outcomes]))

    @invariant()
    def one_answer_each_in_order(self) -> None:
        assert [reply["id"] for reply in self.heard] == [
            i for i, _ in self.asked[: len(self.heard)]
        ]
        for reply, (_, events) in zip(self.heard, self.asked, strict=False):
            if events is None:
                assert reply["code"] == "too_many"
            else:
                assert sum(reply[outcome] for outcome in Outcome) == events
        assert self.talk.in_flight == len(self.asked) - len(self.heard)

    def teardown(self) -> None:
        for ticket, count in self.open.items():
            self.heard += told(self.talk.answered(ticket, [STORED] * count))
        assert len(self.heard) == len(self.asked)


TestTalking = Talking.TestCase
TestTalking.settings = settings(max_examples=30, stateful_step_count=25)

pieces = st.sampled_from(
    [
        '{"op": "publish", "id": "b", "events": [',
        '{"op": "hello", "token": "pupil"}',
        '"op": "subscribe", "id": 1',
        json.dumps(event(1)),
        "]}",
        "{",
        "}",
        ",",
        "\\ud800",
        '"',
        "\x00",
        "é",
    ]
)


@given(
    st.lists(
        st.binary(max_size=40) | st.text(max_size=40) | st.lists(pieces).map("".join), max_size=8
    )
)
def test_any_frames_get_answers_or_a_goodbye_and_never_an_exception(
    frames: list[str | bytes],
) -> None:
    talk = session(None)
    for frame in frames:
        if talk.closed:
            break
        assert talk.receive(frame), frame
        while talk.in_flight:
            talk.answered(talk._tickets, [STORED] * len(talk._line[0].event_ids))
