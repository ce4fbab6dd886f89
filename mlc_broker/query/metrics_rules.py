"""The platform's rules, computed per student from plays, marks and active days when asked for.

Thread-side: the cells are read by the function handed in. `model/rules.py` has the rules themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Struct

from mlc_broker.model import rules
from mlc_broker.model.principal import Grant
from mlc_broker.query.metrics_sql import Asked, Query, filtered
from mlc_broker.query.metrics_time import DAY, Calendar
from mlc_broker.store.rollups_schema import CLASS, TEACHER
from mlc_broker.store.rollups_words import word_id

Read = Callable[[str, dict[str, Any]], list[tuple[Any, ...]]]
Row = dict[str, Any]
Person = tuple[int, int]  # organization, user
TOP = 20
_PLAY = (
    "s.org", "s.user", "s.ms", "s.at", "s.kind", "s.stage_type", "s.game", "s.stage",
    "s.assignment", "s.score", "s.max_score", "s.passed", "s.attempt", "s.progress", "s.standing",
)  # fmt: skip
_MARK = (
    "s.org", "s.user", "s.ms", "s.at", "s.type", "s.subject", "s.game", "s.v1", "s.v2", "s.v3",
    "s.standing", "s.assignment",
)  # fmt: skip
_WORD = {
    name: word_id(name)
    for name in (
        "quiz", "review", "challenge", "assignment_started", "assignment_completed",
        "assignment_overdue", "review_scheduled", "retention_check", "challenge_completed",
    )
}  # fmt: skip
_MS_DAY = 86_400_000


class Play(Struct):
    """A play as the file has it; -1: not given."""

    org: int
    user: int
    ms: int
    at: int
    kind: int
    stage_type: int
    game: int
    stage: int
    assignment: int
    score: int
    max_score: int
    passed: int
    attempt: int
    progress: int  # of the assignment afterwards, in hundredths of a percent
    standing: int

    @property
    def percent(self) -> float:
        """The score in percent of the largest."""
        return min(100.0, 100 * self.score / self.max_score)


class Mark(Struct):
    """A mark as the file has it; what v1 to v3 are depends on the type."""

    org: int
    user: int
    ms: int
    at: int
    type: int
    subject: int
    game: int
    v1: int
    v2: int
    v3: int
    standing: int
    assignment: int


class Told(Struct):
    """What a rule says of one student, or of one student in one game."""

    person: Person
    standing: int  # the last one: whose class they are in now
    numerator: float
    denominator: float = 1.0
    game: int = 0


def rows(asked: Asked, calendar: Calendar, read: Read) -> list[Row]:
    """Return the rows of a metric of the rules: one for each group that was asked for."""
    if asked.metric.rule == "leaderboard":
        return _leaderboard(asked, calendar, read)
    made = {
        "streak_days": _streaks,
        "review_compliance": _reviews,
        "retention_score": _retention,
        "at_risk_students": _at_risk,
    }[asked.metric.rule or ""](asked, calendar, read)
    return _grouped(asked, list(made), read)


def _streaks(asked: Asked, calendar: Calendar, read: Read) -> Iterable[Told]:
    query = filtered(_of(asked, "events", until=asked.end))
    early = f"s.at % {DAY} < {rules.GRACE_MINUTES}"
    query.columns = ["s.org", "s.user", f"s.at / {DAY}", f"max({early})", "max(s.standing)"]
    query.group = ["1", "2", "3"]
    days: dict[Person, tuple[set[int], set[int], int]] = {}
    for org, user, day, before_six, standing in read(query.text, query.values):
        active, at_night, _ = days.get((org, user), (set(), set(), 0))
        active.add(day)
        if before_six:
            at_night.add(day)
        days[org, user] = (active, at_night, standing)
    now = calendar.now if asked.end is None else min(calendar.now, asked.end - 1)
    for person, (active, at_night, standing) in days.items():
        yield Told(person, standing, rules.streak(active, at_night, now))


def _reviews(asked: Asked, calendar: Calendar, read: Read) -> Iterable[Told]:
    """Each review that was due in the window, and whether it was done in time."""
    plays = _plays(asked, read)
    marks = _marks(asked, read)
    done = _reviews_done(plays, marks)
    for mark in marks:
        if mark.type != _WORD["review_scheduled"] or mark.v1 < 0:
            continue
        day = _day(mark.v1, mark)
        begun = asked.begin is None or day * DAY >= asked.begin
        over = day * DAY >= asked.end if asked.end is not None else day * DAY > calendar.now
        if begun and not over:
            kept = rules.in_time(
                mark.ms, mark.v1, done.get((mark.org, mark.user, mark.subject), [])
            )
            yield Told((mark.org, mark.user), mark.standing, float(kept), 1.0, mark.game)


def _retention(asked: Asked, calendar: Calendar, read: Read) -> Iterable[Told]:
    """The score of each student in each game whose quiz has a score."""
    plays, marks = _plays(asked, read), _marks(asked, read)
    quizzes: dict[tuple[int, int, int], Play] = {}
    reviews: dict[tuple[int, int, int], list[tuple[int, float]]] = {}
    latest: dict[tuple[int, int, int], tuple[int, int]] = {}
    for play in plays:
        key = (play.org, play.user, play.game)
        if play.kind != 1 or play.score < 0:
            continue
        if play.stage_type == _WORD["quiz"]:
            best = quizzes.get(key)
            if best is None or play.percent > best.percent:
                quizzes[key] = play
        elif play.stage_type == _WORD["review"]:
            reviews.setdefault(key, []).append((play.ms, play.percent))
        else:
            continue
        latest[key] = max(latest.get(key, (0, 0)), (play.ms, play.standing))
    for mark in marks:
        if mark.type == _WORD["retention_check"] and mark.v2 >= 0:
            key = (mark.org, mark.user, mark.game)
            percent = min(100.0, 100 * mark.v2 / max(1, mark.v3))
            reviews.setdefault(key, []).append((mark.ms, percent))
            latest[key] = max(latest.get(key, (0, 0)), (mark.ms, mark.standing))
    kept = _kept(_reviews(msgspec.structs.replace(asked, begin=None), calendar, read))
    now_ms = calendar.now_utc * 60_000
    for key, quiz in quizzes.items():
        seen = [percent for _, percent in sorted(reviews.get(key, []))]
        ms, standing = latest[key]
        score = rules.retention(
            quiz.percent, seen, (now_ms - ms) / _MS_DAY, kept.get((key[0], key[1], key[2]), 1.0)
        )
        yield Told((key[0], key[1]), standing, score, 1.0, key[2])


def _at_risk(asked: Asked, calendar: Calendar, read: Read) -> Iterable[Told]:
    plays, marks = _plays(asked, read), _marks(asked, read)
    students: dict[Person, rules.Student] = {}
    standings: dict[Person, tuple[int, int]] = {}
    done: list[Play | Mark] = [*plays, *marks]
    for item in sorted(done, key=lambda item: item.ms):
        person = (item.org, item.user)
        student = students.setdefault(person, rules.Student())
        standings[person] = max(standings.get(person, (0, 0)), (item.ms, item.standing))
        student.last_active_ms = max(student.last_active_ms, item.ms)
        if isinstance(item, Play):
            _played(student, item)
        elif item.type in (_WORD["assignment_started"], _WORD["assignment_overdue"]):
            student.open(item.subject, item.v1 if item.v1 >= 0 else item.ms, item.v2, item.v3)
        elif item.type == _WORD["assignment_completed"]:
            student.completed.add(item.subject)
    query = filtered(_of(asked, "events", until=asked.end))
    query.columns, query.group = ["s.org", "s.user", "max(s.at)"], ["1", "2"]
    active = {(org, user): at for org, user, at in read(query.text, query.values)}
    now_ms = calendar.now_utc * 60_000
    for person, student in students.items():
        quiet = calendar.now - active.get(person, 0)
        if student.at_risk(now_ms, quiet // DAY):
            yield Told(person, standings[person][1], 1.0)


def _leaderboard(asked: Asked, calendar: Calendar, read: Read) -> list[Row]:
    """Best score of each student in each game, ranked among all; those in scope are shown."""
    # A rank means a place among everybody who was asked for, whoever may see whom.
    whole = msgspec.structs.replace(
        asked, scope=msgspec.structs.replace(asked.scope, grants=(Grant(),))
    )
    best: dict[tuple[int, int, int], tuple[int, int]] = {}
    for org, user, game, ms, score in _challenges(whole, read):
        key, entry = (org, game, user), (-score, ms)
        best[key] = min(best.get(key, entry), entry)
    boards: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for (org, game, user), (negative, ms) in best.items():
        boards.setdefault((org, game), []).append((negative, ms, user))
    seen = {(org, user) for org, user, *_ in _challenges(asked, read)}
    found = []
    for (org, game), entries in boards.items():
        for rank, (negative, ms, user) in enumerate(sorted(entries)[:TOP], 1):
            if (org, user) in seen:
                names = {"organization_id": org, "game_id": game, "user_id": user}
                row: Row = {name: names.get(name, 0) for name in asked.group_by}
                row |= {"_at": 0, "_people": 1, "value": -negative, "rank": rank}
                found.append(row | {"achieved_at": calendar.written(ms)})
    return found


def _challenges(asked: Asked, read: Read) -> list[tuple[int, int, int, int, int]]:
    plays = [
        (p.org, p.user, p.game, p.ms, p.score)
        for p in _plays(asked, read, windowed=True)
        if p.kind == 1 and p.score >= 0 and p.stage_type == _WORD["challenge"]
    ]
    return plays + [
        (m.org, m.user, m.game, m.ms, m.v1)
        for m in _marks(asked, read, windowed=True)
        if m.type == _WORD["challenge_completed"] and m.v1 >= 0
    ]


def _played(student: rules.Student, play: Play) -> None:
    if play.kind != 1:
        return
    if play.score >= 0:
        student.scores.append(play.percent)
    step = (play.assignment, play.stage or play.game)
    student.attempted(step, passed=play.passed == 1, attempt=play.attempt)
    if play.assignment and play.progress >= 0:
        student.progress[play.assignment] = play.progress


def _reviews_done(plays: list[Play], marks: list[Mark]) -> dict[tuple[int, int, int], list[int]]:
    """When each student did a review, by schedule and by game."""
    done: dict[tuple[int, int, int], list[int]] = {}
    for play in plays:
        if play.kind == 1 and play.stage_type == _WORD["review"]:
            done.setdefault((play.org, play.user, play.game), []).append(play.ms)
    for mark in marks:
        if mark.type == _WORD["retention_check"]:
            for subject in {mark.subject, mark.game}:
                done.setdefault((mark.org, mark.user, subject), []).append(mark.ms)
    for mark in marks:  # a schedule of a game is kept by any review of that game
        if mark.type == _WORD["review_scheduled"] and mark.game and mark.game != mark.subject:
            more = done.get((mark.org, mark.user, mark.game), [])
            done.setdefault((mark.org, mark.user, mark.subject), []).extend(more)
    return done


def _kept(told: Iterable[Told]) -> dict[tuple[int, int, int], float]:
    sums: dict[tuple[int, int, int], tuple[float, float]] = {}
    for one in told:
        key = (*one.person, one.game)
        over, under = sums.get(key, (0.0, 0.0))
        sums[key] = (over + one.numerator, under + one.denominator)
    return {key: over / under for key, (over, under) in sums.items()}


def _plays(asked: Asked, read: Read, *, windowed: bool = False) -> list[Play]:
    query = filtered(_of(asked, "plays", asked.begin if windowed else None, asked.end))
    query.columns = list(_PLAY)
    return [Play(*values) for values in read(query.text, query.values)]


def _marks(asked: Asked, read: Read, *, windowed: bool = False) -> list[Mark]:
    query: Query = filtered(_of(asked, "marks", asked.begin if windowed else None, asked.end))
    query.columns = list(_MARK)
    return [Mark(*values) for values in read(query.text, query.values)]


def _of(asked: Asked, source: Any, begin: int | None = None, until: int | None = None) -> Asked:
    """Return the question for the rows of another source, of the same people."""
    metric = msgspec.structs.replace(asked.metric, of=source, rule=None)
    filters = dict(asked.filters)
    if source == "events":
        filters.pop("game_id", None)
    return msgspec.structs.replace(asked, metric=metric, filters=filters, begin=begin, end=until)


def _grouped(asked: Asked, told: list[Told], read: Read) -> list[Row]:
    """Sum what is told of students over the groups asked for."""
    members = _members(told, asked, read)
    groups: dict[tuple[int, ...], list[Any]] = {}
    for one in told:
        for key in _keys(one, asked, members):
            over, under, people = groups.setdefault(key, [0.0, 0.0, set()])
            groups[key][:2] = over + one.numerator, under + one.denominator
            people.add(one.person)
    made = []
    for key, (over, under, people) in groups.items():
        row: Row = {"_at": 0, **dict(zip(asked.group_by, key, strict=True)), "_people": len(people)}
        if asked.metric.kind == "distinct":
            row["value"] = len(people)
        else:
            row["value"] = over / under
        if asked.metric.kind == "ratio":
            row |= {"numerator": round(over), "denominator": round(under)}
        elif asked.metric.kind == "mean":
            row["count"] = round(under)
        made.append(row)
    return made


def _keys(
    one: Told, asked: Asked, members: dict[tuple[int, int], list[int]]
) -> list[tuple[int, ...]]:
    keys: list[tuple[int, ...]] = [()]
    for name in asked.group_by:
        if name in ("class_id", "teacher_id"):
            axis = CLASS if name == "class_id" else TEACHER
            values = members.get((one.standing, axis), [0])
        else:
            whole = {
                "organization_id": one.person[0],
                "user_id": one.person[1],
                "game_id": one.game,
            }
            values = [whole[name]]
        keys = [(*key, value) for key in keys for value in values]
    return keys


def _members(told: list[Told], asked: Asked, read: Read) -> dict[tuple[int, int], list[int]]:
    if not {"class_id", "teacher_id"} & set(asked.group_by):
        return {}
    ids = "[" + ",".join(str(one.standing) for one in told) + "]"
    query = "SELECT id, axis, word FROM member WHERE id IN (SELECT value FROM json_each(:ids))"
    members: dict[tuple[int, int], list[int]] = {}
    for number, axis, word in read(query, {"ids": ids}):
        members.setdefault((number, axis), []).append(word)
    return members


def _day(ms: int, mark: Mark) -> int:
    """Return the day of a due moment, by the wall clock of the organization."""
    shift = mark.at - mark.ms // 60_000
    return (ms // 60_000 + shift) // DAY
