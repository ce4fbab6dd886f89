"""After any history of crashes the cells equal a recount of the stored events."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def histories(directory: Path, first: int, many: int) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.fault.rollups_school", str(directory), str(first), str(many)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.split(" ", 2) for line in told.stdout.splitlines()]
    assert len(lines) == many, told.stderr
    assert [line for line in lines if line[2] != "[]"] == []
    assert sum(int(line[1]) for line in lines) >= many, "hardly a life has crashed"


def test_a_few_random_crash_histories_leave_no_drift(tmp_path: Path) -> None:
    histories(tmp_path, 0, 8)


@pytest.mark.long
def test_two_hundred_random_crash_histories_leave_no_drift(tmp_path: Path) -> None:
    histories(tmp_path, 1000, 200)
