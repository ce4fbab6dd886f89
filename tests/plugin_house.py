"""A daemon with plugins of a test's own making."""

from __future__ import annotations

import json
import re
import textwrap
from itertools import count
from pathlib import Path
from typing import Any

from mlc_broker.model.event import rfc3339
from mlc_broker.runtime.clock import SystemClock
from tests.daemon import Daemon

_numbers = count(1)
HEAD = """
import os, sys, time, re
import trio
from msgspec import Raw, Struct
from msgspec.structs import replace
from mlc_broker import Drop, Event, Facts, Processor, Reject
"""


def put_plugin(daemon: Daemon, name: str, code: str) -> Path:
    """Write `plugins/NAME.py`; the usual names are imported."""
    if not daemon.config.exists():
        daemon._init()
    folder = daemon.directory / "plugins"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(HEAD + textwrap.dedent(code))
    return path


def use_plugin(daemon: Daemon, name: str, **settings: Any) -> None:
    """Name the plugin in the chain, behind `protect`; again: with other settings."""
    text = daemon.config.read_text()
    text = re.sub(rf'\n\[\[pipeline\]\]\nuse = "{name}"\n(?:\w+ = .*\n)*', "", text)
    keys = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    table = f'\n[[pipeline]]\nuse = "{name}"\n{keys}'
    daemon.config.write_text(text.replace('use = "protect"\n', f'use = "protect"\n{table}', 1))


def play(word: str = "", **properties: Any) -> dict[str, Any]:
    """Return an event for `publish`; `word` says to a bad plugin what to do."""
    return {
        "event_id": f"evt_plugin_{next(_numbers):08d}",
        "event_type": "game_stage_complete",
        "timestamp": rfc3339(SystemClock().now()),
        "user_id": "usr_1",
        "session_id": "sess_1",
        "properties": {"game_id": "G-1", "stage_id": "s", "word": word} | properties,
    }


def outcomes(ack: dict[str, Any], events: list[dict[str, Any]]) -> list[str]:
    """Return what became of each event, in order."""
    other = {one["event_id"]: one["outcome"] for one in ack["receipts"]}
    return [other.get(event["event_id"], "stored") for event in events]


def stored(daemon: Daemon) -> dict[str, dict[str, Any]]:
    """Return what is stored, by id, as an administrator reads it."""
    token = daemon.token("usr_admin", "org_1", "subscriber_admin")
    answer = daemon.get("/v1/events?limit=1000", token)
    assert answer.status == 200, answer
    return {event["event_id"]: event for event in answer.json()["events"]}


def resident_bytes(pid: int) -> int:
    """Return the memory that a process has now."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found.group(1)) * 1024
