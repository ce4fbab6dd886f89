from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.school_daemon import SchoolDaemon, school


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SchoolDaemon]:
    with school(tmp_path_factory.mktemp("school")) as running:
        yield running


def newest(whole: SchoolDaemon) -> list[dict[str, Any]]:
    return [event for event in whole.events if event["organization_id"] == "north"]


def test_events_come_newest_first_fifty_at_a_time(whole: SchoolDaemon) -> None:
    page = whole.get("sam", "/v1/events").json()
    times = [event["timestamp"] for event in page["events"]]
    assert len(times) == 50
    assert times == sorted(times, reverse=True)
    assert page["next"]


def test_pages_hold_every_event_once_while_new_ones_come(whole: SchoolDaemon) -> None:
    seen: list[str] = []
    path, key = "/v1/events?limit=7", whole.daemon.key("north")
    before = len(whole.ids("sam", "/v1/events?limit=1000"))
    cursor = None
    for number in range(200):
        page = whole.get("sam", path if cursor is None else f"{path}&cursor={cursor}").json()
        seen += [event["event_id"] for event in page["events"]]
        late = {
            "event_id": f"later-{number:06d}",
            "event_type": "user_login",
            "timestamp": _now(),
            "user_id": "ben",
        }
        whole.daemon.publish([late], key)
        cursor = page["next"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == before
    assert not [event_id for event_id in seen if event_id.startswith("later-")]


def test_a_cursor_holds_across_a_restart(whole: SchoolDaemon) -> None:
    first = whole.get("sue", "/v1/events?limit=5").json()
    whole.daemon.restart()
    second = whole.get("sue", f"/v1/events?limit=1000&cursor={first['next']}").json()
    ids = [event["event_id"] for event in first["events"] + second["events"]]
    assert ids == whole.ids("sue", "/v1/events?limit=1000")


def test_every_filter_narrows_and_values_of_one_add_up(whole: SchoolDaemon) -> None:
    everything = [e for e in newest(whole) if not e["event_id"].startswith("later-")]

    def expect(query: str, *keep: Any) -> None:
        found = set(whole.ids("sam", f"/v1/events?limit=1000&{query}"))
        found = {event_id for event_id in found if not event_id.startswith("later-")}
        wanted = {e["event_id"] for e in everything if all(k(e) for k in keep)}
        assert found == wanted != set(), query

    expect("user_id=ada", lambda e: e.get("user_id") == "ada")
    expect("user_id=ada&user_id=tess", lambda e: e.get("user_id") in ("ada", "tess"))
    expect("event_type=user_login", lambda e: e["event_type"] == "user_login")
    expect("event_type=userLogin", lambda e: e["event_type"] == "user_login")
    expect("session_id=session-2", lambda e: e["session_id"] == "session-2")
    expect("game_id=g1", lambda e: e["properties"].get("game_id") == "g1")
    expect("teacher_id=tom", lambda e: e["context"].get("teacher_id") == "tom")
    expect("category=system_performance", lambda e: e["event_type"] == "javascript_error")
    expect(
        "user_id=ben&event_type=user_login",
        lambda e: e.get("user_id") == "ben",
        lambda e: e["event_type"] == "user_login",
    )
    middle = everything[len(everything) // 2]["timestamp"]
    expect(f"from={middle}", lambda e: e["timestamp"] >= middle)
    expect(f"to={quote(middle)}", lambda e: e["timestamp"] < middle)
    offset = middle.replace("Z", "+00:00")
    expect(f"from={offset}", lambda e: e["timestamp"] >= middle)


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("from=yesterday", "from"),
        ("to=2025-01-27", "to"),
        ("from=2025-01-27T10:00:00", "from"),
        ("from=5", "from"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=5&limit=6", "limit"),
        ("colour=red", "colour"),
        ("category=homework", "category"),
        ("cursor=abc", "cursor"),
        ("user_id=", "user_id"),
    ],
)
def test_a_wrong_query_is_a_problem_that_names_the_parameter(
    whole: SchoolDaemon, query: str, word: str
) -> None:
    answer = whole.get("sam", f"/v1/events?{query}")
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert word in told["detail"]
    assert told["code"] == "malformed"


def test_one_event_and_its_receipt(whole: SchoolDaemon) -> None:
    event = newest(whole)[-1]
    found = whole.get("sam", f"/v1/events/{event['event_id']}")
    assert found.json() == event
    receipt = whole.get("sam", f"/v1/receipts/{event['event_id']}").json()
    assert receipt["outcome"] == "stored"
    assert receipt["event_type"] == event["event_type"]
    assert receipt["received_at"] == event["meta"]["received_at"]
    assert receipt["stored_at"] == event["meta"]["stored_at"]


def test_the_receipt_of_a_rejected_event_is_its_senders(whole: SchoolDaemon) -> None:
    bad = {"event_id": "bad-0000001", "event_type": "no_such_type", "timestamp": _now()}
    whole.daemon.publish([bad], whole.token("ada"))
    told = whole.get("ada", "/v1/receipts/bad-0000001").json()
    assert (told["outcome"], told["reason"]) == ("rejected", "unknown_type")
    assert whole.get("sam", "/v1/receipts/bad-0000001").status == 200
    assert whole.get("root", "/v1/receipts/bad-0000001").status == 200
    assert whole.get("ben", "/v1/receipts/bad-0000001").status == 404
    assert whole.get("sue", "/v1/receipts/bad-0000001").status == 404


def test_twenty_readers_at_once_all_get_the_same(whole: SchoolDaemon) -> None:
    expected = whole.ids("sam", "/v1/events?limit=200")
    token, wrong = whole.token("sam"), []

    def read() -> None:
        for _ in range(5):
            answer = whole.daemon.get("/v1/events?limit=200", token)
            if [event["event_id"] for event in answer.json()["events"]] != expected:
                wrong.append(answer)

    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_event_is_found_as_soon_as_it_is_acknowledged(whole: SchoolDaemon) -> None:
    key = whole.daemon.key("north")
    for number in range(10):
        event_id = f"atonce-{number:06d}"
        event = {"event_id": event_id, "event_type": "user_login", "timestamp": _now()}
        whole.daemon.publish([event | {"user_id": "ada"}], key)
        assert json.loads(whole.get("ada", f"/v1/events/{event_id}").body)["event_id"] == event_id
        assert event_id in whole.ids("ada", "/v1/events?limit=1000")


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat()
