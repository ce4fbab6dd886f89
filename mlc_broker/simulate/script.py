"""What one person does in a lesson, as events in the order of time. No I/O, no clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import count
from random import Random
from typing import Any

from mlc_broker.model.event import rfc3339
from mlc_broker.model.principal import Role
from mlc_broker.simulate.curriculum import Curriculum, Step
from mlc_broker.simulate.ledger import CONSENTED, KEPT, SAMPLED, Fate, Sent
from mlc_broker.simulate.people import Person
from mlc_broker.simulate.plan import Plan
from mlc_broker.simulate.trouble import bad_event

DUPLICATE_SHARE = 0.01  # of events: sent again, later, on purpose
OLD_EVENTS_MAX = 60  # of one offline burst


class Script:
    """The part of one person. `lesson()` yields (seconds since the beginning, event)."""

    def __init__(
        self,
        person: Person,
        plan: Plan,
        curriculum: Curriculum,
        *,
        random: Random,
        begins: datetime,
        name: str,
        as_users: bool = True,
    ) -> None:
        self.person = person
        self._plan = plan
        self._curriculum = curriculum
        self._random = random
        self._begins = begins
        self._as_users = as_users
        self._ids: Callable[[], str] = map("{}-{:05x}".format, _always(name), count()).__next__
        self._session = f"sess_{name}"
        self._platform = random.choice(("desktop", "tablet", "mobile"))
        self._at = 0.0  # seconds since the beginning
        self._context: dict[str, Any] = {
            "class_id": person.class_id,
            "teacher_id": person.teacher_id,
        }

    def lesson(self) -> Iterator[tuple[float, Sent]]:
        """Yield everything until the lesson's time is over; the last one is a logout."""
        last: Sent | None = None
        seconds = self._plan.lesson_minutes * 60
        for at, sent in self._student() if self.person.role is Role.STUDENT else self._teacher():
            if at > seconds:
                break
            yield at, sent
            if sent.fate is KEPT:
                last = sent if self._random.random() < DUPLICATE_SHARE else last
            if last is not None and self._random.random() < 0.2:
                yield at, Sent(event=last.event, event_id=last.event_id, fate=KEPT, copy=True)
                last = None
            if self._random.random() < self._plan.bad_share:
                yield at, self._bad()
        self._at = seconds
        properties = {"session_duration_ms": int(seconds * 1000)}
        yield seconds, self._event("user_logout", CONSENTED, logout_reason="timeout", **properties)

    def old_events(self) -> list[Sent]:
        """What was played without a network, hours to days ago: a burst at the next opening."""
        ago = -self._random.choice((2 * 3600.0, 26 * 3600.0, 5 * 86_400.0, 60 * 86_400.0))
        now, self._at = self._at, ago
        burst: list[Sent] = []
        for step in self._steps():
            burst.extend(sent for _, sent in self._play(step))
            if len(burst) >= OLD_EVENTS_MAX:
                break
        self._at = now
        return burst

    def _student(self) -> Iterator[tuple[float, Sent]]:
        self._at = self._random.uniform(0, 20)
        yield self._now("user_login", CONSENTED, login_method="password", mfa_used=False)
        yield from self._page("/student/dashboard")
        assignment = ""
        for step in self._steps():
            if step.assignment != assignment:
                if assignment:
                    yield self._now("assignment_completed", KEPT, completion_percent=100)
                assignment = step.assignment
                yield from self._open(step)
            yield from self._play(step)

    def _teacher(self) -> Iterator[tuple[float, Sent]]:
        self._at = self._random.uniform(0, 10)
        yield self._now("user_login", CONSENTED, login_method="sso", mfa_used=True)
        yield from self._page("/teacher/dashboard")
        while True:
            self._pass(20, 90)
            yield from self._page("/teacher/class-progress")
            what = self._random.choice(("sequence_view", "resource_download", "message_sent"))
            yield self._now(what, CONSENTED)

    def _steps(self) -> Iterator[Step]:
        """Walk the assignments from somewhere on, round and round."""
        assignments = self._curriculum.assignments
        first = self._random.randrange(len(assignments))
        for number in count(first):
            yield from assignments[number % len(assignments)]

    def _open(self, step: Step) -> Iterator[tuple[float, Sent]]:
        self._context |= {
            "assignment_id": f"asg_{step.assignment.lower()}"[:64],
            "sequence_id": self._curriculum.sequence_id,
        }
        yield self._now("assignment_open", CONSENTED)
        yield self._now("assignment_started", KEPT)

    def _play(self, step: Step) -> Iterator[tuple[float, Sent]]:
        """One stage: launched, played until its target is met or given up, and what follows."""
        yield from self._page("/student/assignment-play")
        yield self._now("game_launch", CONSENTED, game_id=step.game.game_id)
        stage: dict[str, Any] = {
            "game_id": step.game.game_id,
            "stage_id": step.stage_id,
            "stage_type": step.stage,
        }
        self._context["page_url"] = "/student/assignment-play"
        spent_ms, best = 0, 0
        for attempt in range(1, 5):
            run = {"run_id": f"run_{self._session}_{int(self._at * 1000)}"[:64]}
            how = "midi" if step.game.midi else "mouse"
            yield self._now("game_stage_start", KEPT, **stage, **run, input_mode=how)
            duration_ms = self._pass(20, 150)
            spent_ms += duration_ms
            if self._random.random() < 0.06:
                yield self._now(
                    "game_stage_quit",
                    KEPT,
                    **stage,
                    **run,
                    elapsed_ms=duration_ms,
                    reason="user_exit",
                )
                return
            score = self._score(step, attempt)
            best = max(best, score)
            yield self._completed(step, stage | run, score, attempt, duration_ms)
            yield from self._mishaps()
            if best >= step.target:
                yield from self._success(step, stage, best, attempt, spent_ms)
                return

    def _completed(
        self, step: Step, stage: dict[str, Any], score: int, attempt: int, duration_ms: int
    ) -> tuple[float, Sent]:
        return self._now(
            "game_stage_complete",
            KEPT,
            **stage,
            score=score,
            max_score=self._score_max(step),
            passed=score >= step.target,
            duration_ms=duration_ms,
            attempts=attempt,
            mistake_count=self._random.randrange(12),
        )

    def _success(
        self, step: Step, stage: dict[str, Any], score: int, attempt: int, spent_ms: int
    ) -> Iterator[tuple[float, Sent]]:
        yield self._now(
            "target_met",
            KEPT,
            game_id=stage["game_id"],
            stage_id=stage["stage_id"],
            target_score=step.target,
            actual_score=score,
            time_to_target_ms=spent_ms,
            attempts_to_target=attempt,
        )
        if step.stage != "quiz":
            return
        yield self._now(
            "concept_mastered",
            KEPT,
            game_id=stage["game_id"],
            concept_tags=list(step.game.concepts),
            mastery_level="quiz_passed",
            time_to_mastery_ms=spent_ms,
            total_attempts=attempt,
            learning_sequence_position=step.position,
        )
        due = self._begins + timedelta(seconds=self._at, days=7)
        yield self._now(
            "review_scheduled",
            KEPT,
            game_id=stage["game_id"],
            sequence_id=self._curriculum.sequence_id,
            review_date=rfc3339(due),
            offset_days=7,
            retention_confidence=round(self._random.random(), 2),
        )

    def _page(self, url: str) -> Iterator[tuple[float, Sent]]:
        self._pass(1, 4)
        self._context["page_url"] = url
        load_ms = self._random.randint(200, 3000)
        yield self._now("page_view", SAMPLED)
        yield self._now(
            "page_load_time",
            SAMPLED,
            page_url=url,
            load_time_ms=load_ms,
            dom_ready_ms=load_ms * 2 // 3,
            first_paint_ms=load_ms // 2,
            largest_contentful_paint_ms=load_ms,
            cumulative_layout_shift=round(self._random.random() / 10, 3),
        )
        yield self._now(
            "api_response_time",
            SAMPLED,
            endpoint="/api/v1/assignments",
            method="GET",
            status_code=200,
            response_time_ms=self._random.randint(20, 900),
            payload_size_bytes=self._random.randint(200, 20_000),
        )

    def _mishaps(self) -> Iterator[tuple[float, Sent]]:
        if self._random.random() < 0.03:
            yield self._now("javascript_error", KEPT, error_message="note is not defined")
        if self._random.random() < 0.02:
            yield self._now("network_error", KEPT, endpoint="/api/v1/scores")

    def _score(self, step: Step, attempt: int) -> int:
        """A score near the target: below it for most at first, nearer with every try."""
        reach = self._random.gauss(self.person.skill + 0.12 * attempt, 0.12)
        return max(0, min(self._score_max(step), round(step.target * reach)))

    def _score_max(self, step: Step) -> int:
        return min(1_000_000, max(10, step.target + step.target // 4))

    def _pass(self, least: float, most: float) -> int:
        """Let time go by; return the milliseconds."""
        seconds = round(self._random.uniform(least, most), 3)
        self._at += seconds
        return int(seconds * 1000)

    def _now(self, event_type: str, fate: Fate, **properties: Any) -> tuple[float, Sent]:
        return self._at, self._event(event_type, fate, **properties)

    def _event(self, event_type: str, fate: Fate, **properties: Any) -> Sent:
        at = self._begins + timedelta(seconds=self._at)
        event_id = self._ids()
        event: dict[str, Any] = {
            "event_id": event_id,
            "event_type": event_type,
            "timestamp": rfc3339(at + timedelta(seconds=self.person.clock_off_seconds)),
            "user_id": self.person.user_id,
            "session_id": self._session,
            "organization_id": self._plan.organization_id,
            "device_info": {"platform": self._platform, "browser": "chrome", "version": "120.0"},
            "context": dict(self._context),
            "properties": properties,
        }
        if self._as_users and self._random.random() < 0.2:  # the token knows who it is
            del event["user_id"], event["organization_id"]
        return Sent(event=event, event_id=event_id, fate=fate, at=at)

    def _bad(self) -> Sent:
        good = self._event("game_stage_complete", KEPT, game_id="G-00010", score=5, max_score=10)
        return bad_event(good, self._random, as_users=self._as_users)


def _always(name: str) -> Iterator[str]:
    while True:
        yield name
