"""How learning goes: students only, without shared logins and impersonated sessions."""

from __future__ import annotations

from typing import Any

from mlc_broker.model.metric import PERSON, SCENE, Condition, Metric, Term

_DONE = Condition("kind", "is", "complete")
_PASSABLE = Condition("passed", "given")
_PASSED = Condition("passed", "is", True)
_FIRST = Condition("attempt", "is", 1)
_QUIZ = Condition("stage_type", "is", "quiz")
_ROSTER = ("organization_id", "class_id", "teacher_id", "user_id")


def _plays(**words: Any) -> Metric:
    return Metric(of="plays", dimensions=(*PERSON, *SCENE), counts="students", **words)


def _assignments(**words: Any) -> Metric:
    dimensions = (*PERSON, "assignment_id", "sequence_id")
    return Metric(of="marks", dimensions=dimensions, counts="students", **words)


def _type(name: str) -> tuple[Condition, ...]:
    return (Condition("event_type", "is", name),)


LEARNING = (
    _plays(
        name="play_time",
        title="Play time",
        unit="ms",
        kind="sum",
        formula="sum of duration_ms of completed and quit stages",
        numerator=Term("sum", "duration_ms", (Condition("kind", "in", ["complete", "quit"]),)),
    ),
    _plays(
        name="plays",
        title="Plays",
        unit="count",
        kind="count",
        formula="completed stages, one a run (run_id; else session and stage and attempt)",
        numerator=Term("count", where=(_DONE,)),
    ),
    _plays(
        name="average_score",
        title="Average score",
        unit="ratio",
        kind="mean",
        formula="mean of score / max_score over completed stages that have a score",
        numerator=Term("sum", "score_ratio", (_DONE,)),
        denominator=Term("count", where=(_DONE, Condition("score_ratio", "given"))),
    ),
    _plays(
        name="best_score",
        title="Best score",
        unit="ratio",
        kind="max",
        formula="largest score / max_score of a completed stage",
        numerator=Term("max", "score_ratio", (_DONE,)),
    ),
    _plays(
        name="pass_rate",
        title="Pass rate",
        unit="ratio",
        kind="ratio",
        formula="passed / completed stages that can be passed",
        numerator=Term("count", where=(_DONE, _PASSED)),
        denominator=Term("count", where=(_DONE, _PASSABLE)),
    ),
    _plays(
        name="first_try_pass_rate",
        title="Passed at the first try",
        unit="ratio",
        kind="ratio",
        formula="passed at attempt 1 / stages completed at attempt 1 that can be passed",
        numerator=Term("count", where=(_DONE, _FIRST, _PASSED)),
        denominator=Term("count", where=(_DONE, _FIRST, _PASSABLE)),
    ),
    _plays(
        name="mastery_rate",
        title="Mastery rate",
        unit="ratio",
        kind="ratio",
        formula="distinct games whose quiz was passed / distinct games attempted, per student; "
        "a group sums both sides over its students",
        numerator=Term("distinct", "user_game", (_DONE, _QUIZ, _PASSED)),
        denominator=Term("distinct", "user_game"),
    ),
    Metric(
        name="concepts_mastered",
        title="Concepts mastered",
        unit="count",
        kind="distinct",
        of="marks",
        formula="distinct concept_tags of concept_mastered events",
        numerator=Term("distinct", "subject", _type("concept_mastered")),
        dimensions=(*PERSON, "game_id", "assignment_id", "sequence_id", "concept"),
        counts="students",
    ),
    Metric(
        name="time_to_mastery",
        title="Time to mastery",
        unit="ms",
        kind="percentile",
        formula="percentiles of time_to_mastery_ms of concept_mastered events",
        event_types=("concept_mastered",),
        value="time_to_mastery_ms",
        dimensions=(*PERSON, *SCENE),
        counts="students",
    ),
    _assignments(
        name="completion_rate",
        title="Assignments completed",
        unit="ratio",
        kind="ratio",
        formula="distinct assignments of a student that were completed / started in the period",
        numerator=Term("distinct", "user_subject", _type("assignment_completed")),
        denominator=Term("distinct", "user_subject", _type("assignment_started")),
    ),
    _assignments(
        name="overdue_rate",
        title="Assignments overdue",
        unit="ratio",
        kind="ratio",
        formula="distinct assignments of a student that became overdue / were started in the period",
        numerator=Term("distinct", "user_subject", _type("assignment_overdue")),
        denominator=Term("distinct", "user_subject", _type("assignment_started")),
    ),
    Metric(
        name="review_compliance",
        title="Reviews in time",
        unit="ratio",
        kind="ratio",
        of="rules",
        rule="review_compliance",
        formula="reviews done by 3 days after they were due / reviews that were due in the period",
        dimensions=(*_ROSTER, "game_id"),
        periods=("total",),
        counts="students",
    ),
    Metric(
        name="retention_score",
        title="Retention",
        unit="score",
        kind="mean",
        of="rules",
        rule="retention_score",
        formula="0.4 trajectory + 0.3 (100 - decay) + 0.2 consistency + 0.1 compliance, each 0 to "
        "100, per student and game; a group shows the mean",
        dimensions=(*_ROSTER, "game_id"),
        periods=("total",),
        counts="students",
    ),
    Metric(
        name="at_risk_students",
        title="Students at risk",
        unit="people",
        kind="distinct",
        of="rules",
        rule="at_risk_students",
        formula="students of whom any holds: more than 30 points behind an assignment's calendar; "
        "mean score of the last 5 stages below 60 %; no activity for 7 days with an assignment open; "
        "more than 5 attempts at one stage, none passed",
        dimensions=_ROSTER,
        periods=("total",),
        counts="students",
    ),
    Metric(
        name="leaderboard",
        title="Leaderboard",
        unit="rank",
        kind="rank",
        of="rules",
        rule="leaderboard",
        formula="best challenge score of each student in each game; the earliest wins a tie; top 20",
        dimensions=(*_ROSTER, "game_id"),
        periods=("total",),
        counts="students",
    ),
)
