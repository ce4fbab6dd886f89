"""Fixtures for a conftest: `daemon`, the real one; `make_daemon(...)`: with settings, or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """`make_daemon(settings={"events": {"max_batch": 10}})`: started, and ended after the test.

    Also `append="[[sinks]]\\n…"`, `environment="development"`, `start=False`.
    """
    made: list[Daemon] = []

    def make(*, start: bool = True, **options: Any) -> Daemon:
        made.append(Daemon(tmp_path / f"daemon-{len(made)}", **options))
        return made[-1].start() if start else made[-1]

    yield make
    for daemon in made:
        if daemon.running:
            daemon.kill()


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    return make_daemon()
