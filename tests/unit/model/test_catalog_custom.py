"""Custom types: a JSON Schema file each; errors name the file and the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from msgspec import Raw

from mlc_broker.model.catalog import Catalog, SchemaError
from mlc_broker.model.custom import load_custom_types
from mlc_broker.model.errors import ConfigError

PRACTICE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "x-event-type": "org.practice_log",
    "title": "Practice log",
    "x-category": "learning_progress",
    "x-privacy": "sensitive",
    "type": "object",
    "required": ["minutes"],
    "properties": {
        "minutes": {"$ref": "#/$defs/minutes"},
        "note": {"type": "string", "maxLength": 200, "x-text": True},
    },
    "$defs": {"minutes": {"type": "integer", "minimum": 1, "maximum": 600}},
}


def write(folder: Path, **files: Any) -> Path:
    for name, schema in files.items():
        text = schema if isinstance(schema, str) else json.dumps(schema)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder


def test_a_file_declares_a_type(tmp_path: Path) -> None:
    [kind] = load_custom_types(write(tmp_path, practice=PRACTICE))
    assert (kind.name, kind.title, kind.category) == (
        "org.practice_log",
        "Practice log",
        "learning_progress",
    )
    assert (kind.privacy, kind.retention, kind.sampling) == ("sensitive", "sensitive", "never")
    assert kind.text == {"note"}
    checked = kind.check(Raw(b'{"minutes": 30, "note": null, "x": 1.50}'))
    assert bytes(checked.json) == b'{"minutes":30,"x":1.5}'
    assert checked.value == {"minutes": 30, "x": 1.5}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"minutes":0}', "at `$.properties.minutes`"),
        (b"{}", '"minutes" is a required property - at `$.properties`'),
        (b"null", "required"),
        (b'{"minutes":5,"x":18446744073709551616}', "Integer beyond 64 bits"),
        (b'{"minutes":5,"x":"\\ud800"}', "at `$.properties`"),
        (b"[1]", "Expected `object`"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_path(tmp_path: Path, raw: bytes, words: str) -> None:
    [kind] = load_custom_types(write(tmp_path, practice=PRACTICE))
    with pytest.raises(SchemaError) as caught:
        kind.check(Raw(raw))
    assert words in str(caught.value)


def test_a_type_that_says_nothing_follows_consent(tmp_path: Path) -> None:
    [kind] = load_custom_types(write(tmp_path, a={"$id": "https://school.example/org.plain"}))
    assert (kind.name, kind.category, kind.privacy) == ("org.plain", "user_interaction", "standard")
    assert (kind.sampling, kind.environments) == ("never", None)


def test_a_title_may_be_the_name_and_debug_stays_out_of_production(tmp_path: Path) -> None:
    [kind] = load_custom_types(write(tmp_path, a={"title": "org.trace", "x-sampling": "debug"}))
    assert kind.name == "org.trace"
    assert kind.environments == frozenset({"development", "staging"})


def test_custom_types_join_the_catalog_with_a_schema_of_their_own(tmp_path: Path) -> None:
    catalog = Catalog.standard().with_types(load_custom_types(write(tmp_path, p=PRACTICE)))
    schema = catalog.schema("org.practice_log")
    validator = jsonschema_rs.Draft202012Validator(schema, offline=True)
    event = {
        "event_id": "evt_12345678",
        "event_type": "org.practice_log",
        "timestamp": "2025-01-27T14:30:45.123Z",
        "properties": {"minutes": 30},
    }
    assert validator.is_valid(event)
    assert not validator.is_valid(event | {"properties": {"minutes": 0}})
    assert schema["x-category"] == "learning_progress"


def test_there_need_be_no_directory(tmp_path: Path) -> None:
    assert load_custom_types(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "expected a JSON Schema, an object"),
        ({"x-event-type": "practice"}, '"x-event-type": expected a name like "org.practice_log"'),
        ({"x-event-type": "org."}, '"x-event-type"'),
        ({"x-event-type": "org.Practice"}, '"x-event-type"'),
        ({"x-event-type": "org." + "a" * 61}, "at most 64 characters"),
        ({"x-event-type": 5, "title": "org.ok"}, '"x-event-type"'),
        ({}, '"x-event-type"'),
        (
            {"x-event-type": "org.a", "x-category": "fun"},
            '"x-category": expected one of user_inter',
        ),
        ({"x-event-type": "org.a", "x-privacy": "low"}, '"x-privacy": expected one of standard'),
        ({"x-event-type": "org.a", "x-sampling": "10 %"}, '"x-sampling": expected one of never'),
        ({"x-event-type": "org.a", "x-category": ["x"]}, '"x-category"'),
        ({"x-event-type": "org.a", "x-text": "note"}, '"x-text": expected a list'),
        ({"x-event-type": "org.a", "title": 5}, '"title": expected a string'),
        ({"x-event-type": "org.a", "type": "array"}, '"type": expected "object"'),
        ({"x-event-type": "org.a", "properties": {"n": {"type": "wat"}}}, "is not a JSON Schema"),
        ({"x-event-type": "org.a", "$ref": "http://127.0.0.1:9/x"}, "is not a JSON Schema"),
        ({"x-event-type": "org.a", "$ref": "file:///etc/hostname"}, "is not a JSON Schema"),
    ],
)
def test_a_bad_file_is_named_with_its_key(tmp_path: Path, schema: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_custom_types(write(tmp_path, bad=schema))
    assert "bad.json" in str(caught.value)
    assert words in str(caught.value)


def test_two_files_cannot_declare_one_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"b\.json.*a\.json"):
        load_custom_types(write(tmp_path, a=PRACTICE, b=PRACTICE))


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="over the limit of 262144"):
        load_custom_types(write(tmp_path, big=" " * 262_145))
