from __future__ import annotations

import csv
import io
import json
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.daemon import wait_until
from tests.school_daemon import SchoolDaemon, school


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SchoolDaemon]:
    with school(tmp_path_factory.mktemp("school")) as running:
        yield running


def expected(whole: SchoolDaemon) -> list[str]:
    return sorted(e["event_id"] for e in whole.events if e["organization_id"] == "north")


def test_jsonl_holds_the_very_events_that_a_page_shows(whole: SchoolDaemon) -> None:
    answer = whole.get("sam", "/v1/export")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert 'filename="events_north_' in answer.headers["content-disposition"]
    events = [json.loads(line) for line in answer.body.splitlines()]
    by_id = {event["event_id"]: event for event in whole.events}
    assert sorted(event["event_id"] for event in events) == expected(whole)
    assert all(by_id[event["event_id"]] == event for event in events)


def test_csv_is_flat_and_a_mark_stands_first_only_when_asked(whole: SchoolDaemon) -> None:
    body = whole.get("sam", "/v1/export?format=csv&event_type=game_stage_complete").body
    rows = list(csv.DictReader(io.StringIO(body.decode(), newline="")))
    assert {row["properties.score"] for row in rows} == {"82"}
    marked = whole.get("sam", "/v1/export?format=csv&bom=1").body
    assert marked.startswith(b"\xef\xbb\xbf")


def test_sqlite_and_parquet_and_xapi_are_whole_files(whole: SchoolDaemon, tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(whole.get("sam", "/v1/export?format=sqlite").body)
    connection = sqlite3.connect(tmp_path / "x.sqlite")
    found = [row[0] for row in connection.execute("SELECT event_id FROM events ORDER BY 1")]
    connection.close()
    assert found == expected(whole)
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "x.parquet").write_bytes(whole.get("sam", "/v1/export?format=parquet").body)
    table = parquet.read_table(tmp_path / "x.parquet")
    assert sorted(table["event_id"].to_pylist()) == expected(whole)
    statements = whole.get("sam", "/v1/export?format=xapi").json()
    assert statements
    assert len({told["id"] for told in statements}) == len(statements)


def test_an_unknown_format_is_a_problem(whole: SchoolDaemon) -> None:
    assert whole.get("sam", "/v1/export?format=xls").status == 400


def test_clients_that_vanish_cost_nothing_and_their_places_are_given_back(
    whole: SchoolDaemon,
) -> None:
    there = urlsplit(whole.daemon.http)
    head = (
        f"GET /v1/export HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {whole.token('sam')}\r\n\r\n"
    )
    for _ in range(10):
        with socket.create_connection((there.hostname or "", there.port or 0)) as client:
            client.sendall(head.encode())
    wait_until(lambda: whole.get("sam", "/v1/export").status == 200)
    answer = whole.get("sam", "/v1/export")
    assert len(answer.body.splitlines()) == len(expected(whole))


def test_the_command_writes_the_same_with_and_without_a_running_daemon(
    whole: SchoolDaemon, tmp_path: Path
) -> None:
    def exported(name: str, *words: str) -> bytes:
        out = tmp_path / name
        whole.daemon.command("export", "--organization", "north", "-o", str(out), *words)
        return out.read_bytes()

    running = exported("a.jsonl")
    assert sorted(json.loads(line)["event_id"] for line in running.splitlines()) == expected(whole)
    whole.daemon.stop()
    assert exported("b.jsonl") == running
    assert exported("c.csv", "--format", "csv").startswith(b'"event_id"')
    told = whole.daemon.command("export", "--from", "yesterday", expect=None)
    assert told.returncode in {64, 69}
    assert "Traceback" not in told.stderr
    whole.daemon.start()
    audit = whole.get("root", "/v1/audit?limit=100").json()["entries"]
    assert {"operator:root"} & {e["who"] for e in audit} or any(
        e["who"].startswith("operator:") for e in audit
    )


def test_verify_finds_everything_as_it_was_written_beside_the_daemon(whole: SchoolDaemon) -> None:
    assert whole.daemon.running
    told = whole.daemon.command("verify")
    assert "packs:" in told.stdout
    assert "access log:" in told.stdout
    data = whole.daemon.directory / "data"
    head = json.loads(whole.daemon.command("verify", "--json").stdout)["access log"]["head"]
    whole.daemon.command("verify", "--head", head)
    whole.daemon.stop()
    connection = sqlite3.connect(data / "audit.db")
    connection.execute("DELETE FROM entry WHERE number = (SELECT max(number) FROM entry)")
    connection.commit()
    connection.close()
    told = whole.daemon.command("verify", expect=1)
    assert "DAMAGED access log" in told.stdout
    whole.daemon.command("verify", "--head", head, expect=1)
    whole.daemon.start()
