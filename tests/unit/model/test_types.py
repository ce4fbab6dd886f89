"""The standard types: the specification's samples pass, their limits hold."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from mlc_broker.model.catalog import Catalog, Checked, SchemaError
from mlc_broker.model.types import STANDARD

CATALOG = Catalog.standard()
PLAY = {"game_id": "G-01542", "stage_id": "G-01542-quiz"}
SAMPLES: dict[str, dict[str, Any]] = {
    "user_login": {"login_method": "sso", "mfa_used": False, "session_duration_estimate": 3600},
    "user_logout": {"session_duration_ms": 1_800_000, "logout_reason": "user_initiated"},
    "game_stage_start": PLAY
    | {
        "stage_type": "quiz",
        "assignment_id": "asg_789",
        "sequence_id": "seq_456",
        "device_profile": "midi_required",
        "input_mode": "midi",
    },
    "game_stage_complete": PLAY
    | {
        "score": 87,
        "max_score": 100,
        "passed": True,
        "duration_ms": 125_000,
        "attempts": 2,
        "mistake_count": 3,
        "mastery_achieved": True,
    },
    "target_met": PLAY
    | {
        "target_score": 85,
        "actual_score": 87,
        "time_to_target_ms": 125_000,
        "attempts_to_target": 2,
    },
    "concept_mastered": {
        "game_id": "G-01542",
        "concept_tags": ["guide_notes", "treble_staff"],
        "mastery_level": "quiz_passed",
        "time_to_mastery_ms": 125_000,
        "total_attempts": 2,
        "learning_sequence_position": 15,
    },
    "review_scheduled": {
        "game_id": "G-01542",
        "sequence_id": "seq_456",
        "review_date": "2025-02-03T14:30:00Z",
        "offset_days": 7,
        "retention_confidence": 0.85,
    },
    "page_load_time": {
        "page_url": "/student/dashboard",
        "load_time_ms": 1250,
        "dom_ready_ms": 800,
        "first_paint_ms": 600,
        "largest_contentful_paint_ms": 1100,
        "cumulative_layout_shift": 0.05,
    },
    "api_response_time": {
        "endpoint": "/api/v1/assignments",
        "method": "GET",
        "status_code": 200,
        "response_time_ms": 150,
        "payload_size_bytes": 2048,
    },
}
NEEDY = {"game_stage_start", "game_stage_complete", "target_met", "review_scheduled"}


def check(name: str, properties: Any) -> Checked[Any]:
    kind = CATALOG.types[name]
    return kind.check(Raw(msgspec.json.encode(properties)))


def refusal(name: str, properties: Any) -> str:
    with pytest.raises(SchemaError) as caught:
        check(name, properties)
    return str(caught.value)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_specifications_sample_passes_unchanged(name: str) -> None:
    assert json.loads(bytes(check(name, SAMPLES[name]).json)) == SAMPLES[name]


@pytest.mark.parametrize("name", sorted({kind.name for kind in STANDARD} - NEEDY))
def test_a_type_without_needs_may_come_without_properties(name: str) -> None:
    assert bytes(check(name, {}).json) == b"{}"


@pytest.mark.parametrize("name", ["game_stage_start", "game_stage_complete", "target_met"])
def test_a_play_names_its_game_stage_or_run(name: str) -> None:
    assert "`game_id` or `stage_id` or `run_id`" in refusal(name, {"score": 3})
    for key in ("game_id", "stage_id", "run_id"):
        check(name, {key: "x"})


@pytest.mark.parametrize("name", ["game_stage_complete", "game_stage_quit", "game_stage_start"])
def test_a_score_over_its_maximum_is_refused_with_both_figures(name: str) -> None:
    assert "score 187 is over max_score 100" in refusal(name, PLAY | {"score": 187})
    assert "$.properties.score" in refusal(name, PLAY | {"score": 187, "max_score": 186})
    check(name, PLAY | {"score": 187, "max_score": 187})
    check(name, PLAY | {"score": 100})


def test_real_targets_fit() -> None:
    found = check(
        "game_stage_complete", {"game_id": "GAM-0950", "score": 8_900, "max_score": 9_000}
    )
    assert (found.value.score, found.value.max_score) == (8_900, 9_000)


def test_a_score_at_quit_has_the_same_limit() -> None:
    assert "score_at_quit 101 is over" in refusal("game_stage_quit", {"score_at_quit": 101})


def test_a_challenge_without_a_maximum_is_open() -> None:
    check("challenge_completed", {"score": 9_400})
    assert "over max_score 50" in refusal("challenge_completed", {"score": 51, "max_score": 50})


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("score", [0, 100], [-1, 1.5, "5", 1_000_001, True]),
        ("max_score", [1, 1_000_000], [0, 1_000_001, "100"]),
        ("duration_ms", [0, 86_400_000], [-1, 86_400_001]),
        ("attempts", [0, 9], [-1]),
        ("mistake_count", [0], [-1]),
        ("passed", [True, False], [1, "true"]),
        ("stage_type", ["learn", "play", "quiz", "challenge", "review"], ["exam", ""]),
        ("input_mode", ["mouse", "keyboard", "midi", "touch", "mic", "microphone"], ["gaze"]),
        ("device_profile", ["any", "midi_required", "midi_optional", "mic_required"], ["desktop"]),
        ("difficulty_level", [1, 10], [0, 11]),
        ("mastery_status", ["mastered"], ["done"]),
        ("learning_style", ["aural"], ["loud"]),
        ("concept_tags", [[], ["a"]], ["a", [1], ["a"] * 33]),
        ("retention_score", [0, 100], [-1, 101]),
        ("game_version", [3, "1.2.3"], [-1, "x" * 65]),
        ("game_id", ["G-01542", "GAM-0950", "game_abc123", "x" * 64], ["", "x" * 65, 5]),
        ("performance_summary", [{"fps_average": 58.5, "x": 1}], [{"fps_average": "fast"}, []]),
    ],
)
def test_a_property_keeps_its_limits(key: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        kept = json.loads(bytes(check("game_stage_complete", PLAY | {key: value}).json))
        assert kept[key] == value
    for value in bad:
        assert f"$.properties.{key}" in refusal("game_stage_complete", PLAY | {key: value})


def test_a_review_says_of_what_and_when() -> None:
    assert "`game_id` or `step_id`" in refusal("review_scheduled", {"offset_days": 7})
    assert "`offset_days` or `review_date`" in refusal("review_scheduled", {"game_id": "g"})
    check("review_scheduled", {"step_id": "S-01", "due_date": "2025-02-03"})


def test_a_date_that_is_none_is_refused() -> None:
    words = refusal("review_scheduled", {"game_id": "g", "review_date": "next Tuesday"})
    assert "$.properties.review_date" in words
    assert "due_date" in refusal("assignment_started", {"due_date": "2025-02-30"})


def test_free_text_is_known_to_protect() -> None:
    text = {kind.name: kind.text for kind in STANDARD}
    assert text["javascript_error"] == {"message", "error_message", "stack", "stack_trace"}
    assert text["message_sent"] == {"subject"}
    assert {"subject", "description", "resolution"} == text["support_ticket_resolved"]
    assert "data" in text["debug"]
    assert text["game_stage_complete"] == frozenset()


def test_no_property_defaults_to_anything_but_none() -> None:
    # The fast way of the check stands on it: a default that is sent would be left out.
    for kind in STANDARD:
        assert set(kind.properties.__struct_defaults__) == {None}
