"""What every test has: a report header that makes a failure repeatable, and no silent skips."""

from __future__ import annotations

import os
import platform
import random
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import hypothesis
import pytest
from sqlite_utils.utils import sqlite3

from mlc_broker.testing import FixedClock

SEED = int(os.environ.get("MLC_SEED") or random.SystemRandom().randrange(2**32))
PACKAGES = ("trio", "trio-websocket", "quart-trio", "hypercorn", "msgspec", "sqlite-utils", "numpy")
NOTHING_SKIPPED = bool(os.environ.get("MLC_NOTHING_SKIPPED"))

hypothesis.settings.register_profile(
    "house", deadline=None, print_blob=True, derandomize=not os.environ.get("MLC_SEED")
)
hypothesis.settings.load_profile("house")


def pytest_report_header() -> list[str]:
    """Tell the versions and the seed: `MLC_SEED=… make test` repeats a run."""
    return [
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version} ({sqlite3.__name__})",
        ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        f"hypothesis {hypothesis.__version__}, MLC_SEED={SEED}",
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Any:
    """Where nothing may be skipped (.ci/run), a skip is a failure that tells its reason."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Any:
    """A whole file that would be skipped is a failure too."""
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if NOTHING_SKIPPED and report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"MLC_NOTHING_SKIPPED is set, and {report.nodeid} was: {reason}"


@pytest.fixture
def clock() -> FixedClock:
    """A wall clock that stands still; `mlc_broker.testing.TrioClock` follows a mock clock."""
    return FixedClock()


@pytest.fixture
def seeded() -> random.Random:
    """Chance that the report header can repeat."""
    return random.Random(SEED)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
