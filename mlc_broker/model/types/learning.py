"""Learning progress: plays, assignments, mastery, challenges. Never sampled, always `standard`.

The school's authorization covers these, and they hold ids and figures only.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from mlc_broker.model.principal import LEARNING
from mlc_broker.model.types.base import (
    Count,
    Date,
    Duration,
    EventType,
    FreeText,
    Ident,
    LongDuration,
    Number,
    Percent,
    Properties,
    Ratio,
    Score,
    Word,
    Words,
    check_date,
    check_needs,
    check_score,
)
from mlc_broker.model.types.play import (
    Learning,
    PerformanceSummary,
    Play,
    QuitReason,
    StudentContext,
    TelemetryConfig,
)

WHICH_PLAY = ("game_id", "stage_id", "run_id")


class GameStageStart(Play, frozen=True):
    """A stage was begun."""

    needs: ClassVar = (WHICH_PLAY,)

    telemetry_config: TelemetryConfig | None = None
    student_context: StudentContext | None = None


class GameStageComplete(Play, frozen=True):
    """A stage was played to its end."""

    needs: ClassVar = (WHICH_PLAY,)

    mastery_achieved: bool | None = None
    retry_count: Count | None = None
    offline_queued: bool | None = None
    attempt_number: Count | None = None
    step_completed: bool | None = None
    assignment_progress_before: Percent | None = None
    assignment_progress_after: Percent | None = None
    performance_summary: PerformanceSummary | None = None


class GameStageQuit(Play, frozen=True):
    """A stage was left before its end."""

    elapsed_ms: Duration | None = None
    progress_percentage: Percent | None = None
    score_at_quit: Score | None = None
    reason: QuitReason | None = None
    completed_prompts: Count | None = None
    total_prompts: Count | None = None
    performance_at_quit: PerformanceSummary | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_score(self.score_at_quit, self.max_score, "score_at_quit")


class TargetMet(Play, frozen=True):
    """A target score was reached."""

    needs: ClassVar = (WHICH_PLAY,)

    actual_score: Score | None = None
    time_to_target_ms: LongDuration | None = None
    attempts_to_target: Count | None = None


class AssignmentEvent(Learning, frozen=True):
    """What any event of an assignment may carry."""

    status: Word | None = None
    step_count: Count | None = None
    steps_completed: Count | None = None
    due_date: Date | None = None
    assigned_at: Date | None = None

    def __post_init__(self) -> None:
        check_date(self.due_date, "due_date")
        check_date(self.assigned_at, "assigned_at")


class AssignmentStarted(AssignmentEvent, frozen=True):
    """An assignment was begun."""

    precompleted_count: Count | None = None


class AssignmentCompleted(AssignmentEvent, frozen=True):
    """An assignment was finished."""

    completion_percentage: Percent | None = None
    average_score: Number | None = None
    best_score: Score | None = None
    time_to_completion_ms: LongDuration | None = None
    time_to_completion_hours: Number | None = None
    mastery_score: Number | None = None
    on_time: bool | None = None


class AssignmentOverdue(AssignmentEvent, frozen=True):
    """An assignment's day has passed."""

    days_overdue: Count | None = None
    completion_percentage: Percent | None = None


class ConceptMastered(Play, frozen=True):
    """A concept was mastered."""

    mastery_level: Word | None = None
    total_attempts: Count | None = None
    learning_sequence_position: Count | None = None
    concept_id: Ident | None = None


class ReviewScheduled(Learning, frozen=True):
    """A review was put into the calendar. Six pages of the platform shape it six ways."""

    needs: ClassVar = (
        ("game_id", "step_id", "stage_id", "concept_id", "concept_tags"),
        ("offset_days", "review_date", "due_date", "scheduled_for"),
    )

    review_date: Date | None = None
    due_date: Date | None = None
    scheduled_for: Date | None = None
    offset_days: Count | None = None
    retention_confidence: Ratio | None = None
    schedule_id: Ident | None = None
    concept_id: Ident | None = None
    review_sequence: Count | None = None
    trigger: Word | None = None

    def __post_init__(self) -> None:
        check_needs(self)
        check_date(self.review_date, "review_date")
        check_date(self.due_date, "due_date")
        check_date(self.scheduled_for, "scheduled_for")


class RetentionCheck(Play, frozen=True):
    """What was learnt was tested again."""

    concept_id: Ident | None = None
    schedule_id: Ident | None = None
    review_sequence: Count | None = None
    score_achieved: Score | None = None
    days_since_mastery: Count | None = None
    days_since_quiz: Count | None = None
    days_overdue: Count | None = None
    retained: bool | None = None
    decay_rate: Number | None = None
    consistency_score: Number | None = None
    compliance_rate: Number | None = None


class ChallengeJoined(Learning, frozen=True):
    """Somebody entered a challenge."""

    challenge_id: Ident | None = None
    challenge_game_id: Ident | None = None
    challenge_type: Word | None = None
    participant_count: Count | None = None


class ChallengeCompleted(Learning, frozen=True):
    """A challenge was played to its end. Challenges need no maximum: their scores are open."""

    challenge_id: Ident | None = None
    challenge_game_id: Ident | None = None
    rank: Count | None = None
    completion_time_ms: LongDuration | None = None
    attempt_number: Count | None = None
    is_personal_best: bool | None = None
    is_leaderboard_qualified: bool | None = None

    def __post_init__(self) -> None:
        if self.max_score is not None:
            check_score(self.score, self.max_score)


class LeaderboardUpdate(Properties, frozen=True):
    """A place on a leaderboard changed."""

    leaderboard_id: Ident | None = None
    challenge_id: Ident | None = None
    game_id: Ident | None = None
    rank: Count | None = None
    previous_rank: Count | None = None
    score: Score | None = None  # a challenge's: open
    display_name: FreeText | None = None
    time_period: Literal["all_time", "month", "week", "day"] | None = None
    scope_type: Word | None = None
    participant_count: Count | None = None
    badges: Words | None = None


def _type(
    name: str, group: str, title: str, properties: type[Properties], *aliases: str
) -> EventType:
    return EventType(
        name=name,
        category=LEARNING,
        group=group,
        title=title,
        properties=properties,
        aliases=aliases,
    )


TYPES = (
    _type("game_stage_start", "Gameplay", "Stage started", GameStageStart, "attempt.started"),
    _type(
        "game_stage_complete",
        "Gameplay",
        "Stage completed",
        GameStageComplete,
        # One play is announced under many names; metrics count it once, by `run_id`.
        "game_completed",
        "game_session.completed",
        "free_play_session_complete",
        "assigned_session_complete",
        "attempt.completed",
    ),
    _type("game_stage_quit", "Gameplay", "Stage quit", GameStageQuit, "attempt.abandoned"),
    _type("target_met", "Gameplay", "Target met", TargetMet, "target.met"),
    _type(
        "assignment_started",
        "Assignments",
        "Assignment started",
        AssignmentStarted,
        "assignment.started",
    ),
    _type(
        "assignment_completed",
        "Assignments",
        "Assignment completed",
        AssignmentCompleted,
        "assignment_complete",
        "assignment.completed",
    ),
    _type(
        "assignment_overdue",
        "Assignments",
        "Assignment overdue",
        AssignmentOverdue,
        "assignment.overdue",
    ),
    _type(
        "concept_mastered",
        "Mastery",
        "Concept mastered",
        ConceptMastered,
        "concept.mastered",
        "mastery_achieved",
        "mastery_demonstrated",
    ),
    _type("review_scheduled", "Mastery", "Review scheduled", ReviewScheduled, "review.scheduled"),
    _type("retention_check", "Mastery", "Retention checked", RetentionCheck, "retention_assessed"),
    _type(
        "challenge_joined", "Challenges", "Challenge joined", ChallengeJoined, "challenge.joined"
    ),
    _type(
        "challenge_completed",
        "Challenges",
        "Challenge completed",
        ChallengeCompleted,
        "challenge.completed",
    ),
    _type(
        "leaderboard_update",
        "Challenges",
        "Leaderboard updated",
        LeaderboardUpdate,
        "leaderboard.update",
        "leaderboard.updated",
    ),
)
