"""The catalog: 48 types, every name resolved, schemas that agree with the check."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mlc_broker.cli.reference_events import reference
from mlc_broker.model.catalog import Catalog, SchemaError, check_context, check_device
from mlc_broker.model.principal import CATEGORIES
from mlc_broker.model.types import STANDARD

ROOT = Path(__file__).parents[3]
CATALOG = Catalog.standard()
CORE = {
    "event_id": "evt_1234567890abcdef",
    "timestamp": "2025-01-27T14:30:45.123Z",
    "user_id": "usr_12345",
    "session_id": "sess_67890abcdef",
    "organization_id": "org_54321",
    "device_info": {"user_agent": "Mozilla/5.0...", "platform": "desktop", "browser": "chrome"},
    "context": {"page_url": "/student/assignment-play", "referrer": None, "class_id": "cls_1"},
    "privacy_level": "standard",
    "retention_days": 2555,
}


@cache
def validator(name: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft202012Validator(CATALOG.schema(name), offline=True)


def test_all_types_of_the_specification_are_there() -> None:
    names = Counter(kind.category for kind in CATALOG.types.values())
    assert names == {
        "user_interaction": 15 + 1,  # mouse_move
        "learning_progress": 13,
        "system_performance": 10 + 1,  # debug
        "business_intelligence": 8,
    }
    assert set(names) == set(CATEGORIES)


def test_every_spelling_resolves_to_its_type() -> None:
    for name, kind in CATALOG.types.items():
        assert [CATALOG.resolve(spelling) for spelling in kind.spellings] == [
            kind for _ in kind.spellings
        ]
        assert kind.name == name


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("gameStageComplete", "game_stage_complete"),
        ("attempt.completed", "game_stage_complete"),
        ("game_session.completed", "game_stage_complete"),
        ("auth.login.success", "user_login"),
        ("user.login", "user_login"),
        ("assignment_complete", "assignment_completed"),
        ("mastery_achieved", "concept_mastered"),
        ("mouseMove", "mouse_move"),
    ],
)
def test_an_alias_means_its_type(alias: str, name: str) -> None:
    found = CATALOG.resolve(alias)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("name", ["", "GAME_STAGE_COMPLETE", "game_stage_complete ", "org.x", "x"])
def test_an_unknown_name_resolves_to_nothing(name: str) -> None:
    assert CATALOG.resolve(name) is None


def test_a_name_cannot_be_taken_twice() -> None:
    with pytest.raises(ValueError, match=r'"user_login" is taken twice'):
        CATALOG.with_types([msgspec.structs.replace(STANDARD[0], title="Another")])


def test_an_alias_cannot_be_taken_twice() -> None:
    thief = msgspec.structs.replace(STANDARD[0], name="thief", aliases=("attempt.completed",))
    with pytest.raises(ValueError, match=r"attempt\.completed"):
        CATALOG.with_types([thief])


def test_with_types_leaves_the_old_catalog_alone() -> None:
    new = msgspec.structs.replace(STANDARD[0], name="org_new", aliases=())
    bigger = CATALOG.with_types([new])
    assert bigger.resolve("org_new") is new
    assert CATALOG.resolve("org_new") is None
    assert len(bigger.types) == len(CATALOG.types) + 1


def test_sampling_is_as_the_specification_says() -> None:
    by_class: dict[str, set[str]] = {}
    for kind in STANDARD:
        by_class.setdefault(kind.sampling, set()).add(kind.name)
        if kind.group == "Errors" or kind.category == "learning_progress":
            assert kind.sampling == "never"
    assert by_class["high_volume"] == {"page_view", "page_exit", "mouse_move"}
    assert by_class["debug"] == {"debug"}
    assert {"page_load_time", "api_response_time", "asset_load_time"} <= by_class["performance"]


def test_retention_is_of_the_system_or_of_the_privacy_level() -> None:
    for kind in STANDARD:
        system = kind.category == "system_performance"
        assert kind.retention == ("system" if system else kind.privacy)
    assert CATALOG.types["message_sent"].retention == "sensitive"


def test_debug_is_not_collected_in_production() -> None:
    assert CATALOG.types["debug"].environments == frozenset({"development", "staging"})
    assert all(kind.environments is None for kind in STANDARD if kind.name != "debug")


@pytest.mark.parametrize("name", [kind.name for kind in STANDARD])
def test_a_schema_is_2020_12_and_says_what_it_is(name: str) -> None:
    schema = CATALOG.schema(name)
    kind = CATALOG.types[name]
    jsonschema_rs.meta.validate(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"/v1/schemas/{name}"
    assert schema["title"] == kind.title
    assert schema["x-category"] == kind.category
    assert schema["x-privacy"] == kind.privacy
    assert schema["x-sampling"] == kind.sampling
    assert schema["x-retention"] == kind.retention
    validator(name)  # every reference resolves without fetching


def test_schemas_are_of_every_type_and_an_alias_finds_its_own() -> None:
    assert CATALOG.schemas().keys() == CATALOG.types.keys()
    assert CATALOG.schema("userLogin") == CATALOG.schema("user_login")
    with pytest.raises(KeyError):
        CATALOG.schema("nothing")


def test_the_core_sample_is_valid_by_its_schema() -> None:
    event = CORE | {"event_type": "game_stage_complete", "properties": {"game_id": "G-01542"}}
    assert validator("game_stage_complete").is_valid(event)
    mistakes: tuple[dict[str, Any], ...] = (
        {"facts": {}},
        {"meta": {}},
        {"event_id": "a b c d e"},
        {"event_type": "x"},
    )
    for wrong in mistakes:
        assert not validator("game_stage_complete").is_valid(event | wrong)


values = (
    st.none()
    | st.booleans()
    | st.integers(-2, 101)
    | st.floats(0, 2).filter(lambda number: number % 1 != 0)
    | st.sampled_from(["", "quiz", "learn", "mouse", "midi", "mastered", "timeout", "x" * 65])
    | st.sampled_from(["2025-02-03", "2025-02-03T14:30:00Z"])
    | st.lists(st.sampled_from(["a", "b"]), max_size=2)
)


@given(st.data(), st.sampled_from(STANDARD))
def test_a_schema_and_the_check_agree(data: st.DataObject, kind: Any) -> None:
    names = st.sampled_from([*kind.properties.__struct_fields__, "unknown_key"])
    properties = data.draw(st.dictionaries(names, values, max_size=4))
    properties |= data.draw(st.sampled_from([{}, {"game_id": "g", "offset_days": 1}]))
    properties = {key: value for key, value in properties.items() if value is not None}
    event = CORE | {"event_type": kind.name, "properties": properties}
    errors = [error.message for error in validator(kind.name).iter_errors(event)]
    words = ""
    try:
        kind.check(Raw(msgspec.json.encode(properties)))
    except SchemaError as error:
        words = str(error)
    # What a schema cannot say stands in docs/events.md: scores against maxima, dates.
    only_the_check_knows = "over max_score" in words or "RFC 3339" in words
    assert bool(errors) == bool(words) or only_the_check_knows


def test_the_context_is_checked_and_its_path_told() -> None:
    sent = {
        "page_url": "/x",
        "experiments": {"e1": "b"},
        "classId": "cls_1",
        "mine": [1],
        "a": None,
    }
    checked = check_context(Raw(msgspec.json.encode(sent)))
    assert checked.value.class_id == "cls_1"
    assert checked.value.experiments == {"e1": "b"}
    assert json.loads(bytes(checked.json)) == {
        "page_url": "/x",
        "experiments": {"e1": "b"},
        "class_id": "cls_1",
        "mine": [1],
    }
    with pytest.raises(SchemaError, match=r"at `\$\.context\.class_id`"):
        check_context(Raw(b'{"class_id":5}'))


def test_the_device_is_checked_and_its_path_told() -> None:
    raw = b'{"user_agent":"Mozilla/5.0...","platform":"desktop","browser":"chrome","version":"120"}'
    assert bytes(check_device(Raw(raw)).json) == raw
    with pytest.raises(SchemaError, match=r"at `\$\.device_info\.platform`"):
        check_device(Raw(b'{"platform":"fridge"}'))


def test_the_reference_is_current() -> None:
    assert (ROOT / "docs" / "events.md").read_text(encoding="utf-8") == reference(), (
        "run python -m mlc_broker.cli.reference_events docs/events.md"
    )
