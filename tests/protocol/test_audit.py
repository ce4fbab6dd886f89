from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.school_daemon import SchoolDaemon, school


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SchoolDaemon]:
    with school(tmp_path_factory.mktemp("school")) as running:
        yield running


def entries(whole: SchoolDaemon, who: str = "root", query: str = "") -> list[dict[str, Any]]:
    answer = whole.get(who, f"/v1/audit?limit=1000{query}")
    assert answer.status == 200, answer
    found: list[dict[str, Any]] = answer.json()["entries"]
    return found


def test_a_read_of_others_stands_in_the_log_with_who_whom_and_why(whole: SchoolDaemon) -> None:
    whole.get("tess", "/v1/events?class_id=c1&purpose=parents%27%20evening&limit=1000")
    last = entries(whole)[0]
    assert (last["who"], last["role"], last["action"]) == ("tess", "teacher", "events.list")
    assert last["organization_id"] == "north"
    assert last["purpose"] == "parents' evening"
    assert last["filters"] == {"class_id": ["c1"]}
    assert "ada" in last["subjects"]
    assert "tess" not in last["subjects"]
    assert last["ferpa_class"] == "exempt:school_official"
    assert last["count"] > 0


def test_every_way_of_reading_leaves_an_entry_and_reading_oneself_none(whole: SchoolDaemon) -> None:
    def added(who: str, path: str) -> list[str]:
        before = entries(whole)[0]["number"]
        whole.get(who, path)
        return [e["action"] for e in entries(whole) if e["number"] > before and e["who"] == who]

    event_id = next(e["event_id"] for e in whole.events if e.get("user_id") == "ada")
    assert added("sam", "/v1/events") == ["events.list"]
    assert added("sam", f"/v1/events/{event_id}") == ["events.get"]
    assert added("sam", f"/v1/receipts/{event_id}") == ["receipts.get"]
    assert added("sam", "/v1/export") == ["export.end", "export.begin"]
    assert added("sam", "/v1/audit") == ["audit.read"]
    assert added("ada", "/v1/events") == []
    assert added("ada", "/v1/export") == []
    assert added("ada", f"/v1/events/{event_id}") == []


def test_the_log_is_for_administrators_each_within_their_own(whole: SchoolDaemon) -> None:
    whole.get("sam", "/v1/events")
    whole.get("sue", "/v1/events")
    for who in ("ada", "tess", "thea"):
        assert whole.get(who, "/v1/audit").status == 403
    assert {e["who"] for e in entries(whole, "sue")} & {"sam", "tess"} == set()
    assert "sue" in {e["who"] for e in entries(whole, "sue")}
    assert entries(whole, "sue", "&organization_id=north") == []
    assert {"sam", "sue"} <= {e["who"] for e in entries(whole)}


def test_a_read_across_organizations_tells_each_only_of_its_own(whole: SchoolDaemon) -> None:
    whole.get("root", "/v1/events?limit=1000")
    (mine, *_) = [e for e in entries(whole, "sue") if e["who"] == "root"]
    assert "sid" in mine["subjects"]
    assert "ada" not in mine["subjects"]
    assert mine["ferpa_class"] == "exempt:de_identified"


def test_the_log_is_paged(whole: SchoolDaemon) -> None:
    for _ in range(5):
        whole.get("sam", "/v1/events?limit=1")
    first = whole.get("root", "/v1/audit?limit=2").json()
    second = whole.get("root", f"/v1/audit?limit=2&cursor={first['next']}").json()
    numbers = [e["number"] for e in first["entries"] + second["entries"]]
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) == 4


def test_a_person_sees_who_looked(whole: SchoolDaemon) -> None:
    whole.get("tess", "/v1/events?user_id=ada&purpose=grades")
    told = whole.get("ada", "/v1/me/data").json()["read_by"]
    assert told[0]["who"] == "tess"
    assert told[0]["purpose"] == "grades"
    sid = whole.get("sid", "/v1/me/data").json()["read_by"]
    assert "tess" not in {entry["who"] for entry in sid}


def test_a_full_disk_for_the_log_means_that_nobody_is_read(whole: SchoolDaemon) -> None:
    import sqlite3

    whole.get("sam", "/v1/events?limit=1")
    lock = sqlite3.connect(whole.daemon.directory / "data" / "audit.db", isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        answer = whole.get("sam", "/v1/events")
        assert answer.status == 503
        assert "access log" in answer.json()["detail"]
        assert "retry-after" in answer.headers
        assert whole.get("ada", "/v1/events").status == 200
        lock.execute("ROLLBACK")
    finally:
        lock.close()
    assert whole.get("sam", "/v1/events").status == 200
