"""What crosses the pipe to a plugin's own process comes out as it went in."""

from __future__ import annotations

import msgspec
import pytest

from mlc_broker.model.errors import ProcessorFailed
from mlc_broker.model.event import Event
from mlc_broker.model.person import User
from mlc_broker.model.principal import Role
from mlc_broker.model.verdict import Drop, Reject, Verdict
from mlc_broker.pipeline import frames
from mlc_broker.pipeline.frames import Ask, Found, Parcel, Verdicts, Work, encode
from mlc_broker.pipeline.isolation import found
from mlc_broker.testing import LESSON_BEGINS, DictRoster, make_event, odd_events


def test_events_and_verdicts_cross_the_pipe_unchanged() -> None:
    events = odd_events()
    work = frames.to_child.decode(encode(Work([Parcel.of(event) for event in events])))
    assert [parcel.event() for parcel in work.events] == events
    verdicts: list[Verdict] = list(events)
    verdicts[:3] = [Drop("a"), Reject("b", "c"), make_event("page_view")]
    told = Verdicts(frames.words_of(events, verdicts), [], 0.1)
    answer = frames.to_parent.decode(encode(told))
    back = frames.verdicts_of(events, answer.words)
    assert back == verdicts
    assert back[3] is events[3]


@pytest.mark.parametrize("bad", [b"", b"\xc1", msgspec.msgpack.encode({"type": "Verdicts"})])
def test_nonsense_on_the_pipe_is_an_error_not_a_verdict(bad: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        frames.to_parent.decode(bad)


def test_the_roster_answers_what_it_is_asked_and_nothing_else() -> None:
    ann = User(organization_id="org_1", role=Role.STUDENT)
    roster = DictRoster({"ann": ann}, class_ids=("cls_1",))
    assert found(roster, Ask("user", "org_1", "ann")) == Found(user=ann)
    assert found(roster, Ask("user", "org_1", "bob")) == Found()
    assert found(roster, Ask("membership", "org_1", "ann", LESSON_BEGINS)).class_ids == ("cls_1",)
    assert found(roster, Ask("collects", "org_1", "ann", category="user_interaction")).yes
    assert not found(roster, Ask("erased", "org_1", "ann", LESSON_BEGINS)).yes
    with pytest.raises(ProcessorFailed):
        found(roster, Ask("everybody", "org_1"))


def test_an_event_keeps_its_type_on_the_way() -> None:
    assert isinstance(Parcel.of(make_event()).event(), Event)
