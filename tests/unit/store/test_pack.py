import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc_broker.model.errors import ShardCorrupt
from mlc_broker.model.event import Event, Facts
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import CATEGORIES, Grant, Role, Scope
from mlc_broker.store.columns import (
    DAY_MS,
    ROW,
    Dictionary,
    RowWriter,
    by_column,
    by_row,
    epoch_ms,
    keys_of,
)
from mlc_broker.store.lines import decode_line, encode_line, event_of
from mlc_broker.store.pack import Pack, pack_of
from mlc_broker.store.select import Selection, mentions, select
from tests.fakes_store import LESSON, TYPES, event

STORED_AT = "2026-11-20T09:30:01.000Z"
names = st.sampled_from(["ada", "ben", "eve", "x", ""])
ids = names.map(lambda name: name or None)


def packed(events: list[Event], dictionary: Dictionary) -> Pack:
    writer = RowWriter(dictionary, TYPES.get)
    rows = [writer.row(e, epoch_ms(e), writer.facts(e.facts)) for e in events]
    lines = [encode_line(e, STORED_AT) for e in events]
    frames = [
        (len(lines[i : i + 3]), b"".join(line + b"\n" for line in lines[i : i + 3]))
        for i in range(0, len(lines), 3)
    ]
    hashes = b"".join(bytes([n % 256]) * 16 for n in range(len(events)))
    return pack_of(np.frombuffer(b"".join(rows), ROW), hashes, frames, recv=7)


def test_a_line_is_what_a_reader_gets() -> None:
    facts = Facts(received_at=LESSON, role="student", class_ids=("c1",), retention_days=30)
    one = event(1, properties={"score": 4321, "who": "Zoë\n"}, facts=facts)
    assert decode_line(encode_line(one, STORED_AT)) == {
        "event_id": "evt_00000001",
        "event_type": "game_stage_complete",
        "timestamp": "2026-11-20T09:30:01.000Z",
        "user_id": "ada",
        "organization_id": "org",
        "properties": {"score": 4321, "who": "Zoë\n"},
        "retention_days": 30,
        "meta": {
            "received_at": "2026-11-20T09:30:00.000Z",
            "stored_at": STORED_AT,
            "sample_rate": 1.0,
            "role": "student",
            "class_ids": ["c1"],
        },
    }


def test_a_line_has_no_line_end_within() -> None:
    assert b"\n" not in encode_line(event(1, properties={"text": "a\nb"}), STORED_AT)


def test_an_event_comes_back_from_its_line_with_its_facts() -> None:
    facts = Facts(
        received_at=LESSON,
        client_timestamp=LESSON + timedelta(hours=1),
        sample_rate=0.25,
        role="student",
        class_ids=("c1", "c2"),
        teacher_ids=("t1",),
        subscription="solo",
        concepts=("rhythm",),
        streams=("alerts",),
        generic=True,
        retention="sensitive",
        retention_days=20,
    )
    one = event(1, facts=facts, context={"page_url": "/x"}, privacy_level="sensitive")
    back = event_of(encode_line(one, STORED_AT))
    assert back.facts == facts
    assert back == msgspec.structs.replace(one, retention_days=20)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2150, 1, 1), timezones=st.just(UTC)))
def test_column_and_line_agree_on_the_millisecond(moment: datetime) -> None:
    one = event(1, timestamp=moment)
    cut = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    line = decode_line(encode_line(one, STORED_AT))
    assert datetime.fromisoformat(line["timestamp"]) == cut
    assert epoch_ms(one) == (cut - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@given(st.integers(1, 40), st.data())
@settings(max_examples=40, deadline=None)
def test_any_lines_of_a_pack_can_be_opened_in_any_order(n: int, data: st.DataObject) -> None:
    events = [event(i, properties={"n": i}) for i in range(n)]
    pack = Pack.from_row(packed(events, Dictionary()).to_row())
    pack.verify()
    wanted = data.draw(st.lists(st.integers(0, n - 1)))
    assert [decode_line(line)["properties"]["n"] for line in pack.lines(wanted)] == wanted
    assert [decode_line(line)["properties"]["n"] for line in pack.lines()] == list(range(n))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_flipped_bit_of_a_pack_passes_its_checksum(data: st.DataObject) -> None:
    row = list(packed([event(i) for i in range(5)], Dictionary()).to_row())
    field = data.draw(st.integers(0, len(row) - 1))
    if isinstance(row[field], bytes):
        at = data.draw(st.integers(0, len(row[field]) - 1))
        spoiled = bytearray(row[field])
        spoiled[at] ^= 1 << data.draw(st.integers(0, 7))
        row[field] = bytes(spoiled)
    else:
        row[field] += data.draw(st.sampled_from([-1, 1, 1 << 20]))
    with pytest.raises(ShardCorrupt, match="checksum"):
        Pack.from_row(row).verify()


def test_rows_survive_the_way_through_columns() -> None:
    rows = packed([event(i, user_id=f"u{i}") for i in range(9)], Dictionary()).rows()
    assert (by_row(by_column(rows), 9) == rows).all()


def test_a_pack_refuses_parts_of_different_length() -> None:
    with pytest.raises(ValueError, match="1 rows"):
        pack_of(np.zeros(1, ROW), b"", [], recv=0)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (b'{"class_id":"c","teacher_id":5}', ["c", None, None, None]),
        (b"{}", [None] * 4),
        (b'{"x":{"class_id":"c"},"sequence_id":"s"}', [None, None, None, "s"]),
    ],
)
def test_ids_are_found_in_a_context_beside_what_is_no_text(
    context: bytes, expected: list[str | None]
) -> None:
    assert list(msgspec.structs.astuple(keys_of(context))) == expected


def test_a_dictionary_gives_its_codes_in_order_and_keeps_them() -> None:
    dictionary = Dictionary(["a", "b"])
    assert [dictionary.code[word] for word in ("a", "b", "c", "a", None, "")] == [1, 2, 3, 1, 0, 0]
    assert dictionary.words == ["", "a", "b", "c"]
    assert dictionary.codes(["c", "unknown"]) == [3]
    both, one = dictionary.code_of_set(("k1", "k2")), dictionary.code_of_set(("k2",))
    assert dictionary.sets_with(frozenset({"k2"})) == [both, one]
    assert dictionary.sets_with(frozenset({"k"})) == []


# --- a scope means the same on packed columns and on decoded lines ---

events = st.builds(
    lambda number, kind, user, org, session, at, classes, role, days, context, game: event(
        number,
        event_type=kind,
        user_id=user,
        organization_id=org,
        session_id=session,
        timestamp=LESSON + timedelta(days=at),
        context={key: value for key, value in context.items() if value},
        properties={"game_id": game} if game else {},
        facts=Facts(
            received_at=LESSON, role=role, class_ids=tuple(sorted(classes)), retention_days=days
        ),
    ),
    st.integers(0, 10**6),
    st.sampled_from([*TYPES, "org.own"]),
    ids,
    st.sampled_from(["org", "other", None]),
    ids,
    st.integers(0, 40),
    st.sets(st.sampled_from(["c1", "c2", "c3"])),
    st.sampled_from([*map(str, Role), None]),
    st.integers(1, 40),
    st.fixed_dictionaries(
        {
            key: st.sampled_from(["c1", "c2", "ada", "ben", ""])
            for key in ("class_id", "teacher_id", "assignment_id", "sequence_id")
        }
    ),
    ids,
)


def some(values: list[str]) -> st.SearchStrategy[frozenset[str] | None]:
    return st.none() | st.frozensets(st.sampled_from([*values, "nobody"]), max_size=3)


people = ["ada", "ben", "eve"]
classes = ["c1", "c2", "c3"]
moments = st.none() | st.integers(-1, 41).map(lambda day: LESSON + timedelta(days=day))
filters = st.builds(
    Filter,
    begin=moments,
    end=moments,
    event_type=some([*TYPES, "org.own"]),
    category=some([*CATEGORIES]),
    user_id=some(people),
    class_id=some(classes),
    teacher_id=some(people),
    assignment_id=some(people),
    sequence_id=some(people),
    game_id=some(people),
    session_id=some(people),
    organization_id=some(["org", "other"]),
)
rare_filters = st.builds(
    lambda full, axes: Filter(**{axis: getattr(full, axis) for axis in axes}),
    filters,
    st.sets(st.sampled_from(Filter.__struct_fields__), max_size=2),
)
grants = st.builds(
    Grant,
    user_ids=some(people),
    class_ids=some(classes),
    teacher_ids=some(people),
    categories=some([*CATEGORIES]),
    roles=some([*map(str, Role)]),
)
scopes = st.builds(
    Scope,
    organization_id=st.sampled_from([None, "org", "other", "none"]),
    grants=st.lists(grants, max_size=3).map(tuple),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(events, min_size=1, max_size=12), rare_filters, scopes, st.integers(0, 60))
def test_a_selection_means_the_same_on_columns_and_on_lines(
    some_events: list[Event], wanted: Filter, scope: Scope, today: int
) -> None:
    dictionary = Dictionary()
    pack = packed(some_events, dictionary)
    selection = Selection(
        scope=scope,
        filter=wanted,
        now_ms=epoch_ms(event(0)) + today * DAY_MS,
        hidden=frozenset({("org", "eve")}),
    )
    chosen = np.flatnonzero(select(pack.rows(), dictionary, selection)).tolist()
    by_line = [i for i, line in enumerate(pack.lines()) if fits(decode_line(line), selection)]
    assert chosen == by_line
    if by_line:
        words = {code for name in MENTIONED for code in pack.rows()[name].tolist()}
        assert all(words & set(codes) for codes in mentions(dictionary, selection))


MENTIONED = ("user", "teacher", "classes", "context_class")


def fits(line: dict[str, Any], wanted: Selection) -> bool:
    """The oracle: plain Python over what a reader would see."""
    at = datetime.fromisoformat(line["timestamp"])
    now = datetime.fromtimestamp(wanted.now_ms / 1000, UTC)
    own = {"user": line.get("user_id"), "org": line.get("organization_id")}
    context, meta = line.get("context", {}), line["meta"]
    category = TYPES.get(line["event_type"])
    if at + timedelta(days=line["retention_days"]) <= now or (own["org"], own["user"]) in (
        wanted.hidden
    ):
        return False
    if wanted.scope.organization_id not in (None, own["org"]):
        return False

    def granted(grant: Grant) -> bool:
        return (
            (grant.user_ids is None or own["user"] in grant.user_ids)
            and (grant.class_ids is None or bool(grant.class_ids & set(meta.get("class_ids", []))))
            and (grant.teacher_ids is None or context.get("teacher_id") in grant.teacher_ids)
            and (grant.categories is None or category in grant.categories)
            and (grant.roles is None or meta.get("role") in grant.roles)
        )

    asked = wanted.filter
    values = {
        "event_type": {line["event_type"]},
        "category": {category},
        "user_id": {own["user"]},
        "class_id": {*meta.get("class_ids", []), context.get("class_id")},
        "teacher_id": {context.get("teacher_id")},
        "assignment_id": {context.get("assignment_id")},
        "sequence_id": {context.get("sequence_id")},
        "game_id": {line["properties"].get("game_id")},
        "session_id": {line.get("session_id")},
        "organization_id": {own["org"]},
    }
    return (
        any(map(granted, wanted.scope.grants))
        and (asked.begin is None or at >= asked.begin)
        and (asked.end is None or at < asked.end)
        and all(
            getattr(asked, axis) is None or bool(found & getattr(asked, axis))
            for axis, found in values.items()
        )
    )


def test_a_line_is_json_for_any_reader() -> None:
    line = encode_line(event(1, properties={"a": 1.5, "b": None}), STORED_AT)
    assert json.loads(line)["properties"] == {"a": 1.5, "b": None}
    assert all(a <= b for a, b in pairwise(sorted(json.loads(line))))
