"""The strict check: what passes is canonical, and says what was sent minus nulls."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from mlc_broker.model import jsoncheck
from mlc_broker.model.jsoncheck import CachedShape, SchemaError, Shape, camel, plain
from mlc_broker.model.types.base import Count, FreeText, Ident, Number, Words


class Inner(Struct, frozen=True, kw_only=True, omit_defaults=True):
    ratio: Number | None = None


class Sample(Struct, frozen=True, kw_only=True, omit_defaults=True):
    game_id: Ident | None = None
    attempts: Count | None = None
    concept_tags: Words | None = None
    load_time: Number | None = None
    message: FreeText | None = None
    inner: Inner | None = None


class Whole(Struct, frozen=True, kw_only=True, omit_defaults=True):
    game_id: Ident | None = None
    attempts: Count | None = None
    message: FreeText | None = None


SHAPE = Shape(Sample, "$.properties")
WHOLE = Shape(Whole, "$.properties")

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
numbers = st.floats(min_value=0, max_value=1e12) | st.integers(0, 10**12)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(jsoncheck.INT_MIN, jsoncheck.INT_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
known = st.fixed_dictionaries(
    {},
    optional={
        "game_id": st.none() | texts.filter(bool),
        "attempts": st.none() | st.integers(0, 10**9),
        "concept_tags": st.none() | st.lists(texts, max_size=5),
        "load_time": st.none() | numbers,
        "message": st.none() | texts,
        "inner": st.none() | st.fixed_dictionaries({}, optional={"ratio": numbers}),
    },
)
unknown = st.dictionaries(
    texts.filter(lambda key: key not in {*Sample.__struct_fields__, "gameId", "conceptTags"}),
    anything,
    max_size=3,
)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def spelt(value: Any, ascii_only: bool, blanks: bool) -> Raw:
    separators = (", ", " : ") if blanks else (",", ":")
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    return Raw(text.encode())


@given(known, unknown, st.booleans(), st.booleans())
@example({"load_time": 1e22 / 1e11}, {"a": 0}, False, False)
def test_what_passes_is_canonical_and_says_what_was_sent_minus_nulls(
    wanted: dict[str, Any], others: dict[str, Any], ascii_only: bool, blanks: bool
) -> None:
    sent = wanted | others
    checked = SHAPE.check(spelt(sent, ascii_only, blanks))
    kept = json.loads(bytes(checked.json))
    assert kept == without_nulls(sent)
    assert bytes(checked.json) == msgspec.json.encode(kept)
    assert checked.value == msgspec.json.decode(checked.json, type=Sample)


@given(known, unknown, st.booleans())
def test_checking_twice_changes_nothing(
    wanted: dict[str, Any], others: dict[str, Any], ascii_only: bool
) -> None:
    once = SHAPE.check(spelt(others | wanted, ascii_only, blanks=True))
    twice = SHAPE.check(once.json)
    assert bytes(twice.json) == bytes(once.json)
    assert twice.value == once.value


@given(
    st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode(errors="replace"))
)
def test_any_bytes_are_checked_or_refused_with_a_path(raw: bytes) -> None:
    for shape in (SHAPE, WHOLE):
        try:
            kept, words = json.loads(bytes(shape.check(Raw(raw)).json)), ""
        except SchemaError as error:
            kept, words = None, str(error)
        if kept is None:
            assert "$.properties" in words
        else:
            assert kept == without_nulls(json.loads(raw) or {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"x": 18446744073709551616}', "Integer beyond 64 bits - at `$.properties.x`"),
        ('{"x": [1, -9223372036854775809]}', "Integer beyond 64 bits - at `$.properties.x[1]`"),
        ('{"x": 1e400}', "Number out of range"),
        ('{"x": NaN}', "JSON is malformed"),
        ('{"x": "\\ud800"}', "surrogate"),
        ('{"x": "\\udc00"}', "surrogate"),
        ('{"game_id": "\\ud800"}', "surrogate"),
        ('{"x": "a\\u0000b"}', "NUL - at `$.properties.x`"),
        ('{"game_id":"a\\u0000b"}', "NUL - at `$.properties.game_id`"),
        ('{"a\\u0000": 1}', "NUL"),
        ('{"x": ' + "[" * 32 + "]" * 32 + "}", "Nested deeper than 32 levels"),
        ('{"x": ' + "[" * 5000 + "]" * 5000 + "}", "Nested deeper than 32 levels"),
        ('{"' + "k" * 129 + '": 1}', "Expected key of length <= 128"),
        ('{"x": "' + "t" * 16_385 + '"}', "Expected `str` of length <= 16384"),
        ('{"x": [' + "1," * 4_096 + "1]}", "Array has 4097 items"),
        ('{"game_id": ""}', "Expected `str` of length >= 1 - at `$.properties.game_id`"),
        ('{"attempts": -1}', "Expected `int` >= 0 - at `$.properties.attempts`"),
        ('{"attempts": 1.5}', "at `$.properties.attempts`"),
        ('{"attempts": true}', "at `$.properties.attempts`"),
        ('{"attempts": "2"}', "at `$.properties.attempts`"),
        ("[]", "Expected `object`, got `array` - at `$.properties`"),
        ("7", "Expected `object`, got `int` - at `$.properties`"),
        ('"x"', "Expected `object`, got `str` - at `$.properties`"),
        ("", "at `$.properties`"),
        ('{"x":', "at `$.properties`"),
        ('{"gameId": "a", "game_id": "b"}', "`gameId` and `game_id` are one property"),
    ],
)
def test_a_hostile_value_is_refused_with_its_path(text: str, words: str) -> None:
    with pytest.raises(SchemaError) as caught:
        SHAPE.check(Raw(text.encode()))
    assert words in str(caught.value)
    assert "$.properties" in str(caught.value)


def test_too_many_keys_in_one_object_are_refused() -> None:
    many = msgspec.json.encode({"x": {str(i): i for i in range(257)}})
    with pytest.raises(
        SchemaError, match=r"257 keys, over the limit of 256 - at `\$.properties.x`"
    ):
        SHAPE.check(Raw(many))


@pytest.mark.parametrize("raw", [b'{"x":"\xff"}', b'{"game_id":"\xff"}', b'{"x":"\xed\xa0\x80"}'])
def test_bytes_that_are_not_utf8_are_refused(raw: bytes) -> None:
    with pytest.raises(SchemaError, match="UTF-8"):
        SHAPE.check(Raw(raw))


def test_a_repeated_key_is_written_once_as_it_was_checked() -> None:
    checked = SHAPE.check(Raw(b'{"attempts":1,"attempts":2,"x":1,"x":2}'))
    assert bytes(checked.json) == b'{"attempts":2,"x":2}'
    assert checked.value.attempts == 2


@pytest.mark.parametrize("first", [b'"a"', b"null", b'"' + b"a" * 500 + b'"'])
def test_a_repeated_key_cannot_carry_a_bad_value_past_the_check(first: bytes) -> None:
    with pytest.raises(SchemaError, match="attempts"):
        SHAPE.check(Raw(b'{"attempts":' + first + b',"game_id":"g","attempts":-1}'))


def test_a_float_that_grows_does_not_hide_a_lost_key() -> None:
    # 1e9 is written 1000000000.0: nine characters more, just what `,"abcd":1` takes.
    raw = b'{"load_time":1e9,"abcd":1}'
    assert json.loads(bytes(SHAPE.check(Raw(raw)).json)) == {"load_time": 1e9, "abcd": 1}


def test_camel_case_spellings_of_known_properties_become_snake_case() -> None:
    checked = SHAPE.check(Raw(b'{"gameId":"g","conceptTags":["a"],"otherKey":1,"game_id":null}'))
    assert bytes(checked.json) == b'{"game_id":"g","concept_tags":["a"],"otherKey":1}'
    assert checked.value.game_id == "g"


def test_null_is_an_empty_part() -> None:
    assert bytes(SHAPE.check(Raw(b"null")).json) == b"{}"
    assert plain(b" null ", "$.context") == {}


def test_an_escape_that_only_looks_like_nul_is_kept() -> None:
    raw = rb'{"message":"a\\u0000"}'
    assert bytes(WHOLE.check(Raw(raw)).json) == raw


def test_the_cache_answers_the_same_and_forgets_when_full() -> None:
    shape = CachedShape(Whole, "$.context")
    shape.entries_max = 2
    first = shape.check(Raw(b'{"game_id":"a"}'))
    assert shape.check(Raw(b'{"game_id":"a"}')) is first
    for i in range(5):
        assert shape.check(Raw(b'{"attempts":%d}' % i)).value.attempts == i
        assert len(shape._known) <= 2


def test_the_cache_keeps_neither_long_parts_nor_refused_ones() -> None:
    shape = CachedShape(Whole, "$.context")
    shape.check(Raw(msgspec.json.encode({"x": "y" * 3000})))
    with pytest.raises(SchemaError, match=r"\$.context.attempts"):
        shape.check(Raw(b'{"attempts":-1}'))
    assert shape._known == {}


def test_camel_spells_as_the_specification_does() -> None:
    assert camel("game_stage_complete") == "gameStageComplete"
    assert camel("debug") == "debug"
