"""Pages and files over HTTP: policies, caching, and what `serve --dev` adds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.daemon import Daemon

STATIC = Path(__file__).parents[2] / "mlc_broker" / "edge" / "static"
MLC_BROKER = [sys.executable, "-m", "mlc_broker"]
CONSOLE = sorted(path.name for path in (STATIC / "console").iterdir())


class Tags(HTMLParser):
    """What a page brings with it."""

    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.named: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        self.named += [value for name in ("src", "href") if (value := given.get(name))]


@pytest.mark.parametrize(("page", "connect"), [("console", "'self'"), ("demo", "'self' ws: wss:")])
def test_a_page_has_a_strict_policy_and_lives_by_it(
    daemon: Daemon, page: str, connect: str
) -> None:
    told = daemon.get(f"/{page}/")
    assert told.status == 200
    assert told.headers["content-type"] == "text/html; charset=utf-8"
    assert told.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        f"connect-src {connect}; img-src 'self' data:; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'self'"
    )
    assert told.headers["x-content-type-options"] == "nosniff"
    assert told.headers["cache-control"] == "no-store"
    assert told.headers["referrer-policy"] == "no-referrer"
    tags = Tags()
    tags.feed(told.body.decode())
    assert tags.inline == []
    for name in tags.named:
        assert not re.match(r"\w+:(?!,)|//", name), f"{name} is from elsewhere"
        if re.fullmatch(r"\w+\.(js|css)", name):
            assert daemon.get(f"/{page}/{name}").status == 200
    moved = daemon.get(f"/{page}")
    assert (moved.status, moved.headers["location"]) == (308, f"/{page}/")


def test_only_files_of_the_page_are_served(daemon: Daemon) -> None:
    for path in ("../pages.py", "..%2f..%2fhttp%2fpages.py", "%2e%2e/sdk", "nothing.js", ".hidden"):
        assert daemon.get(f"/console/{path}").status in (400, 404), path


@pytest.mark.parametrize("name", [name for name in CONSOLE if name.endswith(".js")])
def test_no_script_of_the_console_makes_markup_of_words(name: str) -> None:
    text = (STATIC / "console" / name).read_text("utf-8")
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc"
    )
    assert re.findall(forbidden, text) == []


def test_the_browser_client_may_be_kept_and_is_asked_for_again_cheaply(daemon: Daemon) -> None:
    path = "/sdk/mlc-events.js"
    told = daemon.get(path)
    assert told.status == 200
    assert told.body == (STATIC / "sdk" / "mlc-events.js").read_bytes()
    assert told.headers["content-type"] == "text/javascript; charset=utf-8"
    tag = told.headers["etag"]
    again = daemon.request("GET", path, headers={"If-None-Match": tag})
    assert (again.status, again.body) == (304, b"")
    named = daemon.get(f"{path}?v={tag.strip(chr(34))}")
    assert "immutable" in named.headers["cache-control"]
    assert "immutable" not in told.headers["cache-control"]
    elsewhere = daemon.request("GET", path, headers={"Origin": "https://school.example"})
    assert elsewhere.headers["access-control-allow-origin"] == "*"
    assert daemon.get("/sdk/mlc-events.d.ts").status == 200
    assert daemon.get("/sdk/nothing.js").status == 404


def test_there_is_no_demo_token_in_earnest(daemon: Daemon) -> None:
    assert daemon.get("/demo/token").status == 404


def test_the_demo_has_a_token_with_serve_dev(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "dev")
    daemon._init()
    process = subprocess.Popen(
        [*MLC_BROKER, "serve", "--dev", "--config", str(daemon.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        ready = next(line for line in process.stdout if line.startswith("ready "))
        daemon.http = ready.split("http=")[1].strip()
        given = daemon.get("/demo/token").json()
        assert given["url"] == ready.split("ws=")[1].split(" ")[0]
        assert daemon.get("/v1/me", given["token"]).json()["role"] == "student"
        strange = daemon.request("GET", "/demo/token", headers={"Sec-Fetch-Site": "cross-site"})
        assert strange.status == 403
        told = daemon.command("top", "--once")
        assert "outcome" in told.stdout
    finally:
        process.terminate()
        process.wait(15)
        process.stdout.close()


def test_the_daemon_says_where_it_is_while_it_runs(daemon: Daemon) -> None:
    file = daemon.directory / "data" / "endpoints.json"
    assert file.stat().st_mode & 0o777 == 0o600
    told = json.loads(file.read_text())
    assert (told["ws"], told["http"], told["pid"]) == (daemon.ws, daemon.http, daemon.pid)
    daemon.stop()
    assert not file.exists()
    refused = daemon.command("tail", "--once", expect=69)
    assert "no daemon runs" in refused.stderr


def test_tail_and_top_show_what_flows(daemon: Daemon) -> None:
    key = daemon.key()
    event = {
        "event_id": "evt_00000001",
        "event_type": "target_met",
        "user_id": "usr_1",
        "properties": {"game_id": "G-1", "stage_id": "\x1b[31mred", "score": 8, "target": 7},
    }
    following = subprocess.Popen(
        [*MLC_BROKER, "tail", "--once", "--org", "org_1", "--config", str(daemon.config)],
        stdout=subprocess.PIPE,
        text=True,
    )
    root = daemon.token("usr_root", role="system_admin")
    while daemon.get("/v1/flow", root).json()["subscribers"] == 0:
        assert following.poll() is None
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    assert daemon.publish([event | {"timestamp": now}], key)["stored"] == 1
    line, _ = following.communicate(timeout=15)
    assert "target_met" in line
    assert "org_1/usr_1" in line
    assert "\x1b" not in line, "an event moves no cursor"
    picture = daemon.command("top", "--once").stdout
    assert re.search(r"stored +1 ", picture)
    assert re.search(r"target_met +1 ", picture)
    assert "validate" in picture
