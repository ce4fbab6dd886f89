import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mlc_broker.model.errors import StoreError
from mlc_broker.store.audit import AuditLog, Wanted, head_path, seal_at, verify
from mlc_broker.store.audit_entry import Entry
from mlc_broker.store.schema import sqlite3
from tests.fakes_store import SetClock, inline

KEY = bytes(range(32))


def entry(number: int = 1, **fields: Any) -> Entry:
    values: dict[str, Any] = {
        "who": f"teacher-{number}",
        "role": "teacher",
        "action": "events.list",
        "organization_id": "org",
        "subjects": {"org": [f"stu-{number}"]},
        "subjects_count": 1,
        "count": number,
    }
    return Entry(**values | fields)


def open_log(path: Path, in_thread: Any = inline) -> AuditLog:
    return AuditLog(path / "audit.db", KEY, clock=SetClock(), in_thread=in_thread)


async def filled(path: Path, entries: int = 8) -> Path:
    log = open_log(path)
    for number in range(1, entries + 1):
        await log.record(entry(number))
    log.close()
    return log.path


def change(path: Path, statement: str, *values: Any) -> None:
    connection = sqlite3.connect(str(path))
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute(statement, values)
    connection.commit()
    connection.close()


async def test_an_untouched_log_proves_itself(tmp_path: Path) -> None:
    path = await filled(tmp_path)
    verdict = verify(path, KEY)
    assert (verdict.entries, verdict.faults) == (8, [])
    number, _, seal = verdict.head.partition(":")
    assert seal_at(path, int(number)) == seal


def edited(path: Path, at: int) -> None:
    change(path, "UPDATE entry SET body = replace(body, 'teacher', 'Teacher') WHERE number = ?", at)


def deleted(path: Path, at: int) -> None:
    change(path, "DELETE FROM entry WHERE number = ?", at)


def swapped(path: Path, at: int) -> None:
    for old, new in ((at, -1), (at % 8 + 1, at), (-1, at % 8 + 1)):
        change(path, "UPDATE entry SET number = ? WHERE number = ?", new, old)


def truncated(path: Path, at: int) -> None:
    change(path, "DELETE FROM entry WHERE number >= ?", at)


def resealed(path: Path, at: int) -> None:
    change(path, "UPDATE entry SET seal = randomblob(32) WHERE number = ?", at)


def closed_up(path: Path, at: int) -> None:
    change(path, "DELETE FROM entry WHERE number = ?", at)
    for number in range(at + 1, 9):
        change(path, "UPDATE entry SET number = ? WHERE number = ?", number - 1, number)


@pytest.mark.parametrize("attack", [edited, deleted, swapped, truncated, resealed, closed_up])
async def test_every_way_to_spoil_the_log_is_noticed(
    tmp_path: Path, attack: Callable[[Path, int], None]
) -> None:
    random = Random(name_of(attack))
    good = await filled(tmp_path / "good")
    for at in random.sample(range(1, 9), 8):
        path = Path(shutil.copytree(good.parent, tmp_path / str(at))) / good.name
        attack(path, at)
        assert verify(path, KEY).faults, f"{name_of(attack)} of entry {at} went unnoticed"


async def test_a_log_without_its_head_or_with_a_made_up_one_is_not_proven(tmp_path: Path) -> None:
    path = await filled(tmp_path)
    truncated(path, 5)
    last = seal_at(path, 4)
    head_path(path).write_text(f"4 {last} {'0' * 64}\n")
    assert verify(path, KEY).faults
    head_path(path).unlink()
    assert verify(path, KEY).faults


async def test_another_key_proves_nothing(tmp_path: Path) -> None:
    assert verify(await filled(tmp_path), b"x" * 32).faults


async def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    await filled(tmp_path, 3)
    path = await filled(tmp_path, 2)
    verdict = verify(path, KEY)
    assert (verdict.entries, verdict.faults) == (5, [])


async def test_a_start_tells_that_entries_are_missing(tmp_path: Path) -> None:
    truncated(await filled(tmp_path), 4)
    log = open_log(tmp_path)
    assert log.troubles
    log.close()


async def test_entries_that_come_together_share_a_commit(tmp_path: Path) -> None:
    gate = trio.Event()
    commits: list[Any] = []

    async def slow(function: Any, *arguments: Any) -> Any:
        commits.append(function)
        await gate.wait()
        return await inline(function, *arguments)

    log = open_log(tmp_path, in_thread=slow)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(log.record, entry(number))
        await wait_all_tasks_blocked()
        gate.set()
    assert len(commits) <= 2
    log.close()
    assert verify(log.path, KEY).entries == 20


async def test_what_cannot_be_written_is_an_error_for_all_who_wait(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    await log.record(entry(1))
    real, log._db = log._db, _Full(log._db)
    with pytest.raises(StoreError, match="cannot be written"):
        await log.record(entry(2))
    log._db = real
    await log.record(entry(3))
    log.close()
    verdict = verify(log.path, KEY)
    assert (verdict.entries, verdict.faults) == (2, [])


async def test_a_reader_who_gives_up_leaves_the_chain_whole(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    with trio.CancelScope() as scope:
        scope.cancel()
        await log.record(entry(1))
    await log.record(entry(2))
    log.close()
    assert verify(log.path, KEY).faults == []


async def test_a_person_finds_who_read_them_and_nobody_elses_readers(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    await log.record(entry(1), entry(2))
    await log.record(entry(3, subjects={"other": ["stu-1"]}, organization_id="other"))
    await log.record(entry(4, subjects={}, more_subjects=True, action="export.end"))
    found = await log.who_read("org", "stu-1")
    assert [item.who for _, item in found] == ["teacher-4", "teacher-1"]
    assert [item.who for _, item in await log.who_read("other", "stu-1")] == ["teacher-3"]
    log.close()


async def test_entries_are_paged_newest_first_within_an_organization(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    for number in range(1, 6):
        await log.record(entry(number))
    await log.record(entry(9, organization_id="other", subjects={}))
    first = await log.entries(Wanted(organization_id="org", limit=2))
    assert [number for number, _ in first] == [5, 4]
    rest = await log.entries(Wanted(organization_id="org", before=4, limit=10))
    assert [number for number, _ in rest] == [3, 2, 1]
    assert len(await log.entries(Wanted(limit=10))) == 6
    log.close()


def name_of(function: Any) -> str:
    return str(function.__name__)


class _Full:
    """A connection whose disk is full."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.in_transaction = False

    def execute(self, statement: str, *arguments: Any) -> Any:
        if statement.startswith("BEGIN"):
            raise sqlite3.OperationalError("database or disk is full")
        return self.real.execute(statement, *arguments)
