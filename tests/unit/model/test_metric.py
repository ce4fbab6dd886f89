"""Declarations: checked when they are loaded, with errors that name the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlc_broker.model.metric import Condition, Metric, Metrics, Term, load_metrics
from mlc_broker.model.metrics import STANDARD


def metric(**fields: Any) -> Metric:
    values: dict[str, Any] = {"name": "org.hints", "title": "Hints", "unit": "count", "kind": "sum"}
    values |= {"formula": "sum of hints", "event_types": ("org.hint_shown",), "value": "hints"}
    return Metric(**values | fields)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"dimensions": ("class_id", "school")}, "dimensions"),
        ({"event_types": ()}, "event_types"),
        ({"value": None}, "value"),
        ({"kind": "ratio"}, "denominator"),
        ({"of": "plays", "value": None, "numerator": Term("sum", "hints")}, "numerator"),
        ({"of": "plays", "value": None, "numerator": Term("sum")}, "numerator.field"),
        ({"of": "sessions", "value": None, "periods": ("hour",)}, "periods"),
        ({"of": "events"}, "value"),
        ({"rule": "streak_days"}, "rule"),
    ],
)
def test_a_bad_declaration_is_refused_by_the_name_of_its_field(
    wrong: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValueError, match=rf"^metric org\.hints: {field}: "):
        metric(**wrong).check()


def test_the_standard_metrics_are_those_of_the_catalogue() -> None:
    assert {m.name for m in STANDARD} == {
        "events", "active_users", "sessions", "session_length", "play_time", "plays",
        "average_score", "best_score", "pass_rate", "first_try_pass_rate", "mastery_rate",
        "concepts_mastered", "time_to_mastery", "engagement", "streak_days", "completion_rate",
        "overdue_rate", "review_compliance", "retention_score", "at_risk_students", "leaderboard",
        "seat_utilization", "page_load_time", "api_response_time", "asset_load_time", "error_rate",
        "broker_receipts",
    }  # fmt: skip


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="name: it is taken"):
        Metrics([metric(), metric()])


def test_an_organizations_own_metric_is_nobody_elses() -> None:
    metrics = STANDARD.with_metrics([metric(organization_id="org_1")])
    assert metrics.get("org.hints", "org_1") is not None
    assert metrics.get("org.hints", "org_2") is None


def test_declarations_are_read_from_toml_and_json(tmp_path: Path) -> None:
    (tmp_path / "hints.toml").write_text(
        '[[metric]]\nname = "org.hints"\ntitle = "Hints"\nunit = "count"\nkind = "sum"\n'
        'formula = "sum of hints"\nevent_types = ["org.hint_shown"]\nvalue = "hints"\n'
        'where = [{field = "hints", op = "at_least", value = 2}]\n'
    )
    (tmp_path / "more.json").write_text(
        '{"name": "org.shown", "title": "Shown", "unit": "count", "kind": "count",'
        ' "formula": "hints shown", "event_types": ["org.hint_shown"]}'
    )
    found = load_metrics(tmp_path)
    assert [m.name for m in found] == ["org.hints", "org.shown"]
    assert found[0].where == (Condition("hints", "at_least", 2),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name": "hints"}', r"bad\.json: .*missing required field"),
        ("{", r"bad\.json: "),
        (
            (
                '{"name": "hints", "title": "H", "unit": "n", "kind": "count", "formula": "f",'
                ' "event_types": ["x"]}'
            ),
            r'bad\.json: metric hints: name: begin it with "org\."',
        ),
        (
            '{"name": "org.h", "title": "H", "unit": "n", "kind": "count", "formula": "f", "size": 1}',
            r"bad\.json: .*`size`",
        ),
    ],
)
def test_a_bad_file_is_told_by_its_name(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        load_metrics(tmp_path)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (Condition("score", "at_least", 80), True),
        (Condition("score", "at_most", 79), False),
        (Condition("mode", "is", "midi"), True),
        (Condition("mode", "is_not", "midi"), False),
        (Condition("mode", "in", ["midi", "mouse"]), True),
        (Condition("hints", "missing"), True),
        (Condition("score", "given"), True),
        (Condition("mode", "at_least", 1), False),
    ],
)
def test_a_condition_holds_of_properties(condition: Condition, holds: bool) -> None:
    assert condition.holds({"score": 80, "mode": "midi"}) is holds
