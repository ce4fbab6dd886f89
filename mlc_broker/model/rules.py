"""The platform's learning rules, as arithmetic: streaks, retention, reviews, who is at risk."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from statistics import fmean, pstdev

from msgspec import Struct, field

DAY_MS = 86_400_000
DAY_MINUTES = 1440
GRACE_MINUTES = 360  # a streak bears with so much of the day after a missed one
REVIEW_DAYS = 3  # a review is in time until so long after it was due
DECAY_RATE = 0.02
DECAY_MAX = 60.0
BEHIND_POINTS = 30.0
MEAN_PERCENT = 60.0
LAST_STAGES = 5
QUIET_DAYS = 7
ATTEMPTS = 5


def streak(active: Collection[int], at_night: Collection[int], now: int) -> int:
    """Return how many days somebody was active in a row, up to today.

    Days are numbers; `at_night` are those with activity before six. A missed day breaks nothing
    when activity came within six hours after its end, or still can. `now`: a wall-clock minute.
    """
    today, minute = divmod(now, DAY_MINUTES)

    def bridged(day: int) -> bool:
        return day in active or day + 1 in at_night

    day = today
    if not bridged(day):
        day -= 1  # today is not over
        if not bridged(day) and minute < GRACE_MINUTES:
            day -= 1  # nor is yesterday's grace
    count = 0
    while bridged(day):
        count += day in active
        day -= 1
    return count


def decay(days: float, rate: float = DECAY_RATE) -> float:
    """Return the points lost in so many days without practice: slowly, then fast, then slowly."""
    if days <= 7:
        lost = 0.5 * max(days, 0.0)
    elif days <= 30:
        lost = 3.5 + (days - 7) * 100 * rate
    else:
        lost = 3.5 + 2300 * rate + 0.3 * (days - 30)
    return min(DECAY_MAX, lost)


def trajectory(quiz: float, reviews: Sequence[float]) -> float:
    """Return where the scores (percent) are heading; `reviews` in order of time."""
    if not reviews:
        return quiz
    last = reviews[-1]
    trend = last - (reviews[-2] if len(reviews) > 1 else quiz)
    if trend > 0:
        return min(100.0, last + 5)
    if trend < -5:
        return max(0.0, last - 10)
    return 0.7 * last + 0.3 * quiz


def consistency(scores: Sequence[float]) -> float:
    """Return 100 less the coefficient of variation in percent; one score is consistent."""
    mean = fmean(scores)
    return 0.0 if mean == 0 else max(0.0, 100 * (1 - pstdev(scores) / mean))


def retention(quiz: float, reviews: Sequence[float], days: float, compliance: float) -> float:
    """Return the retention score, 0 to 100. Scores in percent; `days` since the last practice.

    `compliance` is 0 to 1 and counts as percent, like its siblings; the decay is capped at 60.
    """
    return (
        0.4 * trajectory(quiz, reviews)
        + 0.3 * (100 - decay(days))
        + 0.2 * consistency([quiz, *reviews])
        + 0.1 * 100 * compliance
    )


def in_time(scheduled_ms: int, due_ms: int, done_ms: Iterable[int]) -> bool:
    """Whether a review was done after it was scheduled and by three days after it was due."""
    latest = due_ms + REVIEW_DAYS * DAY_MS
    return any(scheduled_ms <= ms <= latest for ms in done_ms)


class Assignment(Struct):
    """An assignment's calendar; -1: not known."""

    begin_ms: int
    due_ms: int = -1


class Student(Struct):
    """What a student did, in order of time."""

    scores: list[float] = field(default_factory=list)  # percent, of completed stages
    tries: dict[tuple[int, int], int] = field(default_factory=dict)  # by step, until it is passed
    passed: set[tuple[int, int]] = field(default_factory=set)
    assignments: dict[int, Assignment] = field(default_factory=dict)
    progress: dict[int, int] = field(default_factory=dict)  # hundredths of a percent
    completed: set[int] = field(default_factory=set)
    last_active_ms: int = 0

    def open(self, assignment: int, begin_ms: int, due_ms: int, progress: int) -> None:
        """Note that an assignment was begun, or is overdue; -1: not said."""
        known = self.assignments.setdefault(assignment, Assignment(begin_ms))
        known.begin_ms = min(known.begin_ms, begin_ms)
        known.due_ms = due_ms if due_ms >= 0 else known.due_ms
        if progress >= 0:
            self.progress[assignment] = progress

    def attempted(self, step: tuple[int, int], *, passed: bool, attempt: int) -> None:
        """Note an attempt at a stage; `attempt` is the sender's count, -1: not said."""
        self.tries[step] = max(self.tries.get(step, 0) + 1, attempt)
        if passed:
            self.passed.add(step)

    def at_risk(self, now_ms: int, quiet_days: int) -> bool:
        """Whether any of the four rules holds. `quiet_days`: whole days since the last event."""
        last = self.scores[-LAST_STAGES:]
        weak = len(last) == LAST_STAGES and fmean(last) < MEAN_PERCENT
        stuck = any(n > ATTEMPTS for step, n in self.tries.items() if step not in self.passed)
        open_ = [(key, one) for key, one in self.assignments.items() if key not in self.completed]
        quiet = bool(open_) and quiet_days >= QUIET_DAYS
        return weak or stuck or quiet or any(self._behind(key, one, now_ms) for key, one in open_)

    def _behind(self, key: int, one: Assignment, now_ms: int) -> bool:
        length = one.due_ms - one.begin_ms
        if length <= 0:
            return False
        expected = min(100.0, max(0.0, 100 * (now_ms - one.begin_ms) / length))
        return expected - self.progress.get(key, 0) / 100 > BEHIND_POINTS
