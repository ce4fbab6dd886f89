"""The platform's rules by its own examples."""

from __future__ import annotations

import pytest

from mlc_broker.model import rules

MONDAY = 20_000  # any day; `now` at noon of it
NOON = MONDAY * 1440 + 720


@pytest.mark.parametrize(
    ("active", "at_night", "now", "days"),
    [
        ([0, -1, -2], [], NOON, 3),
        ([-1, -2], [], NOON, 2),  # today is not over
        ([-2, -3], [], NOON, 0),  # yesterday was missed
        ([-2, -3], [], MONDAY * 1440 + 300, 2),  # five in the morning: the grace still runs
        ([-2, -3], [], MONDAY * 1440 + 360, 0),  # six: it is over
        ([0, -2], [0], NOON, 2),  # active before six bridges the missed day
        ([0, -2], [], NOON, 1),
        ([], [], NOON, 0),
    ],
)
def test_a_streak_is_days_in_a_row_with_six_hours_of_grace(
    active: list[int], at_night: list[int], now: int, days: int
) -> None:
    assert rules.streak({MONDAY + d for d in active}, {MONDAY + d for d in at_night}, now) == days


@pytest.mark.parametrize(
    ("days", "points"), [(0, 0), (7, 3.5), (8, 5.5), (30, 49.5), (31, 49.8), (65, 60), (400, 60)]
)
def test_decay_goes_through_the_specified_points_and_stops_at_60(
    days: float, points: float
) -> None:
    assert rules.decay(days) == pytest.approx(points)


@pytest.mark.parametrize(
    ("quiz", "reviews", "expected"),
    [
        (80, [], 80),
        (80, [85], 90),  # rising: last + 5
        (80, [99], 100),  # capped
        (80, [70], 60),  # falling by more than 5: last - 10
        (80, [4], 0),  # floored
        (80, [78], 0.7 * 78 + 0.3 * 80),  # about level
        (80, [60, 70], 75),  # the trend is of the last two
    ],
)
def test_the_trajectory_follows_the_last_two_scores(
    quiz: float, reviews: list[float], expected: float
) -> None:
    assert rules.trajectory(quiz, reviews) == pytest.approx(expected)


def test_retention_weighs_four_parts_each_from_0_to_100() -> None:
    assert rules.retention(100, [100], 0, 1.0) == pytest.approx(0.4 * 100 + 0.3 * 100 + 20 + 10)
    assert rules.retention(80, [], 8, 1.0) == pytest.approx(0.4 * 80 + 0.3 * 94.5 + 20 + 10)
    assert rules.retention(80, [], 8, 0.0) == pytest.approx(0.4 * 80 + 0.3 * 94.5 + 20)


def test_a_review_is_in_time_until_three_days_after_it_was_due() -> None:
    day = rules.DAY_MS
    assert rules.in_time(0, 7 * day, [10 * day])
    assert not rules.in_time(0, 7 * day, [10 * day + 1])
    assert not rules.in_time(5 * day, 7 * day, [4 * day])  # before it was scheduled


def student(**calendar: int) -> rules.Student:
    one = rules.Student()
    if calendar:
        one.open(1, calendar["begin"], calendar["due"], calendar.get("progress", -1))
    return one


def test_a_student_is_at_risk_more_than_30_points_behind_the_calendar() -> None:
    half = 5 * rules.DAY_MS
    assert student(begin=0, due=2 * half, progress=1999).at_risk(half, 0)
    assert not student(begin=0, due=2 * half, progress=2000).at_risk(half, 0)


def test_a_student_is_at_risk_when_the_last_five_stages_are_below_60_percent() -> None:
    one = student()
    one.scores = [100, 59, 60, 60, 60, 60]
    assert one.at_risk(0, 0)
    one.scores = [0, 60, 60, 60, 60, 60]
    assert not one.at_risk(0, 0)
    one.scores = [10, 10, 10, 10]
    assert not one.at_risk(0, 0)


def test_a_student_is_at_risk_after_seven_quiet_days_with_an_assignment_open() -> None:
    one = student(begin=0, due=-1)
    assert one.at_risk(0, 7)
    assert not one.at_risk(0, 6)
    one.completed.add(1)
    assert not one.at_risk(0, 30)


def test_a_student_is_at_risk_after_more_than_five_attempts_that_all_failed() -> None:
    one = student()
    for _ in range(5):
        one.attempted((1, 2), passed=False, attempt=-1)
    assert not one.at_risk(0, 0)
    one.attempted((1, 2), passed=False, attempt=-1)
    assert one.at_risk(0, 0)
    one.attempted((1, 2), passed=True, attempt=-1)
    assert not one.at_risk(0, 0)
