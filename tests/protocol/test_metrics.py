"""Metrics of the real daemon: each with a worked example, by role, live, and after a crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.daemon import Daemon, wait_until
from tests.plugin_house import put_plugin

# The school lies where it is two in the afternoon now: so today has begun, and is not over soon.
EAST = 14 - datetime.now(UTC).hour
ZONE = ZoneInfo(f"Etc/GMT{-EAST:+d}")  # these names count to the west
numbers = count(1)
STUDENTS = ("stu_1", "stu_2", "stu_3", "stu_9")


def noon(days_ago: int = 0) -> datetime:
    """Noon of a day where the school is: today's has just been."""
    at = datetime.now(ZONE).replace(hour=12, minute=0, second=0, microsecond=0)
    return (at - timedelta(days=days_ago)).astimezone(UTC)


def event(kind: str, user: str, at: datetime | None = None, **properties: Any) -> dict[str, Any]:
    context = {"assignment_id": properties.pop("assignment", "asg_1")}
    if "impersonation_id" in properties:
        context["impersonation_id"] = properties.pop("impersonation_id")
    return {
        "event_id": f"evt_{next(numbers):08}",
        "event_type": kind,
        "timestamp": (at or noon()).isoformat(),
        "user_id": user,
        "session_id": f"sess_{user}",
        "context": context,
        "properties": properties,
    }


def play(user: str, game: str = "G-1", stage: str = "quiz", score: int = 80, **more: Any) -> Any:
    at = more.pop("at", None)
    values = {"game_id": game, "stage_id": f"{game}-{stage}", "stage_type": stage, "score": score}
    values |= {"max_score": 100, "passed": score >= 60, "run_id": f"run_{next(numbers)}"}
    return event("game_stage_complete", user, at, **(values | more))


@pytest.fixture
def school(daemon: Daemon) -> Daemon:
    people: dict[str, Any] = {
        user: {"organization_id": "org_1", "role": "student", "parental_consent": "verified"}
        for user in STUDENTS
    }
    people["shared"] = people["stu_1"] | {"generic": True}
    people["tch_1"] = {"organization_id": "org_1", "role": "teacher"}
    people["tch_2"] = {"organization_id": "org_1", "role": "teacher"}
    classes = {"cls_1": ["tch_1"], "cls_2": ["tch_2"]}
    daemon.roster(
        {
            "organizations": {"org_1": {"seats": 8, "time_zone": ZONE.key}},
            "users": people,
            "classes": {
                key: {"organization_id": "org_1", "teacher_ids": teachers}
                for key, teachers in classes.items()
            },
            "enrollments": {
                f"enr_{user}": {
                    "class_id": "cls_2" if user == "stu_9" else "cls_1",
                    "user_id": user,
                }
                for user in STUDENTS
            },
        }
    )
    daemon._organizations.add("org_1")
    daemon.key()
    who = daemon.token("adm", "org_1", "subscriber_admin")
    wait_until(lambda: daemon.get("/v1/me", who).status == 200)
    return daemon


def publish(school: Daemon, *events: dict[str, Any]) -> None:
    ack = school.publish(events, school.key())
    assert ack["stored"] == len(events), ack


def rows(
    school: Daemon, name: str, query: str = "grain=total", who: str = "adm/subscriber_admin"
) -> list[dict[str, Any]]:
    user, role = who.split("/")
    answer = school.get(f"/v1/metrics/{name}?{query}", school.token(user, "org_1", role))
    assert answer.status == 200, answer
    told: list[dict[str, Any]] = answer.json()["rows"]
    return told


def value(
    school: Daemon, name: str, query: str = "grain=total", who: str = "adm/subscriber_admin"
) -> Any:
    (row,) = rows(school, name, query, who)
    return row["value"]


def test_plays_are_counted_once_a_run_and_only_those_of_students(school: Daemon) -> None:
    twice = play("stu_1", run_id="run_x", duration_ms=1_000, attempts=1)
    publish(
        school,
        twice,
        twice | {"event_id": "evt_again_1"},
        play("stu_1", score=40, duration_ms=500, attempts=2),
        play("stu_2", "G-2", score=100, duration_ms=500, attempts=1),
        play("shared"),
        play("tch_1"),
        play("stu_3", impersonation_id="imp_1"),
        event("game_stage_quit", "stu_2", game_id="G-3", duration_ms=250, run_id="run_q"),
    )
    assert value(school, "plays") == 3
    assert value(school, "play_time") == 2_250
    assert value(school, "average_score") == pytest.approx((0.8 + 0.4 + 1.0) / 3)
    assert value(school, "best_score") == 1.0
    assert value(school, "pass_rate") == pytest.approx(2 / 3)
    assert value(school, "first_try_pass_rate") == 1.0
    (mastery,) = rows(school, "mastery_rate")
    assert (mastery["numerator"], mastery["denominator"]) == (2, 3)
    by_game = rows(school, "plays", "grain=total&group_by=game_id")
    assert {row["game_id"]: row["value"] for row in by_game} == {"G-1": 2, "G-2": 1}


def test_who_was_there_and_for_how_long(school: Daemon) -> None:
    begin = noon() - timedelta(minutes=30)
    publish(
        school,
        event("user_login", "stu_1", begin),
        event("user_logout", "stu_1", begin + timedelta(minutes=10)),
        event("user_login", "stu_2", begin),
        event("javascript_error", "stu_2", begin, message="no"),
        event("user_login", "stu_1", noon(1)),
    )
    assert value(school, "active_users") == 2
    assert [row["value"] for row in rows(school, "active_users", "grain=day")] == [1, 2]
    assert value(school, "events") == 5
    assert value(school, "seat_utilization") == 2 / 8
    assert value(school, "streak_days", "user_id=stu_1") == 2
    assert value(school, "streak_days", "user_id=stu_2") == 1
    assert value(school, "streak_days") == 1.5
    assert [row["value"] for row in rows(school, "sessions", "grain=day")] == [1, 2]
    (rate,) = rows(school, "error_rate", "grain=total&group_by=event_type")
    assert (rate["event_type"], rate["numerator"]) == ("javascript_error", 1)
    asked = f"grain=total&from={noon(1):%Y-%m-%dT%H:%M:%SZ}&user_id=stu_2"
    (engaged,) = rows(school, "engagement", asked)
    assert (engaged["numerator"], engaged["denominator"]) == (1, 2)


def test_assignments_concepts_and_reviews(school: Daemon) -> None:
    week_ago = noon(7)
    publish(
        school,
        event("assignment_started", "stu_1", assignment="asg_1"),
        event("assignment_started", "stu_1", assignment="asg_2"),
        event("assignment_started", "stu_2", assignment="asg_1"),
        event("assignment_completed", "stu_1", assignment="asg_1"),
        event("assignment_overdue", "stu_2", assignment="asg_1"),
        event("concept_mastered", "stu_1", concept_tags=["a", "b"], time_to_mastery_ms=4_000),
        event("concept_mastered", "stu_2", concept_tags=["b"], time_to_mastery_ms=8_000),
        event("review_scheduled", "stu_1", week_ago, game_id="G-1", offset_days=2),
        event("review_scheduled", "stu_1", week_ago, game_id="G-2", offset_days=2),
        event("review_scheduled", "stu_1", week_ago, game_id="G-3", offset_days=30),
        play("stu_1", "G-1", "review", at=noon(3)),
    )
    assert value(school, "completion_rate") == pytest.approx(1 / 3)
    assert value(school, "overdue_rate") == pytest.approx(1 / 3)
    assert value(school, "concepts_mastered") == 2
    by_concept = rows(school, "concepts_mastered", "grain=total&group_by=concept")
    assert {row["concept"]: row["value"] for row in by_concept} == {"a": 1, "b": 1}
    (timing,) = rows(school, "time_to_mastery")
    assert timing["count"] == 2
    assert timing["p50"] == pytest.approx(4_000, rel=0.004)
    assert timing["p99"] == pytest.approx(8_000, rel=0.004)
    (reviews,) = rows(school, "review_compliance")
    assert (reviews["numerator"], reviews["denominator"]) == (1, 2)


def test_retention_risk_and_the_leaderboard(school: Daemon) -> None:
    publish(
        school,
        play("stu_1", "G-1", "quiz", 80, at=noon(1)),
        *(play("stu_2", "G-1", "play", 30, at=noon(2)) for _ in range(5)),
        play("stu_1", "G-9", "challenge", 70, at=noon(2)),
        play("stu_2", "G-9", "challenge", 90, at=noon(2)),
        play("stu_3", "G-9", "challenge", 70, at=noon(3)),
        play("stu_3", "G-9", "challenge", 10, at=noon(1)),
    )
    # one quiz, nothing lost but half a point a day: .4·80 + .3·(100 - .5·days) + 20 + 10
    assert value(school, "retention_score") == pytest.approx(91.85, abs=0.2)
    assert value(school, "at_risk_students") == 1
    assert [r["user_id"] for r in rows(school, "at_risk_students", "group_by=user_id")] == ["stu_2"]
    board = rows(school, "leaderboard")
    assert [(r["rank"], r["user_id"], r["value"]) for r in board] == [
        (1, "stu_2", 90),
        (2, "stu_3", 70),  # earlier than stu_1
        (3, "stu_1", 70),
    ]
    (mine,) = rows(school, "leaderboard", "", "stu_1/student")
    assert (mine["rank"], mine["user_id"]) == (3, "stu_1")


def test_load_times_have_percentiles_by_address(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(environment="development")  # nothing is sampled
    many = [
        event("api_response_time", "stu_1", endpoint=f"/v1/things/{n}?x=1", response_time_ms=n * 10)
        for n in range(1, 101)
    ]
    many += [event("page_load_time", "stu_1", page_url="/home", load_time_ms=1234.5)]
    many += [event("asset_load_time", "stu_1", asset_url="/a.js", load_time_ms=12)]
    assert daemon.publish(many, daemon.key())["stored"] == 102
    (row,) = rows(daemon, "api_response_time", "grain=total&group_by=endpoint")
    assert (row["endpoint"], row["count"], row["mean"]) == ("/v1/things/*", 100, 505)
    for name, expected in (("p50", 500), ("p75", 750), ("p95", 950), ("p99", 990), ("value", 500)):
        assert row[name] == pytest.approx(expected, rel=0.004)
    assert value(daemon, "page_load_time") == pytest.approx(1234.5, rel=0.004)
    assert value(daemon, "asset_load_time") == 12


def test_receipts_say_what_became_of_what_was_sent(school: Daemon) -> None:
    publish(school, play("stu_1"))
    school.publish([play("stu_1") | {"event_type": "nonsense"}], school.key())
    told = rows(school, "broker_receipts", "grain=total&group_by=outcome,reason")
    found = {(row["outcome"], row["reason"]): row["value"] for row in told}
    assert found == {("stored", None): 1, ("rejected", "unknown_type"): 1}
    assert rows(school, "broker_receipts", "grain=total", "tch_1/teacher") == []


def test_each_role_sees_the_figures_of_its_own(school: Daemon) -> None:
    publish(school, play("stu_1"), play("stu_2"), play("stu_9"))
    asked = "grain=total&group_by=class_id"
    seen = {
        who: {row["class_id"]: row["value"] for row in rows(school, "plays", asked, who)}
        for who in ("adm/subscriber_admin", "tch_1/teacher", "tch_2/teacher", "stu_1/student")
    }
    assert seen == {
        "adm/subscriber_admin": {"cls_1": 2, "cls_2": 1},
        "tch_1/teacher": {"cls_1": 2},
        "tch_2/teacher": {"cls_2": 1},
        "stu_1/student": {"cls_1": 1},
    }
    across = school.token("root", "org_1", "system_admin")
    assert school.get("/v1/metrics/plays?grain=total", across).json()["rows"] == []  # too few
    named = school.get("/v1/metrics/plays?grain=total&organization_id=org_1", across).json()
    assert named["rows"][0]["value"] == 3
    assert school.get("/v1/metrics/plays", school.key()).status == 403


def test_reading_figures_of_persons_is_noted(school: Daemon) -> None:
    publish(school, play("stu_1"))
    rows(school, "plays", "grain=total&group_by=user_id", "tch_1/teacher")
    log = school.get("/v1/audit", school.token("adm", "org_1", "subscriber_admin")).json()
    (entry,) = [one for one in log["entries"] if one["action"] == "metrics"]
    assert (entry["who"], entry["subjects"], entry["detail"]) == ("tch_1", ["stu_1"], "plays")


def test_the_period_before_stands_beside(school: Daemon) -> None:
    publish(school, play("stu_1", at=noon(1)), play("stu_1", at=noon(1)), play("stu_1"))
    today = datetime.now(ZONE).replace(hour=0, minute=0, second=0, microsecond=0)
    asked = f"grain=total&compare=previous&from={today.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    (row,) = rows(school, "plays", asked)
    assert (row["value"], row["previous"]) == (1, 2)
    assert row["at"] == f"{today.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.000Z"


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("nothing", 404, "no metric of this name"),
        ("plays?group_by=event_type", 400, "it has organization_id, class_id"),
        ("sessions?grain=minute", 400, "it has day, week, month, total"),
        ("plays?grain=century", 400, "grain"),
        ("plays?compare=previous", 400, "needs `from`"),
        ("plays?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 400, "before"),
        ("plays?color=red", 400, "color"),
    ],
)
def test_a_wrong_question_is_told_what_there_is(
    school: Daemon, path: str, status: int, words: str
) -> None:
    answer = school.get(f"/v1/metrics/{path}", school.token("stu_1"))
    assert answer.status == status, answer
    assert words in answer.json()["detail"]


def test_figures_survive_kill_minus_nine_and_a_recount_agrees(school: Daemon) -> None:
    publish(school, *(play("stu_1") for _ in range(40)))
    school.kill()
    school.start()
    assert value(school, "plays") == 40
    told = json.loads(school.command("verify", "--metrics", "--json").stdout)
    assert (told["metrics"]["events"], told["metrics"]["faults"]) == (40, [])
    school.stop()
    told = json.loads(school.command("verify", "--metrics", "--rebuild", "--json").stdout)
    assert (told["metrics"]["events"], told["metrics"]["faults"]) == (40, [])
    school.start()
    assert value(school, "plays") == 40


def test_prometheus_reads_the_conservation_law(school: Daemon) -> None:
    publish(school, play("stu_1"), play("stu_1"))
    answer = school.get("/metrics")
    assert answer.status == 200
    text = answer.body.decode()
    for line in (
        'mlc_received_events_total{door="http"} 2.0',
        'mlc_settled_events_total{outcome="stored"} 2.0',
        'mlc_step_events_total{step="validate"} 2.0',
    ):
        assert line in text
    for name in ("mlc_queue_depth", "mlc_commit_seconds", "mlc_ack_seconds", "mlc_loop_lag"):
        assert name in text


BIG = """
from mlc_broker import Condition, Metric

BIG = Metric(
    name="org.big_plays",
    title="Plays of 50 points and more",
    unit="count",
    kind="count",
    formula="completed stages with a score of 50 and more",
    event_types=("game_stage_complete",),
    where=(Condition(field="score", op="at_least", value=50),),
    dimensions=("class_id", "user_id"),
    counts="students",
)
"""


def test_a_plugins_metric_answers_and_what_it_misses_is_told_until_a_rebuild(
    school: Daemon,
) -> None:
    publish(school, play("stu_1", score=90), play("stu_2", score=10))
    assert value(school, "plays") == 2  # so it is counted, by the declarations of before
    put_plugin(school, "big", BIG)
    assert school.command("plugins", "reload").returncode == 0
    publish(school, play("stu_1", score=50), play("tch_1", score=90), play("stu_2", score=49))
    assert value(school, "org.big_plays") == 1
    for _ in range(2):
        (trouble,) = school.get("/healthz").json()["troubles"]
        assert trouble.startswith("metric org.big_plays: ")
        assert any("org.big_plays" in line for line in school.lines)
        school.restart()
    school.command("verify", "--metrics", "--rebuild")
    assert "troubles" not in school.get("/healthz").json()
    assert value(school, "org.big_plays") == 2
    school.restart()
    assert "troubles" not in school.get("/healthz").json()


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('"org.big_plays"', '"big_plays"', "metric big_plays: name: begin it with"),
        ('"class_id"', '"klass"', "metric org.big_plays: dimensions"),
        ('kind="count"', 'kind="kount"', "$.kind"),
        ('event_types=("game_stage_complete",)', "event_types=()", "event_types: name the types"),
    ],
)
def test_a_plugins_metric_that_is_wrong_is_told_with_its_file_and_field(
    make_daemon: Callable[..., Daemon], before: str, after: str, told: str
) -> None:
    daemon = make_daemon(start=False)
    put_plugin(daemon, "big", BIG.replace(before, after))
    said = daemon.command("check", expect=78).stderr
    assert "big.py: metric " in said
    assert told in said
