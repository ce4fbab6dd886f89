"""A store that is ended at each of its named points keeps what it answered for, once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio

from tests.fakes_store import ids, outcomes, read, running
from tests.fault.store_school import BATCHES, sent

ROOT = Path(__file__).parents[2]
POINTS = [
    "append.before_commit",
    "append.after_commit",
    "append.before_ack",
    "append.after_ack",
    "rotate.after_manifest",
    "seal.after_plan",
    "seal.before_home_commit",
    "seal.after_home_commit",
    "seal.after_manifest",
    "merge.after_file",
    "merge.after_manifest",
    "release.before_unlink",
]
ALL = sorted(e.event_id for number in range(BATCHES) for e in sent(number))


def run(directory: Path, point: str = "") -> tuple[int, list[str]]:
    """Live once; return the exit status and the ids that were answered for."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fault.store_school", str(directory)],
        cwd=ROOT,
        env=os.environ | {"MLC_CRASH_AT": point},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    answers = [line.split() for line in done.stdout.splitlines()]
    assert not [line for line in answers if line[0] not in {"stored", "duplicate"}], answers
    assert done.returncode in {0, 137}, done.stderr
    return done.returncode, [line[1] for line in answers]


async def check(directory: Path, answered: Iterable[str]) -> None:
    """What was answered for is there, nothing is there twice, and the store goes on."""
    async with running(directory) as store:
        found = ids(read(store))
        assert len(found) == len(set(found)), "an event is stored twice"
        assert set(answered) <= set(found), "an answered event is lost"
        for number in range(BATCHES):
            answers = await outcomes(store, *sent(number))
            expected = ["duplicate" if e.event_id in found else "stored" for e in sent(number)]
            assert answers == expected
        await store.seal_now()
        assert ids(read(store)) == ALL
        assert (await store.verify()).damaged == []


def crash(directory: Path, point: str, times: Iterable[int]) -> None:
    for n in times:
        home = directory / f"{n}"
        status, answered = run(home, f"{point}:{n}")
        if status == 0:
            assert n > 1, f"{point} is never passed"
            return
        trio.run(check, home, answered)


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_a_named_point_loses_nothing_answered_and_doubles_nothing(
    tmp_path: Path, point: str
) -> None:
    crash(tmp_path, point, (1, 2))


@pytest.mark.long
@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_the_nth_passing_of_a_point_does_no_harm(tmp_path: Path, point: str) -> None:
    crash(tmp_path, point, range(1, 21))


@pytest.mark.parametrize("point", ["append.after_commit", "seal.after_home_commit"])
def test_crash_upon_crash_in_one_directory_does_no_harm(tmp_path: Path, point: str) -> None:
    answered: set[str] = set()
    for n in (3, 1, 2, 1):
        _, some = run(tmp_path, f"{point}:{n}")
        answered.update(some)
    trio.run(check, tmp_path, answered)


def test_a_life_without_a_crash_stores_everything(tmp_path: Path) -> None:
    status, answered = run(tmp_path)
    assert (status, sorted(answered)) == (0, ALL)
    trio.run(check, tmp_path, answered)
