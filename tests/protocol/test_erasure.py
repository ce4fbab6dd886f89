"""Erasure over HTTP and from the command line, and what a backup does with the erased."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.daemon import Daemon, wait_until
from tests.fault.test_canary import places_of

CANARY = "usr_canary_2c91"


def lesson(event_id: str, user_id: str) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "event_type": "game_stage_start",
        "timestamp": datetime.now(UTC).isoformat(),
        "user_id": user_id,
        "properties": {"game_id": "G-01542", "stage_id": "G-01542-quiz"},
    }


def lessons(user_id: str, name: str, n: int = 20) -> list[dict[str, Any]]:
    return [lesson(f"evt_{name}_{i:04d}", user_id) for i in range(n)]


def done(daemon: Daemon, job_id: str, token: str) -> bool:
    return bool(daemon.get(f"/v1/jobs/{job_id}", token).json()["state"] == "done")


def seen(daemon: Daemon, token: str, user_id: str) -> int:
    found = daemon.get(f"/v1/events?user_id={user_id}&limit=100", token)
    assert found.status == 200, found
    return len(found.json()["events"])


def test_an_erased_person_is_gone_and_stays_gone(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    admin, key = daemon.token("usr_admin", "org_1", "subscriber_admin"), daemon.key("org_1")
    user = {"organization_id": "org_1", "role": "student", "age_band": "16_plus"}
    daemon.put(f"/v1/roster/users/{CANARY}", user, admin)
    told = lessons(CANARY, "canary")
    assert (
        daemon.publish([*told, *lessons("usr_2", "other"), {"user_id": CANARY}], key)["stored"]
        == 40
    )
    assert seen(daemon, admin, CANARY) == 20
    assert daemon.delete(f"/v1/users/{CANARY}", daemon.token("usr_2")).status == 403
    asked = daemon.delete(f"/v1/users/{CANARY}?immediately=true", admin)
    assert asked.status == 202, asked
    job = asked.json()
    assert {"id", "state", "due"} <= job.keys()
    wait_until(lambda: done(daemon, job["id"], admin), seconds_max=30)
    assert daemon.get(f"/v1/jobs/{job['id']}", admin).json()["report"]["deleted"]["events"] == 20
    assert seen(daemon, admin, CANARY) == 0
    assert seen(daemon, admin, "usr_2") == 20
    again = daemon.publish([*told, lesson("evt_canary_new", CANARY)], key)
    assert again["stored"] == 0
    assert again["dropped"] + again["duplicate"] == 21
    assert daemon.restart().publish(told, key)["stored"] == 0
    assert seen(daemon, admin, CANARY) == 0
    daemon.stop()
    # The access log must go on saying who was read.
    left = {place for place, _ in places_of([CANARY], daemon.directory)}
    assert left <= {"audit.db", "audit.db-wal"}, left
    records = (daemon.directory / "data" / "erased.jsonl").read_text().splitlines()
    assert json.loads(records[-1])["state"] == "done"


def test_within_the_days_of_grace_an_erasure_is_cancelled(daemon: Daemon) -> None:
    admin = daemon.token("usr_admin", "org_1", "subscriber_admin")
    daemon.publish(lessons(CANARY, "canary", 3), daemon.key("org_1"))
    job = daemon.delete(f"/v1/users/{CANARY}", admin).json()
    assert job["state"] == "waiting"
    days = (datetime.fromisoformat(job["due"]) - datetime.now(UTC)).days
    assert days in (29, 30)
    assert daemon.delete(f"/v1/jobs/{job['id']}", admin).json()["state"] == "cancelled"
    assert daemon.delete(f"/v1/jobs/{job['id']}", admin).status == 200
    assert seen(daemon, admin, CANARY) == 3
    other = daemon.token("usr_admin2", "org_2", "subscriber_admin")
    assert daemon.get(f"/v1/jobs/{job['id']}", other).status == 404
    assert daemon.get("/v1/jobs/job_none", admin).status == 404


def test_who_was_erased_after_a_backup_does_not_come_back_with_it(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = make_daemon()
    admin, key = daemon.token("usr_admin", "org_1", "subscriber_admin"), daemon.key("org_1")
    daemon.publish([*lessons(CANARY, "canary"), *lessons("usr_2", "other")], key)
    backup = tmp_path / "backups" / "first"
    daemon.command("backup", str(backup))
    daemon.command("restore", str(backup), "--check")
    daemon.publish(lessons("usr_2", "later"), key)
    told = daemon.command("erase", CANARY, "--org", "org_1", "--immediately", "--json").stdout
    job = json.loads(told)
    wait_until(lambda: done(daemon, job["id"], admin), seconds_max=30)
    daemon.stop()
    data = daemon.directory / "data"
    data.rename(daemon.directory / "data.lost")
    said = daemon.command("restore", str(backup)).stdout
    assert "1 people were erased since" in said
    daemon.start()
    assert seen(daemon, admin, "usr_2") == 20
    assert seen(daemon, admin, CANARY) == 0
    assert daemon.publish(lessons(CANARY, "canary"), key)["stored"] == 0

    def gone() -> bool:
        left = {place for place, _ in places_of([CANARY], data)}
        return left <= {"audit.db", "audit.db-wal"}

    wait_until(gone, seconds_max=30)
    daemon.stop()
    shutil.rmtree(data)
    (backup / "meta.db").write_bytes(b"changed")
    daemon.command("restore", str(backup), expect=69)
    assert not data.exists() or not any(data.iterdir())


def test_the_policy_is_printed_with_what_is_in_force(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(start=False, settings={"privacy": {"erasure_grace_days": 7}})
    daemon._init()
    daemon.organization("org_1", retention_days={"standard": 400})
    told = daemon.command("policy").stdout
    for words in (
        "Purpose:",
        "Business need:",
        "| standard |",
        "2555",
        "after 7 days",
        "org_1: standard 400",
    ):
        assert words in told


def test_a_purge_beside_and_through_the_daemon(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.publish(lessons("usr_2", "other", 3), daemon.key("org_1"))
    assert "would remove 0 events" in daemon.command("purge", "--dry-run").stdout
    assert "removed 0 events" in daemon.command("purge").stdout
    daemon.stop()
    assert "removed 0 events" in daemon.command("purge").stdout
