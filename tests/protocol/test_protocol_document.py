"""docs/protocol.md is true: its transcripts are replayed, its tables compared with the daemon."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from mlc_broker.model import errors
from mlc_broker.model.batch import Outcome
from tests.daemon import Daemon

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
PEOPLE = {
    "TEACHER": ("usr_teacher", "org_1", "teacher"),
    "STUDENT": ("usr_student", "org_1", "student"),
    "ADMIN": ("usr_admin", "org_1", "subscriber_admin"),
    "ROOT": ("usr_root", "org_1", "system_admin"),
}
ANY = "…"


def blocks(kind: str) -> list[list[str]]:
    """The lines of every fenced block of this kind."""
    found = re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return [block.splitlines() for block in found]


def filled_in(daemon: Daemon, line: str) -> str:
    """Put tokens, the key and the time into a line of the document."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = line.replace('"NOW"', f'"{now}"')
    for name, who in PEOPLE.items():
        if re.search(rf"\b{name}\b", line):
            line = re.sub(rf"\b{name}\b", daemon.token(*who), line)
    return re.sub(r"\bKEY\b", daemon.key(), line) if "KEY" in line else line


def fits(told: Any, written: Any) -> bool:
    """Whether what came is what is written; `…` is anything."""
    if written == ANY:
        return True
    if isinstance(written, dict) and isinstance(told, dict):
        return told.keys() == written.keys() and all(fits(told[k], written[k]) for k in written)
    if isinstance(written, list) and isinstance(told, list):
        return len(told) == len(written) and all(map(fits, told, written))
    return bool(told == written)


@pytest.mark.parametrize("number", range(len(blocks("conversation"))))
def test_a_conversation_of_the_document_is_held(daemon: Daemon, number: int) -> None:
    with connect(daemon.ws) as guest:
        for line in blocks("conversation")[number]:
            side, said = line[0], line[2:]
            if side == ">":
                guest.send(filled_in(daemon, said))
            elif said.startswith("close "):
                with pytest.raises(ConnectionClosed) as closed:
                    guest.recv(5)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == int(said.removeprefix("close "))
            else:
                told, written = json.loads(guest.recv(5)), json.loads(said)
                assert fits(told, written), (told, written)


def exchanges(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each request of a block with the lines that follow it."""
    current: list[str] = []
    for line in lines:
        if re.match(r"> [A-Z]+ /", line):
            current = []
            yield line[2:], current
        else:
            current.append(line)


def test_the_http_exchanges_of_the_document_happen(daemon: Daemon) -> None:
    for block in blocks("http"):
        asked = list(exchanges(block))
        assert asked
        for request, rest in asked:
            first, _, who = request.partition(" as ")
            method, path = first.split(" ")
            sent = [line[2:] for line in rest if line.startswith("> ")]
            status, body = [line[2:] for line in rest if line.startswith("< ")]
            answer = daemon.request(
                method,
                path,
                filled_in(daemon, who) if who else None,
                filled_in(daemon, sent[0]).encode() if sent else None,
                {"Content-Type": "application/json"} if sent else {},
            )
            assert answer.status == int(status), (request, answer)
            assert fits(answer.json(), json.loads(body)), (request, answer.json())


def test_the_table_of_paths_is_what_the_daemon_serves(daemon: Daemon) -> None:
    written = set(re.findall(r"`(GET|POST|PUT|DELETE) (/[^`]*)`", TEXT))
    document = daemon.get("/openapi.json").json()
    served = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert written - {("GET", "/demo/token")} == served  # that one needs `serve --dev`


def test_the_tables_of_codes_and_outcomes_are_whole() -> None:
    told = set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))
    kinds = [it for it in vars(errors).values() if isinstance(it, type)]
    codes = {it.code for it in kinds if issubclass(it, errors.ClientError)}
    assert codes <= told
    assert {outcome.value for outcome in Outcome} <= told
