"""`mlc-broker sql`: questions in SQL over events, with and without a daemon."""

from __future__ import annotations

import json

from tests.daemon import Daemon
from tests.protocol.test_live import play


def test_sql_is_answered_noted_and_changes_nothing(daemon: Daemon) -> None:
    key, boss = daemon.key(), daemon.token("usr_boss", "org_1", "subscriber_admin")
    scores = [play(n) for n in range(5)]
    for number, event in enumerate(scores):
        event["properties"]["score"] = number * 10
    assert daemon.publish(scores, key)["stored"] == 5
    question = (
        'SELECT user_id, max("properties.score") AS best, count(*) AS n FROM events GROUP BY 1'
    )
    for running in (True, False):
        if not running:
            daemon.stop()
        told = daemon.command("sql", question, "--org", "org_1", "--json").stdout
        assert json.loads(told) == {"user_id": "usr_1", "best": 40, "n": 5}
    assert daemon.command("sql", "SELECT event_type FROM events LIMIT 1").stdout.splitlines() == [
        "event_type",
        "target_met",
    ]
    cut = daemon.command("sql", "SELECT 1 FROM events", "--rows-max", "2")
    assert len(cut.stdout.splitlines()) == 3
    assert "only the first 2 rows" in cut.stderr
    none = daemon.command("sql", "SELECT 1 FROM events", "--from", "2999-01-01T00:00:00Z")
    assert none.stdout.splitlines() == ["1"]
    daemon.start()
    entries = daemon.get("/v1/audit", boss).json()["entries"]
    assert any(question in entry["purpose"] for entry in entries)


def test_what_is_no_question_or_takes_too_long_is_told(daemon: Daemon) -> None:
    daemon.publish([play(1)], daemon.key())
    for statement in (
        "DELETE FROM events",
        "ATTACH 'other.db' AS other",
        "PRAGMA query_only=OFF",
        "SELECT 1; SELECT 2",
        "SELEKT",
        "",
        "SELECT load_extension('x')",
    ):
        said = daemon.command("sql", statement, expect=64).stderr
        assert "SELECT over the table events" in said, said
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
    slow = daemon.command("sql", endless, "--seconds-max", "0.2", expect=69).stderr
    assert "longer than 0.2 s" in slow
