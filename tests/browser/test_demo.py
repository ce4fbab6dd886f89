"""The demo page: playable by keyboard, accessible, under a strict content security policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.chromium import Device, Page
from tests.browser.conftest import Game


@pytest.fixture
def demo(game: Game, device: Device) -> Page:
    """The demo page, under the daemon's origin and a policy without inline script or style."""
    device.demo({"token": game.daemon.token("usr_1"), "url": game.daemon.ws})
    return device.page(game.daemon.http + "/demo/")


def test_the_game_is_played_by_keyboard_and_really_reports(
    demo: Page, game: Game, tmp_path: Path
) -> None:
    demo.wait("document.getElementById('state').textContent.startsWith('Ready')")
    demo.size(1200, 900)
    demo.run("document.getElementById('start').focus()")
    demo.press("Enter")
    for _ in range(3):
        for key in "abcdefg":
            demo.press(key)
    demo.wait("document.querySelectorAll('#log td.stored').length >= 1")
    right = int(demo.run("return document.getElementById('right').textContent"))
    wrong = int(demo.run("return document.getElementById('wrong').textContent"))
    assert right + wrong == 21
    assert demo.axe() == []
    demo.screenshot(tmp_path / "demo.png")
    demo.press("Escape")
    demo.wait("document.querySelectorAll('#log td.stored').length >= 2")
    types = {event["event_type"] for event in game.stored()}
    assert types == {"game_stage_start", "game_stage_quit"}, "game_launch has no consent yet"
    assert demo.errors() == []


def test_the_consent_panel_is_accessible_and_its_word_holds(
    demo: Page, game: Game, tmp_path: Path
) -> None:
    demo.wait("document.querySelector('mlc-consent').shadowRoot?.querySelector('form')")
    assert demo.axe() == []
    demo.click("mlc-consent input[name=user_interaction]")
    demo.click("mlc-consent button[type=submit]")
    demo.size(420, 1500)
    demo.screenshot(tmp_path / "consent.png")
    demo.reload()
    demo.wait("!document.getElementById('start').disabled")
    demo.run("document.getElementById('start').click(); document.getElementById('stop').click()")
    demo.wait("document.querySelectorAll('#log td.stored').length == 3")
    types = [event["event_type"] for event in game.stored()]
    assert types.count("game_launch") == 1
    demo.click("mlc-consent button[type=button]")
    told = game.daemon.get("/v1/consents/usr_1", game.daemon.token("usr_1"))
    assert "denied" in told.body.decode()
    assert demo.errors() == []
