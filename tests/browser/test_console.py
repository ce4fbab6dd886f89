"""The console in a real browser: what it shows, to whom, and that no event speaks in it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.browser.chromium import Device, Page
from tests.daemon import Daemon

MARKUP = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'>",
    "<body onload=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<video><source onerror=alert(1)></video>",
    "<a href=javascript:alert(1)>x</a>",
    "<math><mtext></p><script>alert(1)</script>",
    '"><script>alert(1)</script>',
    "'><script>alert(1)</script>",
    "</td></tr><script>alert(1)</script>",
    "</pre><script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "--><script>alert(1)</script>",
    "]]><script>alert(1)</script>",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "${alert(1)}",
    "{{constructor.constructor('alert(1)')()}}",
    "`-alert(1)-`",
    "';alert(1);//",
    "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<style>@import 'javascript:alert(1)'</style>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<base href=//evil.example/>",
    "<form action=javascript:alert(1)><button>x</button></form>",
    "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>",
    "<marquee onstart=alert(1)>x</marquee>",
    "<x onclick=alert(1) tabindex=1 autofocus onfocus=alert(1)>",
    "\nevent: error\ndata: {}\n\n",
    "\r\nid: 9\r\n\r\n",
    "<template><script>alert(1)</script></template>",
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "__proto__",
]
HERE = [f"{text} #{number}" for number, text in enumerate(MARKUP[:10])]
PAYLOADS = [*MARKUP, *HERE]
NOTICE = "window.dialogs = 0; for (const it of ['alert','confirm','prompt']) window[it] = () => { window.dialogs += 1 }"


def play(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "event_id": f"evt_console_{number:06}",
        "event_type": "target_met",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "user_id": "usr_1",
        "session_id": "ses_1",
        "properties": {"game_id": "G-00001", "stage_id": "G-00001-quiz", "score": 80, "target": 70},
        **fields,
    }


def signed_in(device: Device, daemon: Daemon, token: str) -> Page:
    page = device.page(daemon.http + "/console/")
    page.wait("!document.getElementById('door').hidden")
    page.run(NOTICE)
    page.run(
        "document.getElementById('token').value = value;"
        "document.getElementById('form').requestSubmit()",
        token,
    )
    page.wait("!document.getElementById('house').hidden")
    page.wait("document.getElementById('live-state').classList.contains('good')")
    time.sleep(0.3)  # the stream stands: what is published from now on comes by
    return page


def complaints(page: Page) -> list[str]:
    """Return the browser's errors, those of pages aside that a daemon need not have."""
    return [said for said in page.errors() if "status of 404" not in said]


def test_the_events_of_an_organization_come_by_live(
    device: Device, daemon: Daemon, tmp_path: Path
) -> None:
    page = signed_in(device, daemon, daemon.token("usr_boss", role="subscriber_admin"))
    key = daemon.key()
    ack = daemon.publish([play(number) for number in range(5)], key)
    assert ack["stored"] == 5, ack
    page.wait("document.querySelectorAll('#events tr').length === 5")
    page.size(1280, 1000)
    page.screenshot(tmp_path / "console.png")
    assert "usr_1" in page.run("return document.getElementById('events').textContent")
    assert page.axe() == []
    assert complaints(page) == []


def test_a_student_sees_their_own_events_only(device: Device, daemon: Daemon) -> None:
    page = signed_in(device, daemon, daemon.token("usr_1", role="student"))
    key = daemon.key()
    daemon.publish([play(1), play(2, user_id="usr_2"), play(3)], key)
    page.wait("document.querySelectorAll('#events tr').length === 2")
    assert "usr_2" not in page.run("return document.body.textContent")


def test_a_wrong_token_is_told_and_not_kept(device: Device, daemon: Daemon) -> None:
    page = device.page(daemon.http + "/console/")
    page.run(
        "document.getElementById('token').value = 'nonsense';"
        "document.getElementById('form').requestSubmit()"
    )
    page.wait("document.getElementById('refused').textContent.length > 5")
    assert page.run("return Object.keys(sessionStorage).length + localStorage.length") == 0
    assert page.axe() == []


def test_a_filter_narrows_what_comes_by_and_pause_holds_it(device: Device, daemon: Daemon) -> None:
    page = signed_in(device, daemon, daemon.token("usr_boss", role="subscriber_admin"))
    page.run(
        "document.getElementById('f-user').value = 'usr_2';"
        "document.getElementById('filters').requestSubmit()"
    )
    time.sleep(0.5)
    key = daemon.key()
    daemon.publish([play(1), play(2, user_id="usr_2")], key)
    page.wait("document.querySelectorAll('#events tr').length === 1")
    page.click("#pause")
    daemon.publish([play(3, user_id="usr_2")], key)
    time.sleep(0.5)
    assert page.run("return document.querySelectorAll('#events tr').length") == 1
    page.click("#pause")
    page.wait("document.querySelectorAll('#events tr').length === 2")


def test_fifty_payloads_open_no_dialog(device: Device, daemon: Daemon) -> None:
    page = signed_in(device, daemon, daemon.token("usr_boss", role="subscriber_admin"))
    assert len(PAYLOADS) == 50
    hostile = [
        play(
            number,
            user_id=text[:128],
            context={"page": text, "class_id": text, "assignment_id": text},
            properties={"game_id": text[:64], "stage_id": text[:64], "score": 1, "target": 1},
        )
        for number, text in enumerate(PAYLOADS)
    ]
    ack = daemon.publish(hostile, daemon.key())
    shown = ack["stored"]
    assert shown >= 40, ack
    page.wait(f"document.querySelectorAll('#events tr').length === {shown}")
    page.run("for (const it of document.querySelectorAll('#events details')) it.open = true")
    page.wait(f"document.querySelectorAll('#events pre').length === {shown}")
    page.run("for (const it of document.querySelectorAll('#events *')) it.click?.()")
    time.sleep(0.5)
    assert page.run("return window.dialogs") == 0
    assert (
        page.run("return document.querySelectorAll('#events :is(script,img,iframe,a)').length") == 0
    )
    assert "<script>alert(1)</script>" in page.run(
        "return document.getElementById('events').textContent"
    )
    assert complaints(page) == [], "a payload was tried, and only the policy stopped it"


def test_what_a_token_says_of_its_bearer_is_text(device: Device, daemon: Daemon) -> None:
    name = "usr <img src=x onerror=alert(1)>"
    page = signed_in(device, daemon, daemon.token(name, role="teacher"))
    assert name in page.run("return document.getElementById('who').textContent")
    assert page.run("return document.images.length + window.dialogs") == 0
    assert complaints(page) == []


def test_a_system_admin_sees_what_flows(device: Device, daemon: Daemon, tmp_path: Path) -> None:
    page = signed_in(device, daemon, daemon.token("usr_root", role="system_admin"))
    daemon.publish([play(number) for number in range(30)], daemon.key())
    page.wait("document.getElementById('health').textContent.includes('target_met')")
    page.size(1280, 1700)
    page.screenshot(tmp_path / "console.png")
    assert page.axe() == []
    page.size(360, 800)
    page.screenshot(tmp_path / "small.png")
    assert page.run("return document.documentElement.scrollWidth <= 360")
    assert complaints(page) == []
