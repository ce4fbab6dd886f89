"""What was refused can be looked at by cause, and stored after all once the cause is mended."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests.daemon import Daemon, wait_until


def lesson(
    event_id: str, event_type: str = "game_stage_start", **properties: Any
) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "event_type": event_type,
        "timestamp": datetime.now(UTC).isoformat(),
        "properties": {"game_id": "G-01542", "stage_id": "G-01542-quiz"} | properties,
    }


def test_rejected_events_are_grouped_and_replayed_after_the_fix(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon()
    system = daemon.token("root", "org_1", "system_admin")
    told = [lesson(f"evt_later_{i}", "org.school.later") for i in range(3)]
    ack = daemon.publish([*told, 7, lesson("evt_score_1", score="x")], daemon.key("org_1"))
    assert ack["rejected"] == 5
    causes = daemon.get("/v1/quarantine", system).json()["causes"]
    assert {(c["reason"], c["count"]) for c in causes} == {
        ("unknown_type", 3),
        ("malformed", 1),
        ("schema", 1),
    }
    assert (
        daemon.get("/v1/quarantine", daemon.token("a", "org_1", "subscriber_admin")).status == 403
    )
    types = daemon.directory / "types"
    types.mkdir(exist_ok=True)
    schema = {"x-event-type": "org.school.later", "type": "object", "title": "Later"}
    (types / "org.school.later.json").write_text(json.dumps(schema))
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: daemon.get("/v1/schemas/org.school.later").status == 200)
    wanted = {"outcome": "rejected", "reason": "unknown_type"}
    first = daemon.post("/v1/quarantine/replay", wanted, system)
    assert first.status == 200, first
    assert (first.json()["replayed"], first.json()["stored"]) == (3, 3), first
    again = daemon.post("/v1/quarantine/replay", wanted, system).json()
    assert again["replayed"] == 0
    ack = daemon.publish(told, daemon.key("org_1"))
    assert ack["duplicate"] == 3


def test_what_is_still_wrong_stays_once(daemon: Daemon) -> None:
    system = daemon.token("root", "org_1", "system_admin")
    daemon.publish([lesson("evt_score_1", score="x")], daemon.key("org_1"))
    for _ in range(3):
        told = daemon.post("/v1/quarantine/replay", {"outcome": "rejected"}, system).json()
        assert (told["replayed"], told["rejected"]) == (1, 1)
    (cause,) = daemon.get("/v1/quarantine", system).json()["causes"]
    assert cause["count"] == 1


def test_a_bad_question_is_told_and_nothing_is_replayed(daemon: Daemon) -> None:
    system = daemon.token("root", "org_1", "system_admin")
    assert daemon.post("/v1/quarantine/replay", {"outcome": "stored"}, system).status == 400
