"""How fast questions are: `python -m tests.benchmarks.bench_query --events 1000000`.

Fills a store in a directory of its own with months of school, seals it, and asks as people do:
a student's last 100 events, a class over 30 days, one event by its id, everything as an export.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import trio

from mlc_broker.model.batch import Batch, Origin
from mlc_broker.model.event import Event, Facts
from mlc_broker.model.filter import Filter
from mlc_broker.model.principal import LEARNING, Grant, Principal, Role, Scope
from mlc_broker.query.cursor import Cursors
from mlc_broker.query.export.export import Exports
from mlc_broker.query.export.formats import writer_of
from mlc_broker.query.pseudonyms import Pseudonyms
from mlc_broker.query.query import Limits, Queries
from mlc_broker.query.scopes import Asker
from mlc_broker.store.audit import AuditLog
from mlc_broker.store.ids import Hasher
from mlc_broker.store.reader import Reader
from mlc_broker.store.store import Limits as StoreLimits
from mlc_broker.store.store import Store

CLASS_STUDENTS = 25
CLASSES_A_SCHOOL = 20
DAYS = 90
BATCH_EVENTS = 1000
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Clock:
    """It stands still."""

    def now(self) -> datetime:
        return NOW


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--events", type=int, default=200_000)
    options.add_argument("--rounds", type=int, default=200)
    options.add_argument("--directory", type=Path, default=None)
    options.add_argument("--hot", action="store_true", help="leave a tenth unsealed")
    given = options.parse_args()
    if given.directory is not None:
        trio.run(measure, given.directory, given)
    else:
        with tempfile.TemporaryDirectory() as directory:
            trio.run(measure, Path(directory), given)


async def measure(directory: Path, given: argparse.Namespace) -> None:
    store = await Store.open(
        directory,
        categories=lambda _: LEARNING,
        limits=StoreLimits(commit_events_max=5000, hot_bytes_max=1 << 40),
        clock=Clock(),
        durability="process-crash",
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        if not store.files.homes:
            await fill(store, given.events, hot=given.hot)
        log = AuditLog(directory / "audit.db", b"k" * 32, clock=Clock())
        reader = Reader()
        queries = Queries(
            store,
            reader,
            log,
            hasher=Hasher(store.files.manifest.secret("ids")),
            cursors=Cursors(b"k" * 32),
            pseudonyms=Pseudonyms(b"k" * 32),
            organization_ids=list,
            limits=Limits(query_seconds_max=60),
        )
        await ask_everything(queries, given)
        reader.close()
        log.close()
        store.stop()
    await store.close()


async def fill(store: Store, events: int, *, hot: bool) -> None:
    began, random = time.perf_counter(), Random(1)
    students = max(CLASS_STUDENTS, events // 400)
    origin = Origin(principal=Principal(kind="ingest", id="bench"), received_at=NOW)
    for at in range(0, events, BATCH_EVENTS):
        some = [
            event(at + n, students, events, random) for n in range(min(BATCH_EVENTS, events - at))
        ]
        batch = Batch(origin, some)
        await store.append(batch)
        if at and at % 500_000 == 0 and not (hot and at > events * 0.9):
            await store.seal_now()
            print(f"  {at:,} events, {at / (time.perf_counter() - began):,.0f}/s", flush=True)
    if not hot:
        await store.seal_now()
        await store.merge()
    print(
        f"filled and sealed {events:,} in {time.perf_counter() - began:.0f} s, {students} students"
    )


def event(number: int, students: int, events: int, random: Random) -> Event:
    student = random.randrange(students)
    group = student // CLASS_STUDENTS
    moment = NOW - timedelta(seconds=DAYS * 86_400 * (1 - number / events))
    return Event(
        event_id=f"evt_{number:016d}",
        event_type="game_stage_complete",
        timestamp=moment,
        user_id=f"stu-{student}",
        session_id=f"ses-{student}-{number * DAYS // events}",
        organization_id=f"org-{group // CLASSES_A_SCHOOL}",
        privacy_level="standard",
        facts=Facts(
            received_at=moment,
            role="student",
            class_ids=(f"cls-{group}",),
            retention_days=2555,
        ),
    ).but(
        properties={
            "game_id": f"GAM-{random.randrange(370):04d}",
            "stage_type": random.choice(["learn", "play", "quiz", "review"]),
            "score": random.randrange(100),
            "max_score": 100,
            "duration_ms": random.randrange(300_000),
            "attempts": random.randrange(5),
            "concept_tags": ["RHYTM-NOTV-QUAR"],
        },
        context={"class_id": f"cls-{group}", "teacher_id": f"tea-{group}", "assignment_id": "a1"},
        device_info={"browser": "Chrome", "platform": "Windows"},
    )


async def ask_everything(queries: Queries, given: argparse.Namespace) -> None:
    students = max(CLASS_STUDENTS, given.events // 400)
    random = Random(2)

    async def students_last() -> None:
        student = random.randrange(students)
        await queries.events(as_student(student), Filter(), limit=100)

    async def class_month() -> None:
        group = random.randrange(max(1, students // CLASS_STUDENTS))
        asker = as_teacher(group)
        wanted = Filter(class_id=frozenset({f"cls-{group}"}), begin=NOW - timedelta(days=30))
        await queries.events(asker, wanted, limit=1000)

    async def class_month_whole() -> None:
        group = random.randrange(max(1, students // CLASS_STUDENTS))
        wanted = Filter(class_id=frozenset({f"cls-{group}"}), begin=NOW - timedelta(days=30))
        await export(queries, as_teacher(group), wanted)

    async def by_id() -> None:
        number = random.randrange(given.events)
        await queries.find(as_root().scope, f"evt_{number:016d}")

    async def newest() -> None:
        await queries.events(as_root("org-0"), Filter(), limit=50)

    await timed("a student's last 100 events", students_last, given.rounds, target_ms=20)
    await timed("a class over 30 days, a page of 1,000", class_month, given.rounds, target_ms=150)
    await timed("a class over 30 days, whole", class_month_whole, given.rounds // 4, target_ms=150)
    await timed("the newest 50 of an organization", newest, given.rounds)
    await timed("one event by its id", by_id, min(40, given.rounds))
    for form in ("jsonl", "csv"):
        began = time.perf_counter()
        count, size = await export(queries, as_root(), Filter(), form)
        seconds = time.perf_counter() - began
        print(
            f"export {form}: {count:,} events, {count / seconds:,.0f}/s, {size / seconds / 1e6:,.0f} MB/s"
        )


async def export(
    queries: Queries, asker: Asker, wanted: Filter, form: str = "jsonl"
) -> tuple[int, int]:
    opened = await Exports(queries).open(asker, wanted, writer_of(form), "bench")
    size = 0
    async for chunk in opened:
        size += len(chunk)
    await opened.aclose()
    return opened.count, size


async def timed(
    name: str, question: Callable[[], Awaitable[None]], rounds: int, target_ms: float | None = None
) -> None:
    took = []
    for _ in range(max(rounds, 20)):
        began = time.perf_counter()
        await question()
        took.append((time.perf_counter() - began) * 1000)
    p95 = statistics.quantiles(took, n=20)[-1]
    verdict = "" if target_ms is None else f"  (to reach: p95 {target_ms:g} ms)"
    print(f"{name}: median {statistics.median(took):.1f} ms, p95 {p95:.1f} ms{verdict}", flush=True)


def as_student(student: int) -> Asker:
    org = f"org-{student // CLASS_STUDENTS // CLASSES_A_SCHOOL}"
    me = Principal(kind="user", id=f"stu-{student}", organization_id=org, role=Role.STUDENT)
    own = Grant(user_ids=frozenset({me.id}), categories=frozenset({LEARNING}))
    return Asker(principal=me, scope=Scope(organization_id=org, grants=(own,)))


def as_teacher(group: int) -> Asker:
    org = f"org-{group // CLASSES_A_SCHOOL}"
    me = Principal(kind="user", id=f"tea-{group}", organization_id=org, role=Role.TEACHER)
    grants = (
        Grant(user_ids=frozenset({me.id})),
        Grant(
            class_ids=frozenset({f"cls-{group}"}),
            categories=frozenset({LEARNING}),
            roles=frozenset({"student"}),
        ),
        Grant(teacher_ids=frozenset({me.id})),
    )
    return Asker(principal=me, scope=Scope(organization_id=org, grants=grants))


def as_root(org: str | None = None) -> Asker:
    me = Principal(kind="user", id="root", organization_id="-", role=Role.SYSTEM_ADMIN)
    return Asker(principal=me, scope=Scope(organization_id=org, grants=(Grant(),)))


if __name__ == "__main__":
    main()
