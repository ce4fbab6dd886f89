"""A browser for the whole run, the real daemon for each test, and a game between them."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import Chromium, Device, Page, missing
from tests.daemon import Daemon

SECRET = "a secret of at least sixteen bytes"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, where there is no browser."""
    lack = missing()
    for item in items:
        if lack and "tests/browser" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=lack))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """One Chromium for all tests."""
    browser = Chromium()
    yield browser
    browser.end()


@pytest.fixture
def device(chromium: Chromium) -> Iterator[Device]:
    """A device with storage of its own."""
    made = chromium.context()
    yield made
    made.end()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """The real daemon, which comes back on the same ports."""
    doors = {name: {"listen": f"127.0.0.1:{free_port()}"} for name in ("http", "websocket")}
    made = Daemon(tmp_path / "daemon", settings=doors).start()
    yield made
    if made.running:
        made.kill()


def free_port() -> int:
    """A port below those of outgoing connections: nobody takes it while the daemon is away."""
    while True:
        port = random.randrange(21_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Game:
    """What the tests play: pages of the daemon's origin with a client each."""

    def __init__(self, daemon: Daemon, device: Device) -> None:
        self.daemon = daemon
        self.device = device

    def open(self, user: str = "usr_1", *, secret: str | None = SECRET, **options: Any) -> Page:
        """Open a tab and start a client for a user; `options` as for createClient."""
        page = self.device.page(self.daemon.http + "/game")
        self.begin(page, user, secret=secret, **options)
        return page

    def begin(
        self, page: Page, user: str = "usr_1", *, secret: str | None = SECRET, **options: Any
    ) -> None:
        """Start a client in a page that is loaded."""
        page.wait("!!window.begin")
        page.run("window.token = value", self.daemon.token(user))
        limits = {"retryMs": 100, "offlineMs": 1000, "batchMs": 500} | options.pop("limits", {})
        known = {"id": user} | ({"secret": secret} if secret else {})
        told = {"url": self.daemon.http, "stream": self.daemon.ws, "user": known, "limits": limits}
        page.run("begin(value)", told | options)

    def stored(self, user: str = "usr_1", event_type: str = "") -> list[dict[str, Any]]:
        """Return what the daemon holds of a user, over all its pages."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            more = f"&event_type={event_type}" if event_type else ""
            more += f"&cursor={cursor}" if cursor else ""
            answer = self.daemon.get(f"/v1/events?limit=1000{more}", self.daemon.token(user))
            assert answer.status == 200, answer
            told = answer.json()
            found += told["events"]
            cursor = told.get("next") or ""
            if not cursor:
                return found


@pytest.fixture
def game(daemon: Daemon, device: Device) -> Game:
    """A game on a device, and the daemon that it reports to."""
    return Game(daemon, device)
