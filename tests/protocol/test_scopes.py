from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.oracle_scopes import may_see
from tests.school_daemon import CATEGORIES, ROLES, SchoolDaemon, World, school

EVERYBODY = list(ROLES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SchoolDaemon]:
    with school(tmp_path_factory.mktemp("school")) as running:
        yield running


def visible(whole: SchoolDaemon, who: str, named: str | None = None) -> set[str]:
    org, role = ROLES[who]
    return {
        event["event_id"]
        for event in whole.events
        if may_see(World(), role, who, org, event, CATEGORIES[event["event_type"]], named)
    }


def test_the_table_has_something_to_show_and_to_hide_for_everybody(whole: SchoolDaemon) -> None:
    for who in EVERYBODY:
        assert 0 < len(visible(whole, who)) <= len(whole.events)
    assert len(whole.events) == len({event["event_id"] for event in whole.events}) > 100


@pytest.mark.parametrize("who", EVERYBODY)
def test_a_list_shows_what_the_table_says_and_nothing_else(whole: SchoolDaemon, who: str) -> None:
    found = whole.ids(who, "/v1/events?limit=1000")
    assert set(found) == visible(whole, who)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("who", EVERYBODY)
def test_an_export_holds_what_the_table_says(whole: SchoolDaemon, who: str) -> None:
    answer = whole.get(who, "/v1/export")
    found = [json.loads(line)["event_id"] for line in answer.body.splitlines()]
    assert sorted(found) == sorted(visible(whole, who))
    as_json = whole.get(who, "/v1/export?format=json").json()
    assert {event["event_id"] for event in as_json} == visible(whole, who)


@pytest.mark.parametrize("who", EVERYBODY)
def test_what_is_out_of_scope_does_not_exist(whole: SchoolDaemon, who: str) -> None:
    allowed = visible(whole, who)
    for event in whole.events[:: 3 if who == "ada" else 7]:
        expected = 200 if event["event_id"] in allowed else 404
        assert whole.get(who, f"/v1/events/{event['event_id']}").status == expected
        assert whole.get(who, f"/v1/receipts/{event['event_id']}").status == expected


@pytest.mark.parametrize("who", EVERYBODY)
def test_no_filter_widens_a_scope(whole: SchoolDaemon, who: str) -> None:
    allowed = visible(whole, who)
    for query in (
        "user_id=ben&user_id=sid",
        "class_id=c1",
        "teacher_id=tess&teacher_id=tova",
        "organization_id=south&organization_id=north",
        "category=business_intelligence",
        "event_type=game_stage_complete",
        "session_id=session-1",
        "game_id=g1",
    ):
        found = set(whole.ids(who, f"/v1/events?limit=1000&{query}"))
        assert found <= allowed, (who, query)


def test_a_student_who_asks_for_somebody_else_gets_an_empty_list(whole: SchoolDaemon) -> None:
    answer = whole.get("ada", "/v1/events?user_id=ben")
    assert (answer.status, answer.json()) == (200, {"events": [], "next": None})


def test_a_key_reads_nothing(whole: SchoolDaemon) -> None:
    key = whole.daemon.key("north")
    for path in ("/v1/events", "/v1/events/north-000001", "/v1/export", "/v1/audit"):
        answer = whole.daemon.get(path, key)
        assert answer.status == 403, (path, answer)
        assert answer.headers["content-type"] == "application/problem+json"
    assert whole.daemon.get("/v1/receipts/north-000001", key).status == 200
    assert whole.daemon.get("/v1/receipts/south-000001", key).status == 404


def test_nobody_without_a_credential_reads(whole: SchoolDaemon) -> None:
    for path in ("/v1/events", "/v1/events/north-000001", "/v1/export", "/v1/audit"):
        assert whole.daemon.get(path).status == 401


def test_a_system_admin_sees_pseudonyms_until_one_organization_is_named(
    whole: SchoolDaemon,
) -> None:
    people = {user for user, (_, role) in ROLES.items() if role in ("student", "teacher")}

    def named_in(path: str) -> set[str]:
        body: Any = whole.get("root", path).json()["events"]
        text = json.dumps(body)
        return {user for user in people if f'"{user}"' in text}

    assert named_in("/v1/events?limit=1000") == set()
    assert named_in("/v1/events?limit=1000&organization_id=north&organization_id=south") == set()
    assert "sid" in named_in("/v1/events?limit=1000&organization_id=south")
    one = whole.get("root", "/v1/events/south-000001").json()
    assert str(one["user_id"]).startswith("pseudo_")
    real = whole.get("root", "/v1/events/south-000001?organization_id=south").json()
    assert real["user_id"] == "sid"


PAYLOADS = [
    "' OR 1=1 --",
    '" OR ""="',
    "'; DROP TABLE pack; --",
    "1 UNION SELECT * FROM word",
    "%27%20OR%201%3D1",
    "\x00",
    "\x1f",
    "\x1fc1\x1fc3",
    "c1\x1fc2",
    "*",
    "%",
    "_",
    "ada\x00",
    "\ufeffada",
    "../../etc/passwd",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "=1+1",
    "\r\nSet-Cookie: a=b",
    "💥" * 30,
    "null",
    "None",
    "0",
    "-1",
    "1e309",
    "\u202eada",
]
AXES = [
    "event_type",
    "category",
    "user_id",
    "class_id",
    "teacher_id",
    "assignment_id",
    "sequence_id",
    "game_id",
    "session_id",
    "organization_id",
    "from",
    "to",
    "cursor",
    "limit",
    "purpose",
    "nonsense",
]


@pytest.mark.parametrize("axis", AXES)
def test_nothing_injected_into_a_filter_breaks_or_shows_more(
    whole: SchoolDaemon, axis: str
) -> None:
    from urllib.parse import quote

    allowed = visible(whole, "ada")
    for payload in PAYLOADS:
        query = f"{axis}={quote(payload)}"
        answer = whole.get(
            "ada", f"/v1/events?limit=100&{query}" if axis != "limit" else f"/v1/events?{query}"
        )
        assert answer.status in (200, 400), (payload, answer)
        if answer.status == 200:
            found = {event["event_id"] for event in answer.json()["events"]}
            assert found <= allowed
            assert axis == "purpose" or not found, (axis, payload)
        path = whole.get("ada", f"/v1/events/{quote(payload, safe='')}")
        assert path.status in (400, 404), (payload, path)
