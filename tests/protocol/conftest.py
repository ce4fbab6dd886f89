"""`daemon`: the real daemon in a directory of its own; `make_daemon(...)`: with settings, or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """`make_daemon(settings="[events]\\n…", environment="development")`: started, ended after."""
    made: list[Daemon] = []

    def make(*, settings: str = "", environment: str = "", start: bool = True) -> Daemon:
        directory = tmp_path / f"daemon-{len(made)}"
        made.append(Daemon(directory, settings=settings, environment=environment))
        return made[-1].start() if start else made[-1]

    yield make
    for daemon in made:
        if daemon.running:
            daemon.kill()


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    return make_daemon()
