"""The properties of learning: the specification's game and analytics groups, and one play's own."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from mlc_broker.model.types.base import (
    DEFAULT_MAX_SCORE,
    Count,
    Duration,
    GameVersion,
    Ident,
    LongDuration,
    MaxScore,
    Millis,
    Number,
    PlayContext,
    Properties,
    Score,
    StageType,
    Version,
    Words,
    check_needs,
    check_score,
)

InputMode: TypeAlias = Literal["mouse", "keyboard", "midi", "touch", "mic", "microphone"]
DeviceProfile: TypeAlias = Literal[
    "any", "midi_required", "midi_optional", "mic_optional", "mic_required"
]
QuitReason: TypeAlias = Literal["user_exit", "timeout", "error", "browser_close", "completion"]
MasteryStatus: TypeAlias = Literal["not_started", "in_progress", "mastered", "reviewed"]
LearningStyle: TypeAlias = Literal["visual", "aural", "kinesthetic", "mixed"]
Difficulty = Annotated[int, Meta(ge=1, le=10)]
Retained = Annotated[int, Meta(ge=0, le=100)]


class Learning(Properties, frozen=True):
    """What any learning event may carry."""

    game_id: Ident | None = None  # G-01542, the legacy GAM-0950, or opaque
    stage_id: Ident | None = None
    stage_type: StageType | None = None
    score: Score | None = None
    max_score: MaxScore | None = None  # None: 100
    passed: bool | None = None
    duration_ms: Duration | None = None
    attempts: Count | None = None
    mistake_count: Count | None = None
    input_mode: InputMode | None = None
    device_profile: DeviceProfile | None = None

    concept_tags: Words | None = None
    difficulty_level: Difficulty | None = None
    mastery_status: MasteryStatus | None = None
    time_to_mastery_ms: LongDuration | None = None
    retention_score: Retained | None = None
    adaptive_difficulty: Count | None = None
    learning_style: LearningStyle | None = None

    run_id: Ident | None = None  # one play of one stage
    game_version: GameVersion | None = None
    stage_version: GameVersion | None = None
    play_context: PlayContext | None = None
    step_id: Ident | None = None
    sequence_version: Version | None = None
    student_id: Ident | None = None
    target_score: Score | None = None
    pass_threshold: Score | None = None


class Play(Learning, frozen=True):
    """An event of one play: its score is within bounds; a `game_id` meets any of its needs."""

    def __post_init__(self) -> None:
        # Every play passes here: nothing is called unless there is something to find.
        score = self.score
        if score is not None:
            limit = self.max_score
            if score > (DEFAULT_MAX_SCORE if limit is None else limit):
                check_score(score, limit)
        if self.game_id is None and self.needs:
            check_needs(self)


class PerformanceSummary(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How the machine did during a play."""

    fps_average: Number | None = None
    fps_min: Number | None = None
    memory_peak_mb: Number | None = None
    asset_load_time_ms: Millis | None = None
    total_interactions: Count | None = None
    hints_used: Count | None = None
    pauses: Count | None = None
    errors_encountered: Count | None = None


class TelemetryConfig(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the game was told to report."""

    emit_per_note: bool | None = None
    emit_per_prompt: bool | None = None
    sampling_rate: Number | None = None


class StudentContext(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What went before this play."""

    prior_attempts_this_stage: Count | None = None
    best_score_this_stage: Score | None = None
    time_since_last_attempt_hours: Number | None = None
